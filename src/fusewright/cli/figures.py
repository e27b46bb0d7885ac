"""Numbers for people, and the least time a step of a program can take. No layout, no printing."""

from fusewright.ir.kernel import Kernel, LibraryCall, Program, Step
from fusewright.target.arch import Arch

_SCALES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def quantity(value: float, unit: str) -> str:
    """Three significant digits with a decimal prefix: `137 GFLOP`, `302 MB`, `16 B`."""
    for scale, prefix in _SCALES:
        if abs(value) >= 0.9995 * scale:
            return f"{_digits(value / scale)} {prefix}{unit}"
    return f"{_digits(value)} {unit}"


def delta(value: float, unit: str) -> str:
    """A signed quantity with a real minus sign."""
    return f"{'−' if value < 0 else '+'}{quantity(abs(value), unit)}"


def duration(seconds: float) -> str:
    """Three significant digits in s, ms, µs or ns."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= 0.9995 * scale:
            return f"{_digits(seconds / scale)} {unit}"
    return f"{_digits(seconds * 1e9)} ns"


def _digits(value: float) -> str:
    text = f"{value:.3g}"
    return f"{float(text):.0f}" if "e" in text else text


def floor_seconds(step: Step, flops: float, moved: float, arch: Arch, program: Program) -> float:
    """The least time of one step: the roofline of its arithmetic and its compulsory bytes.

    After Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009, at the target's rates. A
    product that the library may run on tensor cores is bounded by its bytes alone.
    """
    traffic = moved / max(arch.copy_rate, arch.read_rate)
    if isinstance(step, LibraryCall) and _may_use_tensor_cores(step, arch, program):
        return traffic
    scheme = step.scheme if isinstance(step, Kernel) else ""
    return max(traffic, flops / (product_rate(scheme, arch) if scheme else arch.float_rate))


def product_rate(scheme: str, arch: Arch) -> float:
    """FLOP/s of a contraction kernel's products."""
    if scheme == "fma" or arch.tiles is None:
        return arch.float_rate
    if arch.native is None:
        return arch.tiles.library_half_flops / {"six": 6, "tf32": 2}.get(scheme, 1)
    if scheme == "split":
        return arch.product_rate
    return arch.native.tf32_flops if scheme == "tf32" else arch.native.library_flops


def _may_use_tensor_cores(call: LibraryCall, arch: Arch, program: Program) -> bool:
    """16-bit products, and float32 convolutions, which cuDNN runs in TF32 by default."""
    if arch.kind != "cuda":
        return False
    narrow = any(program.buffer(name).dtype.bits <= 16 for name in call.outs if name)
    return narrow or call.is_convolution
