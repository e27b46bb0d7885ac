"""What each target can do, as frozen tables. No queries of the running machine, no torch."""

from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError


@dataclass(frozen=True, slots=True)
class Products:
    """Measured facts of float32 products on tensor cores and of the library's, for the gate.

    Seconds: of the `launches` around a product, of a `chunk` of 64 along k in one tile (`short`
    times that where sums are promoted twice), of an `operation` per element of it, of a tile's
    `epilogue`, of a tile of small depth (`small`), of a kernel that finishes (`finish`). Bytes per
    second: `stream_rate` of what is read once, `split_rate` of the split of the other. The
    library's product is a roofline of `library_flops`, behind which results are stored, and
    `library_bytes`, with at least `library_columns`; the skeleton is taken below `margin` of it.
    `clusters` of two multiprocessors run at a time.
    """

    clusters: int
    launches: float
    chunk: float
    short: float
    operation: float
    epilogue: float
    small: float
    finish: float
    stream_rate: float
    split_rate: float
    library_flops: float
    library_bytes: float
    library_columns: int
    margin: float


@dataclass(frozen=True, slots=True)
class NativeProducts:
    """Measured facts of products in the tensor core's own types, for the gate.

    Seconds: of the `launches` around a product, of a `chunk` of 128 bytes along k in one wave of
    wide tiles (a narrow one takes 0.6 of it), of a wave's `epilogue` where that takes longer, of
    what a `fold` adds, of a kernel behind the library's product (`pass_launch`). Bytes per second:
    `pack_rate` of a conversion, `memory_rate` of such a kernel. The library's 16-bit product is a
    roofline of `library_flops` and `library_bytes`, and `library_launch`; `tf32_flops` is the rate
    of TF32 products. `clusters` of two multiprocessors run at a time.
    """

    clusters: int
    launches: float
    chunk: float
    epilogue: float
    fold: float
    pack_rate: float
    library_flops: float
    library_bytes: float
    library_launch: float
    memory_rate: float
    pass_launch: float
    tf32_flops: float


@dataclass(frozen=True, slots=True)
class FmaRates:
    """One tile of a product by multiply-adds: a thread has `items` rows and `lanes` columns.

    Seconds: of 8 along k of a tile on a `busy` multiprocessor and on one that has it `alone`, of
    its `epilogue`.
    """

    items: int
    lanes: int
    busy: float
    alone: float
    epilogue: float


@dataclass(frozen=True, slots=True)
class FmaProducts:
    """Measured facts of float32 products by multiply-adds and of the library's, for the gate.

    Seconds of a `launch` of the product, of the library's (`library_launch`), of a kernel behind it
    (`pass_launch`). The library's takes its arithmetic at `library_flops` and its bytes at
    `memory_rate`.
    """

    units: int
    tiles: tuple[FmaRates, ...]
    launch: float
    library_flops: float
    library_launch: float
    memory_rate: float
    pass_launch: float


# Fitted on an H100 to benchmarks/results/gemm_portable_h100.json.
H100_FMA = FmaProducts(
    132,
    (FmaRates(16, 8, 0.85e-6, 1.0e-6, 2.0e-6), FmaRates(8, 4, 0.26e-6, 0.47e-6, 0.5e-6)),
    6e-6,
    50e12,
    6e-6,
    3e12,
    3e-6,
)
# From the H100's by the ratios of the datasheets: multiply-adds per multiprocessor, memory.
A100_FMA = FmaProducts(
    108,
    (FmaRates(16, 8, 1.65e-6, 1.8e-6, 3.0e-6), FmaRates(8, 4, 0.45e-6, 0.6e-6, 0.8e-6)),
    6e-6,
    17.5e12,
    6e-6,
    1.8e12,
    3e-6,
)
# A tile that 64 KB of shared memory per multiprocessor hold.
ANY_FMA = FmaProducts(
    80, (FmaRates(8, 4, 0.62e-6, 0.8e-6, 1.0e-6),), 6e-6, 10e12, 6e-6, 0.5e12, 4e-6
)
# Fitted on an H100 to benchmarks/results/gemm_half_h100.json.
H100_NATIVE = NativeProducts(
    66, 13e-6, 0.72e-6, 15e-6, 10e-6, 2.5e12, 780e12, 2.5e12, 6e-6, 3e12, 3e-6, 350e12
)
# Fitted on an H100 to benchmarks/results/gemm_h100_time.json and gemm_shapes_h100.json; an
# operation is 64 cycles of issue.
H100_PRODUCTS = Products(
    66, 14e-6, 1.14e-6, 1.2, 0.037e-6, 3.5e-6, 2.8e-6, 10e-6,
    2.95e12, 2.5e12, 48e12, 2.9e12, 64, 0.9,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arch:
    """One target's facts, for choosing tiles and for floors.

    `units` multiprocessors (CUDA) or the parallel width a CPU schedule prepares for; `threads`
    resident threads per unit; `vector_bytes` of the widest useful memory access; `registers` 32-bit
    values a thread may keep between phases; `copy_rate` (read + write) and `read_rate` in bytes/s;
    `float_rate` of float32 multiply-adds outside tensor cores in FLOP/s; `launch` seconds per
    kernel; `in_flight` bytes per unit that hide memory latency; `cluster` blocks that can share
    a row in `shared` bytes of memory per unit (1: not done); `product_rate` FLOP/s of float32
    products on tensor cores, three 16-bit products each (0: none is emitted), `products` when they
    pay, `fma` when those by multiply-adds do. Rates for sm_90a are
    measured (benchmarks/results); those of the generic entries are the datasheet's, times 0.9.
    """

    name: str
    kind: Literal["cpu", "cuda"]
    units: int
    threads: int
    vector_bytes: int
    registers: int
    copy_rate: float
    read_rate: float
    float_rate: float
    launch: float
    in_flight: int
    gencode: str = ""
    cluster: int = 1
    shared: int = 0
    product_rate: float = 0.0
    products: Products | None = None
    native: NativeProducts | None = None
    fma: FmaProducts | None = None


ARCHS = (
    Arch("cpu", "cpu", 64, 1, 64, 0, 20e9, 20e9, 100e9, 5e-6, 4096),
    Arch(
        "cuda:sm_90a",
        "cuda",
        132,
        2048,
        16,
        64,
        3.03e12,
        3.09e12,
        51e12,
        3e-6,
        32768,
        gencode="arch=compute_90a,code=sm_90a",
        cluster=16,
        shared=227 << 10,
        product_rate=262e12,
        products=H100_PRODUCTS,
        native=H100_NATIVE,
        fma=H100_FMA,
    ),
    Arch(
        "cuda:sm_80",
        "cuda",
        108,
        2048,
        16,
        64,
        1.8e12,
        1.8e12,
        17.5e12,
        3e-6,
        16384,
        gencode="arch=compute_80,code=sm_80",
        fma=A100_FMA,
    ),
    # Any CUDA device: PTX of the oldest architecture that CUDA 12 and 13 both accept.
    Arch(
        "cuda",
        "cuda",
        80,
        1024,
        16,
        64,
        0.5e12,
        0.5e12,
        10e12,
        4e-6,
        16384,
        gencode="arch=compute_75,code=compute_75",
        fma=ANY_FMA,
    ),
)


def arch(name: str) -> Arch:
    """The entry of target `name`. Raises UsageError for an unknown one."""
    for entry in ARCHS:
        if entry.name == name:
            return entry
    known = ", ".join(a.name for a in ARCHS)
    raise UsageError(f"unknown target {name!r}; choose one of: auto, {known}")
