"""The hole that takes a run of a row's results at once, with vectors where accesses allow them.

Used by the native products and by split products of small depth; the other holes take one element
at a time (`contract`).
"""

from collections.abc import Sequence
from dataclasses import replace

from fusewright.emit.cstyle import Env
from fusewright.emit.ctext import Text, Writer
from fusewright.ir import index as ix
from fusewright.ir.body import Dot, Expr, Lit, Ref, rebuild, substitution
from fusewright.ir.dtypes import FLOAT32
from fusewright.ir.index import Index, Var, substitute_conds
from fusewright.ir.kernel import Kernel, Store
from fusewright.ir.onepass import Partial

from .access import VectorAxis, loaded, plan_fetches, write_fetches, write_lanes

ACCUMULATOR = "acc"
ONE = Lit(FLOAT32, 1.0)


def without_dot(e: Expr) -> Expr:
    """The expression with the accumulator's name in place of the product."""
    return rebuild(e, lambda x: Ref(x.dtype, ACCUMULATOR) if isinstance(x, Dot) else None)


def element_words(p: Partial, value: Text, weight: Text, env: Env) -> list[str]:
    """The partial of a single element."""
    if p.form == "best":
        assert p.fold.position is not None
        return [value.code, f"__int_as_float({env.index.text(p.fold.position).code})"]
    if p.form == "exponentials":
        return [value.code, weight.code]
    return ["1.0f", value.code, "0.0f"] if p.form == "squares" else [value.code]


def apply_runs(
    kernel: Kernel,
    run: int,
    partials: Sequence[Partial],
    env: Env,
    out: Writer,
    phases: int = 1,
) -> None:
    """`apply`: what happens to a run of columns of one row of the product, or of `phases` rows that
    alternate along the columns."""
    first = kernel.phases[0]
    columns = [v for v in (*kernel.rows, *first.cols) if v.name == "n"]
    axis = VectorAxis(columns[0] if columns else None, run)
    stores = [replace(s, body=without_dot(s.body)) for s in first.stores]
    if phases > 1:
        stores, axis, env = _alternating(kernel, stores, axis, phases, env)
    bodies = [without_dot(e) for p in partials for e in (p.value, p.weight or ONE)]
    words = sum(p.words for p in partials)
    over_m = words and "m" in {v.name for v in first.cols}
    lane = "v" if run > 1 else "0"
    env = env.with_refs({ACCUMULATOR: Text(f"acc[{lane}]")})

    def fold(values: Sequence[Text], lane_env: Env) -> None:
        if not partials:
            return
        pairs = zip(partials, values[::2], values[1::2], strict=True)
        elements = [w for p, v, weight in pairs for w in element_words(p, v, weight, lane_env)]
        out.line(f"const float q[{words}] = {{{', '.join(elements)}}};")
        target = "p" if not over_m or run == 1 else f"p + v * {words}"
        out.line(f"partial_merge({target}, q);")

    out.line("")
    values = f"const Value (&acc)[{run}], float* p"
    with out.block(f"__device__ void apply(int batch, int m, int n, {values}) const"):
        fetches = plan_fetches([*bodies, *(s.body for s in stores)], axis, env)
        write_fetches(fetches, axis, "", env, out, declare=True)
        write_lanes(bodies, fold, stores, axis, env.with_loaded(loaded(fetches, "")), out)


def _alternating(
    kernel: Kernel, stores: Sequence[Store], axis: VectorAxis, phases: int, env: Env
) -> tuple[list[Store], VectorAxis, Env]:
    """The stores over rows that are `phases` of the product's, alternating along their columns."""
    (row,) = (v for v in (*kernel.rows, *kernel.phases[0].cols) if v.name == "m")
    assert axis.axis is not None
    m, n = Var("m", row.extent // phases), Var("n", axis.axis.extent * phases)
    old: dict[Index, Index] = {row: m * phases + ix.mod(n, phases), axis.axis: ix.div(n, phases)}
    body = substitution(old)
    changed = [
        Store(s.buffer, ix.substitute(s.offset, old), body(s.body), substitute_conds(s.inside, old))
        for s in stores
    ]
    return changed, VectorAxis(n, axis.width), env.with_variables({m: "m", n: "n"})
