"""Makers of lines that move values: views, joins, pads, and parts that can be written to."""

from torch import Tensor

from .drawer import Drawer, has_rank, is_float
from .scope import Scope


def part_of(d: Drawer, name: str, x: Tensor) -> tuple[str, Tensor]:
    """A view of part of x, as an expression that can be assigned to, with its value."""
    if not x.ndim:
        return name, x
    texts = ["{x}[0]", "{x}[1:]", "{x}[::2]", "{x}[..., :1]", "{x}[..., -1]", "{x}[..., 1:]"]
    texts += ["{x}.transpose(0, -1)", "{x}.unsqueeze(0)", "{x}.flatten()", "{x}.view(-1)"]
    texts += ["{x}.view(-1)[1:]", "{x}.select(-1, 0)", "{x}.transpose(0, -1)[1:]"]
    text = d.pick(texts)
    try:
        value = eval(text.format(x="x"), {"x": x})
    except (RuntimeError, IndexError):
        return name, x
    shares = value.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    return (text.format(x=name), value) if shares and value.numel() else (name, x)


def viewed(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, has_rank(1, 5)):
        s.add(_view(d, *x), rounds=False)


def _view(d: Drawer, name: str, x: Tensor) -> str:
    a, b = d.axis(x), d.axis(x)
    n = x.shape[a]
    start, stop = d.whole(0, 3), d.whole(-2, 6)
    order = ", ".join(map(str, d.order(x.ndim)))
    # fmt: off
    texts = (
        f".transpose({a}, {b})", f".permute({order})", ".flatten()", f".unsqueeze({a})",
        ".squeeze()", f".squeeze({a})", ".reshape(-1)", ".reshape(-1, 1)",
        f".reshape(-1, {x.shape[-1]})", "[0]", "[-1]", "[::2]", f"[{start}:{stop}]", "[..., None]",
        "[..., 0]", "[..., -1:]", f"[..., {start}:{stop}]", "[..., ::2]", "[None]",
        f".narrow({a}, {min(start, 1)}, {max(n - 1, 0)})", f".flip({a})", f".flip({a}, {b})",
        f".roll({start}, {a})", f".diagonal(0, {a}, {b})", f".unfold({a}, 2, 1)",
        f".unfold({a}, {min(3, max(n, 1))}, 2)", f".movedim({a}, {b})",
        f".repeat_interleave(2, {a})", ".contiguous()", ".clone()", ".tril()", ".triu(1)",
        f".chunk(2, {a})[{start % 2}]", f".split(2, {a})[-1]", f".unbind({a})[0]",
        f".select({a}, {min(start, max(n - 1, 0))})", f".tensor_split(3, {a})[1]",
        f".repeat({', '.join(['2'] * x.ndim)})", f".repeat(2, {', '.join(['1'] * x.ndim)})",
        f".expand(3, {', '.join(['-1'] * x.ndim)})", f".unflatten({a}, (-1, 2))", ".detach()",
        ".T", ".mT", f".flatten(0, {b})", f".swapaxes({a}, {b})",
        f".view({', '.join(map(str, x.shape[:-1] + (1, x.shape[-1])))})", f".tile(({start + 1},))",
        ".reshape(2, -1)", ".reshape(-1, 2).t()", ".reshape(-1, 2, 2)", ".diag_embed()",
        f".transpose({a}, {b}).reshape(-1)", f".permute({order}).contiguous()",
        f".permute({order}).flatten(0, 1)",
        f".as_strided(({min(n, 2)}, {min(x.shape[-1], 2)}), (1, 1))",
        ".expand_as(torch.zeros(2, 1))", ".rot90(1, (0, -1))",
    )
    # fmt: on
    return name + d.pick(texts)


def joined(d: Drawer, s: Scope) -> None:
    """cat or stack of two or three values, of one dtype or of several."""
    x = d.operand(s, has_rank(1, 4))
    if not x:
        return
    a, shape = d.axis(x[1]) % x[1].ndim, x[1].shape
    stack = d.whole(0, 2) == 0

    def fits(v: Tensor) -> bool:
        return v.ndim == len(shape) and all(
            m == n for k, (m, n) in enumerate(zip(v.shape, shape)) if k != a or stack
        )

    y, z = d.operand(s, fits), d.operand(s, fits)
    names = [x[0], *(v[0] for v in (y, z) if v)][: 3 if d.flag() else 2]
    function = "stack" if stack else "cat"
    s.add(f"torch.{function}([{', '.join(names)}], {a - (x[1].ndim if d.flag() else 0)})", False)


def padded(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, lambda v: is_float(v) and 2 <= v.ndim <= 4):
        p, q = d.whole(0, 2), d.whole(-1, 2)
        # fmt: off
        texts = (
            "F.pad({x}, ({p}, {q}))", "F.pad({x}, ({p}, {q}), value=1.5)",
            "F.pad({x}, ({p}, {q}, 1, {p}))", "F.pad({x}, ({p}, {r}), mode='reflect')",
            "F.pad({x}, ({p}, {r}), mode='replicate')", "F.pad({x}, ({p}, {r}), mode='circular')",
            "F.pad({x}, ({p}, {r}, 1, {p}), mode='reflect')", "F.interpolate({x}, scale_factor=2)",
            "F.pixel_shuffle({x}, 2)", "F.pixel_unshuffle({x}, 2)",
            "F.interpolate({x}, scale_factor=2, mode='bilinear')",
            "F.interpolate({x}, size=5, mode='linear')", "F.channel_shuffle({x}, 2)",
            "F.glu({x}, -1)", "F.unfold({x}, 2)", "F.pad({x}, (0, 0, {p}, {q}))",
        )
        # fmt: on
        s.add(d.pick(texts).format(x=x[0], p=p, q=q, r=max(q, 0)), rounds=True)


VIEW = (*(viewed,) * 9, *(joined,) * 4, padded)
