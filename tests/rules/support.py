"""Graphs from nodes, random values for them, and comparison: what the tests of rules share."""

from collections.abc import Iterable, Sequence

import torch

from fusewright.context import Context
from fusewright.ir import graph as g
from fusewright.ir.check_graph import check_graph
from fusewright.options import Options
from fusewright.rewrite import RULES, Rewrite, Rule, run_rules
from fusewright.rewrite.samples import graph_of
from fusewright.run.interpret import interpret_nodes
from fusewright.target.cost import Cost, graph_measure


def simplified(
    *roots: g.Node, rules: Sequence[Rule] = RULES, numerics: str = "finite"
) -> tuple[tuple[g.Node, ...], tuple[Rewrite, ...]]:
    """The roots after rewriting, checked, and what was applied."""
    context = Context(Options(numerics=numerics))  # type: ignore[arg-type]
    after, records = run_rules(graph_of(*roots), rules, context)
    check_graph(after)
    return after.outputs, records


def measure(*roots: g.Node) -> Cost:
    return graph_measure(roots)


def values_for(roots: Iterable[g.Node], seed: int) -> dict[str, torch.Tensor]:
    """A random value for every input: normal, small integers, or coin flips."""
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for x in g.topological(roots):
        if not isinstance(x, g.Input):
            continue
        dtype = getattr(torch, x.dtype.name)
        if x.dtype.kind == "float":
            out[x.name] = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(dtype)
        else:
            high = 2 if x.dtype.kind == "bool" else 100
            out[x.name] = torch.randint(0, high, x.shape, generator=generator).to(dtype)
    return out


def assert_equal_values(
    before: Sequence[g.Node], after: Sequence[g.Node], seed: int = 0, tolerance: float = 1e-12
) -> None:
    """Both compute the same for random inputs, in float64, relative to the largest element."""
    inputs = values_for([*before, *after], seed)
    expected = interpret_nodes(before, inputs, as_float64=True)
    found = interpret_nodes(after, inputs, as_float64=True)
    for e, f in zip(expected, found, strict=True):
        assert e.shape == f.shape and e.dtype == f.dtype
        if not e.is_floating_point():
            assert torch.equal(e, f)
            continue
        finite = e[torch.isfinite(e)].abs()
        scale = max(1.0, finite.max().item() if finite.numel() else 1.0)
        torch.testing.assert_close(f, e, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
