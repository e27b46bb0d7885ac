"""Whether a product in the tensor core's own types pays, from shapes alone.

The rates are data of the target (`target.arch.NativeProducts`), fitted to measurements; nothing is
timed here.
"""

from fusewright.ir.dtypes import BFLOAT16, FLOAT16, FLOAT32, DType
from fusewright.ir.kernel import Scheme
from fusewright.ir.native import CLUSTER_ROWS, WIDE, tile_columns
from fusewright.options import Options
from fusewright.target.arch import NativeProducts

from .gate import Size


def rounded_scheme(dtype: DType, options: Options) -> Scheme:
    """The native scheme that a product of `dtype` operands may use; "" if none."""
    if dtype in (BFLOAT16, FLOAT16):
        return "native"
    allowed: dict[str, Scheme] = {"tf32": "tf32", "bf16": "bf16"}
    return allowed.get(options.precision, "") if dtype == FLOAT32 else ""


def native_seconds(
    p: Size, scheme: Scheme, folds: bool, packed: int, rates: NativeProducts
) -> float:
    """Waves of tiles, each as long as its products or its epilogue, behind the conversion of
    operands of `packed` rows in all."""
    columns = tile_columns(p.batch, p.m, p.n)
    share = 1.0 if columns == WIDE else 0.6
    tiles = p.batch * -(-p.m // CLUSTER_ROWS) * -(-p.n // columns)
    chunks = -(-p.k // (32 if scheme == "tf32" else 64))
    wave = share * max(chunks * rates.chunk, rates.epilogue)
    seconds = rates.launches + -(-tiles // rates.clusters) * wave + folds * rates.fold
    moved = {"native": 4, "bf16": 6, "tf32": 8}[scheme] * p.batch * p.k * packed
    return seconds + moved / rates.pack_rate


def library_seconds(p: Size, readers: int, stores: int, rates: NativeProducts) -> float:
    """The library's 16-bit product, and `readers` kernels behind it that store `stores` results."""
    flops, out = 2.0 * p.batch * p.m * p.n * p.k, 2.0 * p.batch * p.m * p.n
    moved = 2.0 * p.batch * p.k * (p.m + p.n) + out
    product = max(flops / rates.library_flops, moved / rates.library_bytes) + rates.library_launch
    return product + readers * rates.pass_launch + (readers + stores) * out / rates.memory_rate
