"""Prints a kernel as a C++17 function with OpenMP: `cpu_kernel`.

This module puts together signature, header and anchor: loops live in
`loops`, `transpose`, `rows` and `columns`.
"""

from fusewright.emit.common import (
    Buffers,
    function_name,
    has_checks,
    header,
    kernel_env,
    parameters,
    signature,
)
from fusewright.emit.ctext import Writer
from fusewright.ir.body import loads
from fusewright.ir.index import coefficient, variables
from fusewright.ir.kernel import Kernel, transposition

from .columns import column_block, column_reduce
from .loops import elementwise
from .rows import row_reduce
from .transpose import pays, transposed
from .turned import TURNED_ROWS, turned_rows

# A row of at most so many columns, less than a whole vector, is a window; so many neighbouring rows
# are worth being lanes.
WINDOW = 15
WINDOW_ROWS = 16
# So is one of more columns where neighbouring rows read neighbouring elements (pooling).
SLIDING_WINDOW = 512
SLIDING_STEP = 8


def cpu_kernel(kernel: Kernel, buffers: Buffers) -> str:
    """The C++ function of a kernel; it returns non-zero when a bounds check failed (`has_checks`).

    Parameters are the buffers of `common.buffer_order`. Raises IRError for what has no spelling.
    """
    env = kernel_env(kernel, "cpu")
    checks = has_checks(kernel)
    out = Writer()
    out.extend(header(kernel, buffers))
    head = signature(
        f"static {'int' if checks else 'void'} {function_name(kernel)}",
        parameters(kernel, buffers, env),
    )
    out.extend(head[:-1])
    with out.block(head[-1]):
        if checks:
            out.line("int failed = 0;")
        across = transposition(kernel.rows, kernel.phases)
        if across and pays(across, kernel):
            transposed(kernel, across, env, out)
        elif kernel.anchor == "elementwise":
            elementwise(kernel, env, out)
        elif (turned := turned_rows(kernel)) is not None:
            column_reduce(turned, TURNED_ROWS, env, out)
        elif rows_are_lanes(kernel):
            column_reduce(kernel, column_block(kernel), env, out)
        else:
            row_reduce(kernel, env, out)
        if checks:
            out.line("return failed;")
    return out.text


def rows_are_lanes(kernel: Kernel) -> bool:
    """Whether neighbouring rows fill the vectors: asked for, or the columns are only a window."""
    if not kernel.rows:
        return False
    extent = max(p.extent for p in kernel.phases)
    window = extent <= WINDOW or (extent <= SLIDING_WINDOW and _slides(kernel))
    return kernel.anchor in ("column_reduce", "column_scan") or (
        window and kernel.rows[-1].extent >= WINDOW_ROWS
    )


def _slides(kernel: Kernel) -> bool:
    """Whether what the columns read moves by few elements from row to row."""
    found = [
        coefficient(e.offset, kernel.rows[-1]) or 0
        for p in kernel.phases
        for e in loads(*p.bodies)
        if not set(p.cols).isdisjoint(variables(e.offset))
    ]
    return bool(found) and all(0 < step <= SLIDING_STEP for step in found)
