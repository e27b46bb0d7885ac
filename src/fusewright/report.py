"""The object that `explain --json` and `optimize --json` print: a pure function of a compilation.

Its keys are part of the interface, described in docs/design.md. Layout for people is `cli`'s.
"""

from dataclasses import asdict
from typing import Any

from .ir.kernel import Kernel, LibraryCall
from .pipeline import Compilation, Rewrite
from .target.cost import graph_cost
from .target.program_cost import step_bytes, step_flops


def report(c: Compilation) -> dict[str, Any]:
    """JSON-ready data: costs before and after, kernels, calls, rewrites, refusals, warnings.

    FLOPs count multiply and add apart; bytes are those each step must move. `reference` is the
    captured graph run op by op.
    """
    before = graph_cost(c.graph.roots)
    kernels = [_kernel(c, s) for s in c.program.steps if isinstance(s, Kernel)]
    calls = [(s, _call(c, s)) for s in c.program.steps if isinstance(s, LibraryCall)]
    steps = [*kernels, *(data for _, data in calls)]
    return {
        "problem": c.title,
        "target": c.arch.name,
        "reference": {"flops": before.flops, "bytes": before.bytes},
        "optimized": {
            "flops": sum(s["flops"] for s in steps),
            "bytes": sum(s["bytes"] for s in steps),
            "kernels": kernels,
            "library_calls": [data for call, data in calls if not call.extern],
            "extern_calls": [data for call, data in calls if call.extern],
        },
        "rewrites": [_rewrite(r) for r in c.rewrites],
        "why_not": [asdict(w) for w in c.program.why_not],
        "warnings": list(c.warnings),
    }


def _kernel(c: Compilation, kernel: Kernel) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "anchor": kernel.anchor,
        "covers": list(kernel.covers),
        "flops": step_flops(kernel),
        "bytes": step_bytes(kernel, c.program),
        "tile": asdict(kernel.tile),
    }


def _call(c: Compilation, call: LibraryCall) -> dict[str, Any]:
    return {
        "name": call.name,
        "function": call.function,
        "covers": list(call.covers),
        "flops": step_flops(call),
        "bytes": step_bytes(call, c.program),
    }


def _rewrite(r: Rewrite) -> dict[str, Any]:
    return {
        "name": r.rule,
        "class": r.numerics,
        "where": r.where,
        "identity": r.identity,
        "precondition": r.precondition,
        "flops_delta": r.flops_delta,
        "bytes_delta": r.bytes_delta,
        "before": r.before,
        "after": r.after,
    }
