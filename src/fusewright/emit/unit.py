"""Puts kernels together to one translation unit: helpers, kernels, and a C entry point per segment.

What a segment is, is said in `segment`. Nothing about Python, torch or loading lives here.
"""

from collections.abc import Mapping

from fusewright.emit.cpu import cpu_kernel
from fusewright.emit.cuda import KernelText, cuda_kernel
from fusewright.emit.cuda.contract import ContractionText, contraction, skeleton_text
from fusewright.emit.cuda.convolution import conv_contraction
from fusewright.emit.cuda.native import fma_contraction, mma_contraction, native_contraction
from fusewright.ir.kernel import Buffer, Kernel, Program
from fusewright.target.arch import Arch

from .common import Buffers, buffer_order, function_name, has_checks, signature
from .ctext import Names, Writer, memory_type
from .helpers import cpu_helpers, cuda_helpers
from .rounded import with_short_functions
from .segment import FRESH_BYTES, Segment, segments
from .spell import DialectName

# Asks for huge pages for a tensor that a library is about to write.
LARGE_RESULT = """
extern "C" void huge_pages(void* memory, int64_t bytes) { fw_huge_pages(memory, bytes); }
"""


def translation_unit(program: Program, arch: Arch, large_results: bool = False) -> str:
    """The whole C++ or CUDA C++ text: helpers, one function per kernel, one entry per segment.

    Entry point k is `int forward_k(buffers of segment k...)`; on CUDA a stream is the last
    parameter. It returns 0, on the CPU 1 after a failed bounds check, on CUDA the first launch
    error. With `large_results`, which forward allocates for products, there is `huge_pages` on the
    CPU. Raises IRError for what has no spelling.
    """
    if arch.kind == "cuda":
        return _cuda_unit(program, arch)
    return _cpu_unit(program, LARGE_RESULT if large_results else "")


def _cpu_unit(program: Program, more: str) -> str:
    buffers = {b.name: b for b in program.buffers}
    parts = segments(program)
    kernels = "\n".join(cpu_kernel(k, buffers) for s in parts for k in s.kernels)
    entries = "\n".join(map(_cpu_entry, parts))
    text = f"{kernels}\n{entries}{more}"
    memory = "#include <memory>\n" if "std::unique_ptr" in kernels else ""
    return f"{memory}{cpu_helpers(text)}{text}"


def _cpu_entry(segment: Segment) -> str:
    params, names = _entry_parameters(segment, "cpu")
    out = Writer()
    head = signature(f'extern "C" int {segment.entry}', params)
    out.extend(head[:-1])
    with out.block(head[-1]):
        for buffer in segment.buffers:
            if _is_fresh_and_large(buffer, segment):
                out.line(f"fw_huge_pages({names[buffer.name]}, {buffer.nbytes});")
        for kernel in segment.kernels:
            call = f"{function_name(kernel)}({', '.join(names[b] for b in buffer_order(kernel))})"
            out.line(f"if ({call}) return 1;" if has_checks(kernel) else f"{call};")
        out.line("return 0;")
    return out.text


def _is_fresh_and_large(buffer: Buffer, segment: Segment) -> bool:
    """Whether the segment writes memory that was allocated for this call and is mapped by use."""
    written = any(buffer.name in (*k.writes, k.workspace) for k in segment.kernels)
    return written and buffer.role in ("temp", "output") and buffer.nbytes >= FRESH_BYTES


def _entry_parameters(
    segment: Segment, dialect: DialectName
) -> tuple[list[str], dict[str, str]]:
    """Typed pointers of an entry point, and the name of each buffer in it."""
    fresh = Names(function_name(k) for k in segment.kernels)
    names = {b.name: fresh.fresh(b.name) for b in segment.buffers}
    written = {b for k in segment.kernels for b in (*k.writes, k.workspace)}
    params = [
        f"{'' if b.name in written else 'const '}{memory_type(b.dtype, dialect)}* {names[b.name]}"
        for b in segment.buffers
    ]
    return params, names


def _cuda_unit(program: Program, arch: Arch) -> str:
    buffers = {b.name: b for b in program.buffers}
    parts = segments(program)
    kernels = [k for s in parts for k in s.kernels]
    texts = {k.name: _cuda_text(k, buffers, arch) for k in kernels}
    device = "\n".join(texts[k.name].device for k in kernels)
    products = [t for t in texts.values() if isinstance(t, ContractionText)]
    entries = "\n".join(
        (
            *(t.host for t in products),
            *(_cuda_entry(s, texts) for s in parts),
        )
    )
    skeleton = f"{skeleton_text([t.skeleton for t in products])}\n" if products else ""
    return (
        f"{skeleton}// ---- device code\n\n{cuda_helpers(device)}{device}\n"
        f"// ---- host code: launches on the caller's stream\n\n"
        f"#ifndef __CUDACC_RTC__\n{entries}#endif\n"
    )


def _cuda_text(
    kernel: Kernel, buffers: Buffers, arch: Arch
) -> KernelText | ContractionText:
    if kernel.anchor != "contraction":
        return cuda_kernel(kernel, buffers)
    on_tensor_cores = native_contraction if arch.hopper else mma_contraction
    printers = {"split": contraction, "fma": fma_contraction}
    own = conv_contraction if kernel.conv is not None else on_tensor_cores
    printer = printers.get(kernel.scheme, own)
    return printer(with_short_functions(kernel), buffers)


def _cuda_entry(segment: Segment, texts: Mapping[str, KernelText | ContractionText]) -> str:
    params, names = _entry_parameters(segment, "cuda")
    out = Writer()
    head = signature(f'extern "C" int {segment.entry}', [*params, "cudaStream_t stream"], " {")
    out.extend(head)
    out.depth = 1
    out.line("cudaError_t error = cudaSuccess;")
    for kernel in segment.kernels:
        text, arguments = texts[kernel.name], [names[b] for b in buffer_order(kernel)]
        if isinstance(text, ContractionText):
            out.extend(text.launch(arguments))
        elif text.grid.blocks:
            out.extend(text.launch(arguments))
            out.line("if ((error = cudaGetLastError()) != cudaSuccess) return (int)error;")
    out.line("return (int)error;")
    out.depth = 0
    out.line("}")
    return out.text
