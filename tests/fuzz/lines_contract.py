"""Makers of lines that contract: products of matrices, einsums, convolutions, with parameters."""

from .drawer import Drawer, float_of_rank, is_float
from .scope import Scope


def _parameter(d: Drawer, s: Scope, *shape: int) -> str | None:
    cast = "" if d.dtype == "float32" else f".to(torch.{d.dtype})"
    scale = 0.5 if d.flag() else 1.0
    return s.add_state("p", f"torch.randn({', '.join(map(str, shape))}){cast} * {scale}")


def _try(s: Scope, text: str, *fresh: str | None) -> None:
    """Add the line, or forget the parameters that were made for it."""
    if s.add(text, rounds=True) is None:
        for name in fresh[::-1]:
            if name:
                s.drop_state(name)


def linear(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, float_of_rank(1, 4)):
        k, n = x[1].shape[-1], d.pick((1, 2, 3, 5, 8, 16))
        w = _parameter(d, s, n, k)
        b = _parameter(d, s, n) if d.flag() else None
        forms = ("F.linear({x}, {w}, {b})", "{x} @ {w}.t()", "torch.matmul({x}, {w}.mT) * 2")
        _try(s, d.pick(forms).format(x=x[0], w=w, b=b), w, b)


def module(d: Drawer, s: Scope) -> None:
    """A submodule with parameters of its own."""
    if x := d.operand(s, float_of_rank(2, 5)):
        n, c, k = x[1].shape[-1], x[1].shape[1], x[1].ndim - 2
        # fmt: off
        forms = (
            f"nn.Linear({n}, 4)", f"nn.LayerNorm({n})",
            f"nn.Sequential(nn.Linear({n}, 3), nn.ReLU(), nn.Linear(3, 2))",
            f"nn.Conv{k}d({c}, 2, 2)", f"nn.Conv{k}d({c}, {c}, 3, padding=1, groups={c})",
            f"nn.PReLU({c})", f"nn.GroupNorm(1, {c})", f"nn.Conv{k}d({c}, 4, 1, bias=False)",
            f"nn.Linear({n}, {n}, bias=False)", f"nn.ConvTranspose{k}d({c}, 2, 2, stride=2)",
            f"nn.RMSNorm({n})", f"nn.Bilinear({n}, {n}, 3)",
        )
        # fmt: on
        name = s.add_state("m", d.pick(forms))
        if name:
            given = f"{x[0]}, {x[0]}" if "Bilinear" in s.state[-1][1] else x[0]
            _try(s, f"{name}({given})", name)


def product(d: Drawer, s: Scope) -> None:
    """Two values that stand side by side as they are, or one with itself."""
    x = d.operand(s, float_of_rank(1, 4))
    y = x and d.operand(
        s, lambda v: v.dtype == x[1].dtype and 1 <= v.ndim <= 4 and v.shape[-1] == x[1].shape[-1]
    )
    if not (x and y):
        return
    # fmt: off
    forms = (
        "{x} @ {y}.mT", "{x}.mT @ {y}", "torch.einsum('...ik,...jk->...ij', {x}, {y})",
        "torch.einsum('ik,jk->ij', {x}, {y})", "torch.einsum('ik,ik->i', {x}, {y})",
        "torch.mv({x}, {y})", "torch.einsum('bik,bjk->bij', {x}, {y})",
        "torch.bmm({x}, {y}.transpose(1, 2))", "torch.dot({x}, {y})",
        "torch.einsum('ik,jk->j', {x}, {y})", "({x} @ {y}.mT).softmax(-1) @ {y}",
        "torch.outer({x}, {y})", "torch.einsum('ik,jk->', {x}, {y})", "{x} @ {y}",
        "torch.matmul({x}, {y}.mT).sum(-1)", "torch.inner({x}, {y})",
        "torch.addmm({x}, {x}, {y}.mT)", "torch.baddbmm({x}, {x}, {y}.mT, beta=0.5, alpha=2)",
        "torch.tensordot({x}, {y}, 1)", "torch.einsum('bik,bjk->bk', {x}, {y})",
        "F.scaled_dot_product_attention({x}, {y}, {y})", "torch.kron({x}, {y})",
        "torch.einsum('ij,ij->', {x}, {y})", "torch.einsum('ii->i', {x} @ {y}.mT)",
        "torch.cdist({x}, {y})", "torch.einsum('bhik,bhjk->bihj', {x}, {y})",
        "({x} @ {y}.mT).mean(0)", "torch.addmv({y}, {x}, {y})",
    )
    # fmt: on
    s.add(d.pick(forms).format(x=x[0], y=y[0]), rounds=True)


def convolution(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, float_of_rank(3, 5)):
        k = d.pick((x[1].ndim - 2, max(x[1].ndim - 3, 1)))
        channels = x[1].shape[-k - 1]
        groups = d.pick((1, 1, channels, 2))
        stride, padding, dilation = d.pick((1, 1, 2)), d.pick((0, 1, 2)), d.pick((1, 1, 2))
        if groups == 0 or channels % groups or d.dtype in ("float16", "bfloat16"):
            return
        out, size = groups * d.pick((1, 2)), d.pick((1, 2, 3))
        transposed = d.whole(0, 4) == 4
        first = (channels, out // groups) if transposed else (out, channels // groups)
        w = _parameter(d, s, *first, *(size,) * k)
        b = _parameter(d, s, out) if d.flag() else None
        name = f"conv_transpose{k}d" if transposed else f"conv{k}d"
        rest = f"stride={stride}, padding={padding}, groups={groups}, dilation={dilation}"
        _try(s, f"F.{name}({x[0]}, {w}, {b}, {rest})", w, b)


def whole_product(d: Drawer, s: Scope) -> None:
    x = d.operand(s, lambda v: not is_float(v) and v.ndim == 2)
    if x:
        s.add_either(f"{x[0]} @ {x[0]}.t()")


CONTRACT = (*(linear,) * 4, *(module,) * 3, *(product,) * 4, *(convolution,) * 2, whole_product)
