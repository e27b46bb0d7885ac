"""Elementary functions whose results are rounded to 16 bits at once: short forms do on CUDA.

bfloat16 and float16 keep 8 and 11 bits. A value that reaches nothing but such a rounding, through
operations that pass a relative error on as it is, may have one of 2^-16 (`short_...` in device.cuh,
bounds beside them): the rounding's own error grows by at most one part in 16 for `MOST` of them.
Kernels in 16-bit types are otherwise bound by instructions, not by memory. No text is printed here.
"""

from dataclasses import replace

from fusewright.ir.body import Apply, Choose, Convert, Dot, Expr, Guarded, Lit, rebuild
from fusewright.ir.dtypes import FLOAT32
from fusewright.ir.kernel import Kernel, Phase

from .spell import HALVES, ONE_PLUS_ERF, SHORT

# Short functions in one stored value, whose errors may add up.
MOST = 2
# Operations whose result has the sum of the operands' relative errors at most.
PASSING = ("mul", "div", "neg", "abs")
ONE = Lit(FLOAT32, 1.0)


def with_short_functions(kernel: Kernel) -> Kernel:
    """The kernel with the functions of its stores' 16-bit values in their short form."""
    return replace(kernel, phases=tuple(map(_shortened, kernel.phases)))


def _shortened(phase: Phase) -> Phase:
    """Folds and kept values stay as they are: what refers to them needs all their bits."""
    exact: set[Expr] = set()
    for body in (x.body for x in (*phase.keeps, *phase.scans, *phase.folds)):
        _visit(body, exact, set())
    stores = []
    for s in phase.stores:
        rounded: set[Expr] = set()
        _visit(s.body, exact, rounded)
        stores.append((s, rounded))
    return replace(
        phase,
        stores=tuple(replace(s, body=_short(s.body, found - exact)) for s, found in stores),
    )


def _short(body: Expr, rounded: set[Expr]) -> Expr:
    if not 0 < len(rounded) <= MOST:
        return body

    def change(e: Expr) -> Expr | None:
        if isinstance(e, Dot):
            return e
        if e not in rounded or (function := _function(e)) is None:
            return None
        op, args = function
        return Apply(e.dtype, f"short_{op}", tuple(rebuild(a, change) for a in args))

    return rebuild(body, change)


def _function(e: Expr) -> tuple[str, tuple[Expr, ...]] | None:
    """The name and the arguments of the function with a short form that `e` is."""
    if not isinstance(e, Apply) or e.dtype != FLOAT32:
        return None
    if e.op in SHORT:
        return e.op, e.args
    if e.op == "add" and ONE in e.args:
        for x in e.args:
            if isinstance(x, Apply) and x.op == "erf":
                return ONE_PLUS_ERF, x.args
    return None


def _visit(root: Expr, exact: set[Expr], rounded: set[Expr]) -> None:
    """Sorts the functions below `root` by whether some use of theirs needs all their bits."""
    stack, seen = [(root, False)], set()
    while stack:
        e, small = stack.pop()
        if (e, small) in seen:
            continue
        seen.add((e, small))
        if _function(e) is not None:
            (rounded if small else exact).add(e)
        stack.extend((x, passes) for x, passes in _operands(e, small))


def _operands(e: Expr, small: bool) -> list[tuple[Expr, bool]]:
    """The operands, and whether a small relative error of each is one of what is rounded."""
    match e:
        case Dot():  # a product is the same for all that read it
            return []
        case Convert():
            return [(e.x, e.dtype in HALVES and e.x.dtype == FLOAT32)]
        case Choose():
            return [(e.cond, False), (e.a, small), (e.b, small)]
        case Guarded():
            return [(e.x, small), (e.otherwise, small)]
        case Apply() if e.op == "log1p":  # of what is not negative: log1p(y) grows no faster than y
            return [(x, small and isinstance(x, Apply) and x.op == "exp") for x in e.operands]
        case Apply() if e.op in PASSING:
            return [(x, small) for x in e.operands]
        case _:
            return [(x, False) for x in e.operands]
