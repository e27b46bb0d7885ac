"""The checkers of both levels, in one place to import from."""

from .check_graph import check_graph, leaf_positions
from .check_program import check_program

__all__ = ["check_graph", "check_program", "leaf_positions"]
