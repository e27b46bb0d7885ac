"""Prints a kernel as a C++17 function with OpenMP: `cpu_kernel`.

This module puts together signature, header and anchor; loops live in `cpu_loops` and `cpu_reduce`.
"""

from fusewright.ir.kernel import Kernel

from .common import Buffers, function_name, has_checks, header, kernel_env, parameters, signature
from .cpu_loops import elementwise
from .cpu_reduce import column_reduce, row_reduce
from .ctext import Writer


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
        match kernel.anchor:
            case "elementwise":
                elementwise(kernel, env, out)
            case "row_reduce":
                row_reduce(kernel, env, out)
            case "column_reduce":
                column_reduce(kernel, env, out)
        if checks:
            out.line("return failed;")
    return out.text
