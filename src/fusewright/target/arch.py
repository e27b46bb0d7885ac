"""What each target can do, as frozen tables. No queries of the running machine, no torch."""

from dataclasses import dataclass
from typing import Literal

from fusewright.errors import UsageError

from .products import (
    A100_TILES,
    ANY_TILES,
    H100_CONVS,
    H100_NATIVE,
    H100_PRODUCTS,
    H100_TILES,
    ConvProducts,
    NativeProducts,
    Products,
    TileProducts,
)


@dataclass(frozen=True, slots=True)
class Arch:
    """One target's facts, for choosing tiles and for floors.

    `units` multiprocessors (CUDA) or the parallel width a CPU schedule prepares for; `threads`
    resident threads per unit; `vector_bytes` of the widest useful memory access; `registers` 32-bit
    values a thread may keep between phases; `copy_rate` (read + write) and `read_rate` in bytes/s;
    `float_rate` of float32 multiply-adds outside tensor cores in FLOP/s; `launch` seconds per
    kernel; `in_flight` bytes per unit that hide memory latency; `gencode` nvcc's; `capability` in
    words what it runs on, from `lowest` on to just `below` (None: all later); `hopper`: has that
    generation's bulk copies and warpgroup products; `cluster` blocks that can share a row in
    `shared` bytes of memory per unit (1: not done); `product_rate` FLOP/s of float32 products on
    tensor cores, three 16-bit products each (0: none is emitted), `products` when they pay, `tiles`
    when those of other kinds do, `convs` when convolutions do. Rates for sm_90a are measured
    (benchmarks/results); those of the generic entries are the datasheet's, times 0.9.
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
    capability: str = ""
    lowest: tuple[int, int] = (0, 0)
    below: tuple[int, int] | None = None
    hopper: bool = False
    cluster: int = 1
    shared: int = 0
    product_rate: float = 0.0
    products: Products | None = None
    native: NativeProducts | None = None
    tiles: TileProducts | None = None
    convs: ConvProducts | None = None

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether a GPU of this compute capability runs the code."""
        older = self.below is None or capability < self.below
        return self.kind == "cuda" and self.lowest <= capability and older


# Of two that run on a device, the better one comes first.
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
        capability="9.0",
        lowest=(9, 0),
        below=(9, 1),
        hopper=True,
        cluster=16,
        shared=227 << 10,
        product_rate=262e12,
        products=H100_PRODUCTS,
        native=H100_NATIVE,
        tiles=H100_TILES,
        convs=H100_CONVS,
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
        capability="8.x",
        lowest=(8, 0),
        below=(9, 0),
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
        capability="7.5 or later",
        lowest=(7, 5),
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
