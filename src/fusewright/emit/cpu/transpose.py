"""Pointwise loops of emitted C++ whose loads run along another axis than their stores.

Tiles of the two axes: such loads are first copied along their own axis into a small array, so that
every line of memory is read once and whole. The loops without transposes are in `loops`.
"""

from collections.abc import Mapping

from fusewright.emit.cstyle import Env
from fusewright.emit.ctext import Text, Writer, memory_type
from fusewright.ir.body import Expr, Load
from fusewright.ir.dtypes import INT64
from fusewright.ir.index import Var
from fusewright.ir.kernel import Kernel, Transposition

from .loops import elementwise_body, is_parallel, loop_type, nest, parallel_for, simd_pragma

# Points of a tile along each of the two axes: as many lines of memory side by side as prefetchers
# follow, in arrays of up to so many bytes per point, which L1 holds; else whole lines.
TILE, TILE_BYTES, SMALL_TILE = 64, 4, 32
# With fewer points everything stays in the cache anyway.
WORTH_TILES = 1 << 14


def pays(turned: Transposition, kernel: Kernel) -> bool:
    """Whether the nest is large enough for tiles."""
    sides = (turned.loaded, turned.stored)
    return kernel.row_count >= WORTH_TILES and all(v.extent >= SMALL_TILE for v in sides)


def transposed(kernel: Kernel, turned: Transposition, env: Env, out: Writer) -> None:
    """Loops over tiles, from one to the next along the loads, around the staging loops and the loop
    that computes."""
    sides, tile = (turned.stored, turned.loaded), _side(turned)
    rest = [v for v in kernel.rows if v not in sides]
    if is_parallel(kernel):
        out.line(parallel_for(kernel, len(rest) + 2))

    def tiles(k: int) -> None:
        if k == len(sides):
            _tile(kernel, turned, env, out)
            return
        name, kind = env.variables[sides[k]], loop_type(sides[k])
        extent = sides[k].extent
        with out.block(f"for ({kind} {name}_0 = 0; {name}_0 < {extent}; {name}_0 += {tile})"):
            tiles(k + 1)

    nest(rest, env, out, lambda: tiles(0))


def _side(turned: Transposition) -> int:
    return TILE if sum(e.dtype.bytes for e in turned.loads) <= TILE_BYTES else SMALL_TILE


def _tile(kernel: Kernel, turned: Transposition, env: Env, out: Writer) -> None:
    tile = _side(turned)
    p, q = (env.variables[v] for v in (turned.loaded, turned.stored))
    for v, name in ((turned.loaded, p), (turned.stored, q)):
        kind, end = loop_type(v), f"{name}_0 + {tile}"
        bound = end if v.extent % tile == 0 else f"fw_minimum<{kind}>({end}, {v.extent})"
        out.line(f"const {kind} {name}_end = {bound};")
    names = {e: env.names.fresh(f"{env.pointers[e.buffer]}_tile") for e in turned.loads}
    places = {}
    for e, name in names.items():
        first, second = (p, q) if _turns_first(e) else (q, p)
        width = tile if _turns_first(e) else tile + 1
        out.line(f"{memory_type(e.dtype, 'cpu')} {name}[{tile}][{width}];")
        places[e] = f"{name}[{first} - {first}_0][{second} - {second}_0]"
    with out.block(_loop(turned.stored, q)):
        out.line("#pragma omp simd")
        with out.block(_loop(turned.loaded, p)):
            for e, place in places.items():
                value = f"{env.pointers[e.buffer]}[{env.index.text(e.offset).code}]"
                out.line(f"{place} = {value};")
    staged: Mapping[Expr, Text] = {e: Text(place) for e, place in places.items()}
    with out.block(_loop(turned.loaded, p)):
        out.line(simd_pragma(kernel))
        with out.block(_loop(turned.stored, q)):
            elementwise_body(kernel.phases, env.with_loaded(staged), out)


def _turns_first(e: Load) -> bool:
    """Whether the tile is written across its rows. Reading it across them takes half as long, with
    rows padded so that they share no cache set; but GCC gathers 64-bit integers through memory."""
    return e.dtype == INT64


def _loop(v: Var, name: str) -> str:
    return f"for ({loop_type(v)} {name} = {name}_0; {name} < {name}_end; {name}++)"
