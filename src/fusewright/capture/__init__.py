"""Capture: torch.export and core-ATen decompositions to the level-1 Graph. No optimisation here."""

from .lower import capture

__all__ = ["capture"]
