"""Measured facts of matrix products per device, by our kernels and by the library: data alone.

The model that is made of them is `schedule.gate`.
"""

from dataclasses import dataclass

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
class EpilogueRates:
    """Seconds per element of a tile: of any, more for a `run` shared by its elements, and per float
    `operation` behind the product."""

    element: float
    run: float
    operation: float


@dataclass(frozen=True, slots=True)
class ConvProducts:
    """Measured facts of convolutions on tensor cores and of the library's, for the gate.

    Seconds: of the `launches` around one; in a tile, of a `step` of 64 along the sum of 128 rows
    and 256 columns, of a `row` that is asked for, of what else a `tile` takes; of its epilogue,
    handed to warps of its own beside products (`handed`) and by the warps that multiply (`own`). A
    multiprocessor receives `copied` bytes per second, `strided` times the stride as many for places
    apart. With two copies in flight products take `shallow` times as long; `beside` is the share of
    what runs beside a tile's longest part that still shows.

    The library's convolution runs at `library_flops` from `library_rows` channels of results on,
    with `library_few_flops` of few channels from `library_few_rows`, in three dimensions at the
    share `library_solid`, at `library_slow_flops` where it has no kernel of tensor cores. Beside
    the copy of the operand it moves operand and result `library_result` times, along one axis the
    result `library_line` times.
    """

    launches: float
    step: float
    row: float
    copied: float
    strided: float
    tile: float
    handed: EpilogueRates
    own: EpilogueRates
    shallow: float
    beside: float
    library_flops: float
    library_rows: int
    library_few_flops: float
    library_few_rows: int
    library_solid: float
    library_slow_flops: float
    library_result: float
    library_line: float
    library_launch: float


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
# Fitted on an H100 to benchmarks/results/conv_tiles_h100.json and convolutions_h100.json.
H100_CONVS = ConvProducts(
    launches=25e-6,
    step=0.59e-6,
    row=1.6e-9,
    copied=54e9,
    strided=0.46,
    tile=1.2e-6,
    handed=EpilogueRates(0.04e-9, 0.52e-9, 0.021e-9),
    own=EpilogueRates(0.087e-9, 0.21e-9, 0.007e-9),
    shallow=1.6,
    beside=0.044,
    library_flops=350e12,
    library_rows=96,
    library_few_flops=50e12,
    library_few_rows=48,
    library_solid=0.45,
    library_slow_flops=25e12,
    library_result=0.4,
    library_line=3.0,
    library_launch=15e-6,
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
