"""Pointwise loops of emitted C++ whose loads run along another axis than their stores.

Tiles of the two axes: such loads are first copied along their own axis into a small array, so that
every line of memory is read once and whole. The loops without transposes are in `loops`.
"""

from collections.abc import Mapping

from fusewright.emit.cstyle import Env
from fusewright.emit.ctext import Text, Writer, c_type
from fusewright.ir.body import Expr
from fusewright.ir.index import Var
from fusewright.ir.kernel import Kernel, Transposition

from .loops import elementwise_body, is_parallel, loop_type, nest, parallel_for, simd_pragma

# Points of a tile along each of the two axes: whole lines of memory, in an array that L1 holds.
TILE = 32
# With fewer points everything stays in the cache anyway.
WORTH_TILES = 1 << 14


def pays(turned: Transposition, kernel: Kernel) -> bool:
    """Whether the nest is large enough for tiles."""
    sides = (turned.loaded, turned.stored)
    return kernel.row_count >= WORTH_TILES and all(v.extent >= TILE for v in sides)


def transposed(kernel: Kernel, turned: Transposition, env: Env, out: Writer) -> None:
    """Loops over tiles around the staging loops and the loop that computes."""
    sides = (turned.loaded, turned.stored)
    rest = [v for v in kernel.rows if v not in sides]
    if is_parallel(kernel):
        out.line(parallel_for(kernel, len(rest) + 2))

    def tiles(k: int) -> None:
        if k == len(sides):
            _tile(kernel, turned, env, out)
            return
        name, kind = env.variables[sides[k]], loop_type(sides[k])
        extent = sides[k].extent
        with out.block(f"for ({kind} {name}_0 = 0; {name}_0 < {extent}; {name}_0 += {TILE})"):
            tiles(k + 1)

    nest(rest, env, out, lambda: tiles(0))


def _tile(kernel: Kernel, turned: Transposition, env: Env, out: Writer) -> None:
    p, q = (env.variables[v] for v in (turned.loaded, turned.stored))
    for v, name in ((turned.loaded, p), (turned.stored, q)):
        kind, end = loop_type(v), f"{name}_0 + {TILE}"
        bound = end if v.extent % TILE == 0 else f"fw_minimum<{kind}>({end}, {v.extent})"
        out.line(f"const {kind} {name}_end = {bound};")
    names = {e: env.names.fresh(f"{env.pointers[e.buffer]}_tile") for e in turned.loads}
    for e, name in names.items():
        out.line(f"{c_type(e.dtype, 'cpu')} {name}[{TILE}][{TILE}];")
    with out.block(_loop(turned.stored, q)):
        out.line("#pragma omp simd")
        with out.block(_loop(turned.loaded, p)):
            for e, name in names.items():
                value = f"{env.pointers[e.buffer]}[{env.index.text(e.offset).code}]"
                out.line(f"{name}[{p} - {p}_0][{q} - {q}_0] = {value};")
    staged: Mapping[Expr, Text] = {
        e: Text(f"{name}[{p} - {p}_0][{q} - {q}_0]") for e, name in names.items()
    }
    with out.block(_loop(turned.loaded, p)):
        out.line(simd_pragma(kernel))
        with out.block(_loop(turned.stored, q)):
            elementwise_body(kernel.phases, env.with_loaded(staged), out)


def _loop(v: Var, name: str) -> str:
    return f"for ({loop_type(v)} {name} = {name}_0; {name} < {name}_end; {name}++)"
