"""What the C++ and the CUDA kernels share: parameters, header comments, work estimates.

No statement of a kernel's body is printed here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from fusewright.ir.body import Apply, Checked, Expr, walk
from fusewright.ir.index import Var
from fusewright.ir.kernel import Buffer, Fold, Kernel, Phase, Prefix, Tile
from fusewright.ir.scalar import OPS, identity

from .cstyle import Env
from .ctext import WIDTH, Names, identifier, literal, memory_type, shortened, wrap
from .spell import DialectName, compute_c_type

Buffers = Mapping[str, Buffer]


def buffer_order(kernel: Kernel) -> tuple[str, ...]:
    """The kernel's buffers in parameter order: reads, what it only writes, its workspace."""
    workspace = (kernel.workspace,) if kernel.workspace else ()
    return tuple(dict.fromkeys((*kernel.reads, *kernel.writes, *workspace)))


def kernel_env(kernel: Kernel, dialect: DialectName, taken: Iterable[str] = ()) -> Env:
    """The names of the kernel's parameters and loop variables, none of which is in `taken`."""
    names = Names(taken)
    pointers = {b: names.fresh(b) for b in buffer_order(kernel)}
    columns = [v for p in kernel.phases for v in p.cols]
    variables = {v: names.fresh(v.name) for v in dict.fromkeys((*kernel.rows, *columns))}
    return Env(dialect, names, pointers, variables)  # type: ignore[arg-type]


def parameters(kernel: Kernel, buffers: Buffers, env: Env) -> list[str]:
    """Typed restrict pointers, const for what is only read."""
    out = []
    for name in buffer_order(kernel):
        const = "" if name in kernel.writes or name == kernel.workspace else "const "
        kind = memory_type(buffers[name].dtype, env.dialect)
        out.append(f"{const}{kind}* __restrict__ {env.pointers[name]}")
    return out


def signature(head: str, params: list[str], tail: str = "") -> list[str]:
    """`head(params)tail` on one line, or one parameter per line when it is too long."""
    line = f"{head}({', '.join(params)}){tail}"
    if len(line) <= WIDTH:
        return [line]
    return [f"{head}(", *(f"    {p}," for p in params[:-1]), f"    {params[-1]}){tail}"]


def function_name(kernel: Kernel) -> str:
    """The kernel's name in C."""
    return identifier(kernel.name)


def has_checks(kernel: Kernel) -> bool:
    """Whether the kernel can report a failed bounds check."""
    return any(isinstance(e, Checked) for e in walk(*kernel.bodies))


def point_cost(bodies: tuple[Expr, ...]) -> int:
    """Operations per point, loads and stores counted as one: the scale of `ir.scalar`'s costs."""
    ops = sum(OPS[e.op].cost for e in walk(*bodies) if isinstance(e, Apply))
    return ops + 2 * len(bodies)


def kernel_cost(kernel: Kernel) -> int:
    """Operations of the whole kernel, about."""
    return kernel.row_count * sum(p.extent * point_cost(p.bodies) for p in kernel.phases)


def fold_identity(fold: Fold | Prefix) -> str:
    """The start value of a fold as C."""
    dtype = compute_c_type(fold.dtype)
    return literal(identity(fold.kind, dtype), dtype).code


# ---------------------------------------------------------------------------------------- comments


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of the buffers a kernel reads and writes, each counted once."""

    read: int
    written: int


def traffic(kernel: Kernel, buffers: Buffers) -> Traffic:
    """Compulsory bytes: every buffer once."""
    return Traffic(
        sum(buffers[b].nbytes for b in dict.fromkeys(kernel.reads)),
        sum(buffers[b].nbytes for b in dict.fromkeys(kernel.writes)),
    )


_SCHEMES = {
    "split": "as accurate as float32: three of float16 terms, six of bfloat16 where that fails",
    "six": "as accurate as float32: six of bfloat16 terms",
    "native": "in the operands' type, accumulated in float32",
    "bf16": "of operands rounded to bfloat16, accumulated in float32",
    "tf32": "of operands rounded to TF32, accumulated in float32",
    "fma": "by float32 multiply-adds",
    "conv_split": "as accurate as float32: three of float16 terms, which are channels",
    "conv": "of operands rounded as to TF32: scaled, in float16; accumulated in float32",
}


def header(kernel: Kernel, buffers: Buffers) -> list[str]:
    """The comment above a kernel: what it computes, from where, its tile, what it moves."""
    moved = traffic(kernel, buffers)
    tile = tile_text(kernel.tile)
    lines = [
        f"{function_name(kernel)}: {_shape_text(kernel)}.",
        *([f"Products {_SCHEMES[kernel.scheme]}."] if kernel.scheme else []),
        *([f"Computes {', '.join(kernel.covers)}."] if kernel.covers else []),
        *([f"From {', '.join(map(shortened, kernel.origins))}."] if kernel.origins else []),
        f"Reads {_shapes(kernel.reads, buffers)}; writes {_shapes(kernel.writes, buffers)}.",
        f"Moves {bytes_text(moved.read)} in, {bytes_text(moved.written)} out."
        + (f" Tile: {tile}." if tile else ""),
    ]
    return [part for line in lines for part in wrap(f"// {line}")]


def tile_text(tile: Tile) -> str:
    """`threads=256, vector=4, ...`; empty for the one tile of kernels in C++."""
    if tile == Tile(threads=1):
        return ""
    values = {f.name: getattr(tile, f.name) for f in fields(tile)}
    return ", ".join(f"{k}={v}" for k, v in values.items() if v is not False)


def _shape_text(kernel: Kernel) -> str:
    if kernel.anchor in ("elementwise", "transpose"):
        turned = ", turned in shared memory" if kernel.anchor == "transpose" else ""
        return f"every one of {_extent_text(kernel.rows)} points{turned}"
    phases = "; ".join(_phase_text(p) for p in kernel.phases)
    anchor = kernel.anchor.replace("_", " ")
    return f"{anchor} of {_extent_text(kernel.rows)} rows: {phases}"


def _phase_text(p: Phase) -> str:
    parts = [f"{s.name} = cum{s.kind}" for s in p.scans]
    parts += [f"{f.name} = {f.kind}" for f in p.folds]
    parts += [f"keep {k.name}" for k in p.keeps]
    parts += [f"store {s.buffer}" for s in p.stores]
    over = f" over {_extent_text(p.cols)}" if p.cols else ""
    return f"{', '.join(parts)}{over}"


def _extent_text(variables: tuple[Var, ...]) -> str:
    return " x ".join(str(v.extent) for v in variables) or "1"


def _shapes(names: tuple[str, ...], buffers: Buffers) -> str:
    return ", ".join(
        f"{n}[{', '.join(map(str, buffers[n].shape))}] {buffers[n].dtype.name}"
        for n in dict.fromkeys(names)
    ) or "nothing"


def bytes_text(count: int) -> str:
    """A number of bytes for people: decimal units, three digits."""
    value, unit = float(count), "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, bigger
    return f"{value:.3g} {unit}"
