"""The classical binding: C++ functions of torch::Tensor around the entries (`--binding torch`).

A wrapper allocates the buffers that its segment is the first to write, and returns them. The entry
points themselves are printed by `unit`.
"""

from collections.abc import Sequence

from fusewright.ir.dtypes import DType
from fusewright.ir.kernel import Buffer, Program

from .ctext import Names, memory_type
from .pytext import bracketed
from .segment import Segment, segments

SCALAR_TYPES = {
    "bool": "Bool",
    "uint8": "Byte",
    "int8": "Char",
    "int16": "Short",
    "int32": "Int",
    "int64": "Long",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "float32": "Float",
    "float64": "Double",
}


def torch_wrappers(program: Program, *, cuda: bool) -> str:
    """C++ text of one function per segment, with the headers it needs."""
    headers = ["#include <torch/types.h>"]
    if cuda:
        headers.append("#include <ATen/cuda/CUDAContext.h>")
    parts = ["\n".join(headers)]
    parts += ["\n".join(_wrapper(s, cuda)) for s in segments(program)]
    return "\n\n".join(parts) + "\n"


def torch_declarations(program: Program) -> list[str]:
    """The wrappers' declarations, one line each: the bindings are generated from them."""
    out = []
    for s in segments(program):
        arguments = ", ".join(["torch::Tensor"] * (len(s.buffers) - len(s.fresh)))
        out.append(f"{_result_type(s.fresh)} {s.wrapper}({arguments});")
    return out


def _result_type(fresh: Sequence[Buffer]) -> str:
    if not fresh:
        return "void"
    return "torch::Tensor" if len(fresh) == 1 else "std::vector<torch::Tensor>"


def _wrapper(segment: Segment, cuda: bool) -> list[str]:
    buffers, fresh = segment.buffers, segment.fresh
    given = [b for b in buffers if b not in fresh]
    handed_out = Names(["options", "status"])
    names = {b.name: handed_out.fresh(b.name) for b in buffers}
    head = f"{_result_type(fresh)} {segment.wrapper}("
    lines = bracketed(head, [f"torch::Tensor {names[b.name]}" for b in given], ") {")
    device = "kCUDA" if cuda else "kCPU"
    options = f"{names[given[0].name]}.options()" if given else f"torch::device(torch::{device})"
    for b in fresh:
        lines.append(f"  auto {names[b.name]} = torch::empty_strided(")
        lines.append(f"      {_sizes(b.shape)}, {_sizes(b.strides)},")
        lines.append(f"      {options}.dtype(torch::k{SCALAR_TYPES[b.dtype.name]}));")
    dialect = "cuda" if cuda else "cpu"
    pointers = [f"({_type(b.dtype, dialect)}*){names[b.name]}.data_ptr()" for b in buffers]
    if cuda:
        pointers.append("at::cuda::getCurrentCUDAStream().stream()")
    lines += bracketed(f"  int status = {segment.entry}(", pointers, ");")
    lines.append(f"  {_status_check(cuda)}")
    if fresh:
        returned = ", ".join(names[b.name] for b in fresh)
        lines.append(f"  return {returned if len(fresh) == 1 else f'{{{returned}}}'};")
    return [*(_without_last_comma(lines)), "}"]


def _without_last_comma(lines: Sequence[str]) -> list[str]:
    """C++ has no trailing commas in lists of arguments."""
    out = list(lines)
    for k in range(1, len(out)):
        if out[k].lstrip().startswith(")") and out[k - 1].endswith(","):
            out[k - 1] = out[k - 1][:-1]
    return out


def _sizes(values: Sequence[int]) -> str:
    return f"{{{', '.join(map(str, values))}}}"


def _type(dtype: DType, dialect: str) -> str:
    return memory_type(dtype, dialect)


def _status_check(cuda: bool) -> str:
    if cuda:
        return "TORCH_CHECK(status == 0, cudaGetErrorName((cudaError_t)status));"
    return 'TORCH_CHECK_INDEX(status == 0, "an index tensor holds a value that is out of range");'
