"""What each target can do, as frozen tables. No queries of the running machine, no torch."""

from dataclasses import dataclass
from typing import Literal

from fusewright.errors import UsageError
from fusewright.ir.kernel import Scheme


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
class TileRates:
    """One tile of a product by multiply-adds (a thread has `items` rows and `lanes` columns) or by
    mma.sync.

    Seconds: of a slice along k (8 elements; mma.sync: 64 bytes) of a tile on a `busy`
    multiprocessor and on one that has it `alone`, of its `epilogue`.
    """

    scheme: Scheme
    items: int
    lanes: int
    busy: float
    alone: float
    epilogue: float


@dataclass(frozen=True, slots=True)
class TileProducts:
    """Facts of the products that run on any GPU, and of the library's, for the gate.

    Seconds of a `launch` of the product, of the library's (`library_launch`), of a kernel behind it
    (`pass_launch`). The library's takes its arithmetic at `library_flops` (`library_half_flops` in
    16-bit types) and its bytes at `memory_rate`.
    """

    units: int
    tiles: tuple[TileRates, ...]
    library_flops: float
    library_half_flops: float
    memory_rate: float
    launch: float = 6e-6
    library_launch: float = 6e-6
    pass_launch: float = 3e-6


# Fitted on an H100 to benchmarks/results/gemm_portable_h100.json.
H100_TILES = TileProducts(
    units=132,
    tiles=(
        TileRates("fma", 16, 8, 0.85e-6, 1.0e-6, 2.0e-6),
        TileRates("fma", 8, 4, 0.26e-6, 0.36e-6, 0.5e-6),
    ),
    library_flops=50e12,
    library_half_flops=780e12,
    memory_rate=3e12,
)
# Not measured: multiply-adds from the H100's, tensor cores at 0.7 of the datasheet's rate.
A100_TILES = TileProducts(
    units=108,
    tiles=(
        TileRates("fma", 16, 8, 1.65e-6, 1.8e-6, 3.0e-6),
        TileRates("fma", 8, 4, 0.45e-6, 0.6e-6, 0.8e-6),
        TileRates("native", 1, 1, 0.52e-6, 0.8e-6, 2.0e-6),
        TileRates("bf16", 1, 1, 0.52e-6, 0.8e-6, 3.0e-6),
        TileRates("tf32", 1, 1, 0.52e-6, 0.8e-6, 3.0e-6),
        TileRates("six", 1, 1, 3.1e-6, 3.1e-6, 3.0e-6),
    ),
    library_flops=17.5e12,
    library_half_flops=250e12,
    memory_rate=1.8e12,
)
# A tile that 64 KB of shared memory per multiprocessor hold.
ANY_TILES = TileProducts(
    units=80,
    tiles=(TileRates("fma", 8, 4, 0.62e-6, 0.8e-6, 1.0e-6),),
    library_flops=10e12,
    library_half_flops=40e12,
    memory_rate=0.5e12,
    pass_launch=4e-6,
)
# Fitted on an H100 to benchmarks/results/gemm_half_h100.json.
H100_NATIVE = NativeProducts(
    clusters=66,
    launches=13e-6,
    chunk=0.72e-6,
    epilogue=15e-6,
    fold=10e-6,
    pack_rate=2.5e12,
    library_flops=780e12,
    library_bytes=2.5e12,
    library_launch=6e-6,
    memory_rate=3e12,
    pass_launch=3e-6,
    tf32_flops=350e12,
)
# Fitted on an H100 to benchmarks/results/gemm_h100_time.json and gemm_shapes_h100.json; an
# operation is 64 cycles of issue.
H100_PRODUCTS = Products(
    clusters=66,
    launches=14e-6,
    chunk=1.14e-6,
    short=1.2,
    operation=0.037e-6,
    epilogue=3.5e-6,
    small=2.8e-6,
    finish=10e-6,
    stream_rate=2.95e12,
    split_rate=2.5e12,
    library_flops=48e12,
    library_bytes=2.9e12,
    library_columns=64,
    margin=0.9,
)


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
    pay, `tiles` when those of other kinds do. Rates for sm_90a are measured (benchmarks/results);
    those of the generic entries are the datasheet's, times 0.9.
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
    tiles: TileProducts | None = None


ARCHS = (
    Arch(
        name="cpu",
        kind="cpu",
        units=64,
        threads=1,
        vector_bytes=64,
        registers=0,
        copy_rate=20e9,
        read_rate=20e9,
        float_rate=100e9,
        launch=5e-6,
        in_flight=4096,
    ),
    Arch(
        name="cuda:sm_90a",
        kind="cuda",
        units=132,
        threads=2048,
        vector_bytes=16,
        registers=64,
        copy_rate=3.03e12,
        read_rate=3.09e12,
        float_rate=51e12,
        launch=3e-6,
        in_flight=32768,
        gencode="arch=compute_90a,code=sm_90a",
        cluster=16,
        shared=227 << 10,
        product_rate=262e12,
        products=H100_PRODUCTS,
        native=H100_NATIVE,
        tiles=H100_TILES,
    ),
    Arch(
        name="cuda:sm_80",
        kind="cuda",
        units=108,
        threads=2048,
        vector_bytes=16,
        registers=64,
        copy_rate=1.8e12,
        read_rate=1.8e12,
        float_rate=17.5e12,
        launch=3e-6,
        in_flight=16384,
        gencode="arch=compute_80,code=sm_80",
        tiles=A100_TILES,
    ),
    # Any CUDA device: PTX of the oldest architecture that CUDA 12 and 13 both accept.
    Arch(
        name="cuda",
        kind="cuda",
        units=80,
        threads=1024,
        vector_bytes=16,
        registers=64,
        copy_rate=0.5e12,
        read_rate=0.5e12,
        float_rate=10e12,
        launch=4e-6,
        in_flight=16384,
        gencode="arch=compute_75,code=compute_75",
        tiles=ANY_TILES,
    ),
)


def arch(name: str) -> Arch:
    """The entry of target `name`. Raises UsageError for an unknown one."""
    for entry in ARCHS:
        if entry.name == name:
            return entry
    known = ", ".join(a.name for a in ARCHS)
    raise UsageError(f"unknown target {name!r}; choose one of: auto, {known}")
