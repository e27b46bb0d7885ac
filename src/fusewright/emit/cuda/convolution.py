"""Convolutions on Hopper's tensor cores: the launch of `skeletons/conv_sm90*.cuh` with its hole.

The hole is that of every product that hands over runs of columns (`native`).
"""

from collections.abc import Iterable

from fusewright.emit.common import Buffers
from fusewright.emit.cstyle import Env
from fusewright.ir.body import Load, loads
from fusewright.ir.conv_product import ConvShape
from fusewright.ir.conv_tile import MOST_RUN, ConvTile, alternating, kernel_tile, run_of, spatial
from fusewright.ir.kernel import Kernel, dot_of
from fusewright.ir.onepass import partials_of

from .contract import ContractionText, hole_env
from .native import contraction_text

ROOT = "conv_sm90_launch.cuh"


def conv_contraction(kernel: Kernel, buffers: Buffers) -> ContractionText:
    """The text of a contraction kernel of scheme conv."""
    conv, tile, env = kernel.conv, kernel_tile(kernel), hole_env(kernel)
    assert conv is not None
    call, run = _call(kernel, conv, tile, env), run_of(conv, tile.box)
    phases = 1 if partials_of(kernel.phases) else alternating(conv)
    whole = not any(s.inside for s in kernel.phases[0].stores)
    if phases > 1:
        run = min(run * phases, MOST_RUN) if whole else phases
    return contraction_text(kernel, buffers, env, run, call, ROOT, phases)


def _call(kernel: Kernel, w: ConvShape, tile: ConvTile, env: Env) -> list[str]:
    box, hands = tile.box, str(not tile.own).lower()
    size = f"{w.images} images of {w.channels} channels"
    sizes = (tile.blocks, tile.columns, tile.chunk, box.shared)
    shape = (box.width, box.height, box.depth, box.pitch)
    x, y = _operands(kernel)
    facts = (
        (w.inner, 1, "images"),
        (w.outer, 1, "outputs"),
        (w.taps, 1, "taps"),
        (w.stride, 1, "strides"),
        (w.before, 0, "padding before"),
        (w.dilation, 1, "dilations"),
    )
    return [
        f"using Tile = conv90::Tile<conv90::RoundedFloat16, {_list((*sizes, *shape))},",
        f"                            {hands}, {tile.cluster(w)}>;",
        "const conv90::Problem problem = {",
        f"    {env.pointers[x.buffer]},  // {size}, which are last",
        f"    {env.pointers[y.buffer]},  // {w.rows} rows of weights",
        f"    {w.rows}, {w.images}, {w.channels},",
        *(f"    {{{_list(spatial(v, fill))}}},  // {what}" for v, fill, what in facts),
        "};",
        f"return conv90::run<Tile>(problem, hole, {env.pointers[kernel.workspace]}, stream);",
    ]


def _operands(kernel: Kernel) -> tuple[Load, Load]:
    """The loads of the images and of the weights."""
    dot = dot_of(kernel)
    return loads(dot.y)[0], loads(dot.x)[0]


def _list(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))

