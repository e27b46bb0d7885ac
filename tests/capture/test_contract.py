"""Matrix products, einsum and convolutions against eager."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .harness import check_function, check_module

FLOATS = (torch.float32, torch.float64, torch.bfloat16)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_matmul_ranks(dtype: torch.dtype) -> None:
    def ops(v: Tensor, m: Tensor, n: Tensor, b: Tensor, c: Tensor) -> list[Any]:
        return [
            *(v @ v, m @ v, v @ n, m @ n, b @ n, b @ v, m @ c, b @ c, v @ c, torch.mm(m, n)),
            *(torch.bmm(b, c), torch.mv(m, v), torch.dot(v, v), F.linear(b, m), F.linear(v, m)),
            torch.addmm(m[:, :1], m, n, beta=0.5, alpha=2),
            torch.addmm(m @ n, m, n, beta=0),
            torch.addmv(m[:, 0], m, v),
            torch.baddbmm(b @ c, b, c, alpha=0.5),
            torch.addbmm(m @ n, b, c),
            torch.addr(m @ n, m[:, 0], n[0]),
            F.linear(b, m, m[:, 0]),
            b[None] @ c[:, None],
            torch.tensordot(b, c, ([0, 2], [0, 1])),
            torch.inner(v, m),
            torch.chain_matmul(m, n, n.mT),
        ]

    v, m, n = torch.randn(4), torch.randn(3, 4), torch.randn(4, 5)
    b, c = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    check_function(ops, *(x.to(dtype) for x in (v, m, n, b, c)), slack=2)


def test_integer_products_and_empty_products() -> None:
    def ops(a: Tensor, e: Tensor) -> list[Any]:
        return [a @ a.T, e @ e.T, e.T @ e, F.linear(e, e)]

    check_function(ops, torch.randint(-4, 4, (3, 4)), torch.randn(0, 3))


EQUATIONS = {
    "ij,jk->ik": ("m", "n"),
    "bij,bjk->bik": ("b", "c"),
    "bij,jk": ("b", "n"),
    "ij->ji": ("m",),
    "ij->": ("m",),
    "ii->i": ("s",),
    "ii": ("s",),
    "i,j->ij": ("v", "w"),
    "i,i->": ("v", "v"),
    "bij,bij->b": ("b", "b"),
    "...ij,...jk->...ik": ("b", "c"),
    "b...,b...->...": ("b", "b"),
    "bij,jk,kl->bil": ("b", "n", "k"),
    "ij,kj->ikj": ("m", "m"),
    "bij,kl->bk": ("b", "n"),
}


def test_einsum() -> None:
    def ops(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {e: torch.einsum(e, *(tensors[t] for t in ts)) for e, ts in EQUATIONS.items()}

    tensors = {
        "v": torch.randn(4),
        "w": torch.randn(3),
        "m": torch.randn(3, 4),
        "n": torch.randn(4, 5),
        "k": torch.randn(5, 2),
        "s": torch.randn(3, 3),
        "b": torch.randn(2, 3, 4),
        "c": torch.randn(2, 4, 5),
    }
    check_function(ops, tensors)


CONVOLUTIONS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "conv1d_groups": (nn.Conv1d(4, 6, 2, groups=2, dilation=2, bias=False), (2, 4, 9)),
    "conv2d": (nn.Conv2d(3, 5, (3, 2), stride=(1, 2), padding=(2, 0)), (2, 3, 6, 7)),
    "conv2d_same": (nn.Conv2d(2, 4, 4, padding="same", dilation=2), (1, 2, 7, 8)),
    "conv2d_depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), (2, 4, 5, 5)),
    "conv2d_reflect": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (1, 2, 5, 5)),
    "conv2d_unbatched": (nn.Conv2d(2, 3, 3), (2, 5, 5)),
    "conv3d": (nn.Conv3d(2, 3, 2, stride=(1, 2, 1), padding=1), (1, 2, 4, 5, 3)),
    "transposed1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 5)),
    "transposed2d": (nn.ConvTranspose2d(4, 6, 3, stride=(2, 3), groups=2), (1, 4, 3, 4)),
    "transposed2d_dilated": (nn.ConvTranspose2d(3, 2, 3, padding=2, dilation=2), (2, 3, 4, 4)),
    "transposed3d": (nn.ConvTranspose3d(2, 3, 2, stride=2), (1, 2, 2, 3, 2)),
}


class Each(nn.Module):
    """Applies each module to its own input."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(modules)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: part(inputs[name]) for name, part in self.parts.items()}


def test_convolutions() -> None:
    torch.manual_seed(0)
    module = Each({k: m for k, (m, _) in CONVOLUTIONS.items()})
    check_module(module, {k: torch.randn(s) for k, (_, s) in CONVOLUTIONS.items()})


def test_half_precision_layers() -> None:
    parts = {"linear": nn.Linear(6, 5), "conv": nn.Conv2d(3, 4, 3, padding=1)}
    module = Each(parts).to(torch.bfloat16)
    shapes = {"linear": (4, 6), "conv": (2, 3, 5, 5)}
    check_module(module, {k: torch.randn(s).bfloat16() for k, s in shapes.items()}, slack=2)


def test_bilinear() -> None:
    check_module(Pair(nn.Bilinear(3, 4, 5)), torch.randn(2, 6, 3), torch.randn(2, 6, 4))


class Pair(nn.Module):
    """A module of two arguments."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.inner(a, b)


def test_attention_is_one_call() -> None:
    def ops(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> list[Any]:
        return [
            F.scaled_dot_product_attention(q, k, v),
            F.scaled_dot_product_attention(q, k, v, is_causal=True),
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
        ]

    q, k, v = (torch.randn(2, 3, 5, 4) for _ in range(3))
    check_function(ops, q, k, v, torch.rand(5, 5) > 0.3, externs=3)


def test_multihead_attention() -> None:
    module = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(2, 5, 8)
    check_module(Attend(module), x, externs=0)


class Attend(nn.Module):
    """Self-attention that returns its weights too."""

    def __init__(self, inner: nn.MultiheadAttention) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x, x, x)
