"""Algebra: simplifies a Graph by rules, each use of which leaves a certificate.

`rewrite` is the stage. The search is in `engine`, what a rule is in `rule`, the rules themselves in
the modules named after their families.
"""

from fusewright.context import Context
from fusewright.ir import graph as g

from . import (
    algebra,
    clamp,
    collect,
    constants,
    contract,
    explog,
    linear,
    order,
    reduce,
    scan,
    unread,
    view,
)
from .engine import run_rules
from .rule import Rewrite, Rule

RULES: tuple[Rule, ...] = (
    *constants.RULES,
    *algebra.RULES,
    *clamp.RULES,
    *collect.RULES,
    *explog.RULES,
    *unread.RULES,
    *view.RULES,
    *reduce.RULES,
    *scan.RULES,
    *order.RULES,
    *contract.RULES,
    *linear.RULES,
)

__all__ = ["RULES", "Rewrite", "Rule", "rewrite", "run_rules"]


def rewrite(graph: g.Graph, context: Context) -> tuple[g.Graph, tuple[Rewrite, ...]]:
    """`graph` simplified as far as the rules of `context.options.numerics` reach, and how.

    The certificates are in the order of application. Outputs that turn out to be constant are
    reported as warnings.
    """
    after, records = run_rules(graph, RULES, context)
    for k, (old, new) in enumerate(zip(graph.outputs, after.outputs, strict=True)):
        if 0 not in new.shape and _is_constant(new) and not isinstance(old, g.Const):
            context.warn(
                f"output {k} is provably constant, whatever the inputs and parameters are: "
                "this is usually a mistake in the model"
            )
    return after, records


def _is_constant(node: g.Node) -> bool:
    return isinstance(node, g.Const) or (isinstance(node, g.View) and isinstance(node.x, g.Const))
