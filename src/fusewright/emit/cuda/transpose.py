"""Pointwise kernels of emitted CUDA that turn a tile around in shared memory.

Loads that are contiguous along another axis than the stores fill a tile along theirs; values are
computed and stored along the other axis. One column of padding keeps the accesses of a warp in
different banks (Ruetsch and Micikevicius, "Optimizing Matrix Transpose in CUDA", 2009).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

from fusewright.emit.cstyle import Env, load_offset
from fusewright.emit.ctext import Text, Writer, c_type
from fusewright.errors import IRError
from fusewright.ir.body import Load
from fusewright.ir.index import Var
from fusewright.ir.kernel import Kernel, transposition
from fusewright.ir.phases import without_keeps

from .access import VectorAxis, guard, nothing, write_lanes
from .loops import Launch, index_type, positions


@dataclass(frozen=True, slots=True)
class _Side:
    """One axis of the tile: its variable, how many points of it a tile has, where a tile starts."""

    axis: Var
    points: int
    first: str

    @property
    def tiles(self) -> int:
        return -(-self.axis.extent // self.points)

    def bound(self, env: Env) -> list[str]:
        """The condition that a point exists, where the last tile is not full."""
        name, extent = env.variables[self.axis], self.axis.extent
        return [f"{name} < {extent}"] if extent % self.points else []


def transpose(kernel: Kernel, env: Env, out: Writer) -> Launch:
    """One block per tile: `lanes` points along the loads' axis, the others along the stores'."""
    turned, tile = transposition(kernel.rows, kernel.phases), kernel.tile
    if turned is None:
        raise IRError(f"{kernel.name}: every load of this transpose runs along its stores")
    loaded = _side(turned.loaded, tile.lanes, env)
    stored = _side(turned.stored, tile.threads * tile.items // tile.lanes, env)
    rest = [v for v in kernel.rows if v not in (loaded.axis, stored.axis)]
    blocks = prod(v.extent for v in rest) * loaded.tiles * stored.tiles
    at = env.names.fresh("at")
    with _tile_position(rest, loaded, stored, blocks, env, out):
        staged = _declare_tiles(turned.loads, loaded, stored, env, out)
        with _points(kernel, at, (loaded, stored), env, out):
            for e, name in staged.items():
                value = f"{env.pointers[e.buffer]}[{load_offset(e, env, out).code}]"
                here = f"[{at} / {loaded.points}][{at} % {loaded.points}]"
                out.line(f"{name}{here} = {value};")
        out.line("__syncthreads();")
        phases = without_keeps(kernel.phases)
        stores = [s for p in phases for s in p.stores]
        with _points(kernel, at, (stored, loaded), env, out):
            here = f"[{at} % {stored.points}][{at} / {stored.points}]"
            values: Mapping[Load, Text] = {e: Text(f"{n}{here}") for e, n in staged.items()}
            inside = env.with_loaded({**values})
            write_lanes([], nothing, stores, VectorAxis(None, 1), inside, out)
    return Launch(blocks, tile.threads)


def _side(axis: Var, points: int, env: Env) -> _Side:
    return _Side(axis, points, env.names.fresh(f"{env.variables[axis]}_first"))


@contextmanager
def _tile_position(
    rest: Sequence[Var], loaded: _Side, stored: _Side, blocks: int, env: Env, out: Writer
) -> Iterator[None]:
    """Where the block's tile begins; the other row variables are recovered as ever."""
    tiles = loaded.tiles * stored.tiles
    for side, before in ((loaded, 1), (stored, loaded.tiles)):
        number = "blockIdx.x" if before == 1 else f"blockIdx.x / {before}"
        start = f"{number} % {side.tiles} * {side.points}" if side.tiles > 1 else "0"
        out.line(f"const int {side.first} = {start};")
    flat = env.variables[rest[0]] if len(rest) == 1 else env.names.fresh("outer")
    if rest:
        out.line(f"const {index_type(blocks)} {flat} = blockIdx.x / {tiles};")
    with positions(rest, flat, env, out):
        yield


def _declare_tiles(
    loads: Sequence[Load], loaded: _Side, stored: _Side, env: Env, out: Writer
) -> dict[Load, str]:
    """A tile of shared memory for each load."""
    names = {}
    for e in loads:
        names[e] = env.names.fresh(f"{env.pointers[e.buffer]}_tile")
        kind = c_type(e.dtype, "cuda")
        out.line(f"__shared__ {kind} {names[e]}[{stored.points}][{loaded.points + 1}];")
    return names


@contextmanager
def _points(
    kernel: Kernel, at: str, sides: tuple[_Side, _Side], env: Env, out: Writer
) -> Iterator[None]:
    """A thread's points of the tile, the first side's neighbours in neighbouring threads."""
    fast, slow = sides
    tile = kernel.tile
    out.line("#pragma unroll")
    with out.block(f"for (int item = 0; item < {tile.items}; item++)"):
        out.line(f"const int {at} = threadIdx.x + item * {tile.threads};")
        for side, place in ((fast, f"{at} % {fast.points}"), (slow, f"{at} / {fast.points}")):
            kind, name = index_type(side.axis.extent), env.variables[side.axis]
            out.line(f"const {kind} {name} = {side.first} + {place};")
        with guard(" && ".join((*fast.bound(env), *slow.bound(env))), out):
            yield
