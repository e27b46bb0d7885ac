"""Prints a kernel as CUDA C++: `cuda_kernel`, the device function and how it is launched.

This module puts together signature, header and anchor; loops live in `loops`, `reduce`.
The text includes no header and compiles under nvcc and NVRTC.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fusewright.emit.common import Buffers, function_name, header, kernel_env, parameters, signature
from fusewright.emit.ctext import Writer
from fusewright.emit.rounded import with_short_functions
from fusewright.errors import IRError
from fusewright.ir.kernel import Kernel

from .cluster import PORTABLE_CLUSTER, row_cluster
from .loops import MAX_GRID, Launch, elementwise
from .reduce import column_reduce, row_reduce
from .stencil import stencil_kernel
from .stream import column_stream
from .transpose import transpose
from .window import window

# A block gets more shared memory than this only after its kernel asked for it.
STATIC_SHARED_BYTES = 48 << 10


@dataclass(frozen=True, slots=True)
class KernelText:
    """A kernel's device code, its name and its grid; parameters are `common.buffer_order`."""

    device: str
    name: str
    grid: Launch

    def launch(self, arguments: Sequence[str]) -> list[str]:
        """The host statements that launch it on `stream` with the given pointers."""
        grid = self.grid
        lines = []
        if grid.shared > STATIC_SHARED_BYTES:
            lines.append(
                f"cudaFuncSetAttribute({self.name}, cudaFuncAttributeMaxDynamicSharedMemorySize, "
                f"{grid.shared});"
            )
        if grid.cluster > PORTABLE_CLUSTER:
            attribute = "cudaFuncAttributeNonPortableClusterSizeAllowed"
            lines.append(f"cudaFuncSetAttribute({self.name}, {attribute}, 1);")
        launch = f"{self.name}<<<{grid.blocks}, {grid.threads}, {grid.shared}, stream>>>"
        return [*lines, f"{launch}({', '.join(arguments)});"]


def cuda_kernel(kernel: Kernel, buffers: Buffers) -> KernelText:
    """The `__global__` function of a kernel.

    Raises IRError for what has no spelling, a tile that cannot be, or a grid that is too large.
    """
    kernel = with_short_functions(kernel)
    env = kernel_env(kernel, "cuda")
    body = Writer(depth=1)
    match kernel.anchor:
        case "elementwise":
            grid = elementwise(kernel, env, body)
        case "transpose":
            grid = transpose(kernel, env, body)
        case "row_reduce" | "row_scan":
            grid = row_reduce(kernel, env, body)
        case "column_reduce" | "column_scan":
            grid = column_reduce(kernel, env, body)
        case "row_cluster":
            grid = row_cluster(kernel, env, body)
        case "column_stream":
            grid = column_stream(kernel, env, body)
        case "window":
            grid = window(kernel, env, body)
        case "stencil":
            grid = stencil_kernel(kernel, env, body)
        case _:
            raise IRError(f"{kernel.name}: {kernel.anchor} is not printed here")
    if grid.blocks > MAX_GRID:
        raise IRError(f"{kernel.name}: {grid.blocks} blocks exceed the grid; enlarge the tile")
    out = Writer()
    out.extend(header(kernel, buffers))
    bounds = f"__launch_bounds__({grid.threads})"
    if grid.cluster > 1:
        bounds = f"__cluster_dims__({grid.cluster}) {bounds}"
    head = f"__global__ void {bounds} {function_name(kernel)}"
    out.extend(signature(head, parameters(kernel, buffers, env), " {"))
    out.lines.extend(body.lines)
    out.line("}")
    return KernelText(out.text, function_name(kernel), grid)
