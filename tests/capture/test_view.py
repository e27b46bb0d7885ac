"""Layout changes against eager: reshapes, selections, joins, pads, writes into views."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from .harness import check_function


def shapes(x: Tensor) -> dict[str, Any]:  # x is (2, 3, 4, 6)
    return {
        "reshape": x.reshape(6, -1),
        "view": x.view(2, 12, 2, 3),
        "flatten": x.flatten(1, 2),
        "unflatten": x.unflatten(3, (2, -1)),
        "permute": x.permute(3, 0, 2, 1),
        "permute_reshape": x.permute(0, 2, 3, 1).reshape(8, 18),
        "transpose": x.transpose(-1, 1),
        "movedim": x.movedim(0, -1),
        "mT": x.mT,
        "unsqueeze": x.unsqueeze(-2).unsqueeze(0),
        "squeeze": x[:, :1].squeeze(),
        "squeeze_dim": x[:, :1].squeeze(1).squeeze(0),
        "expand": x[:, :1].expand(-1, 5, -1, 6),
        "broadcast_to": x[0, 0].broadcast_to(2, 4, 6),
        "slice": x[:, 1:, ::2, 5:1:1],
        "steps": x[..., 1::3],
        "negative": x[:, -2:, :-1],
        "select": x[1, :, -1],
        "narrow": x.narrow(3, 2, 3),
        "split": x.split(4, 3),
        "split_sizes": x.split([1, 2, 3], -1),
        "chunk": x.chunk(4, -1),
        "unbind": x.unbind(1),
        "flip": x.flip(0, -1),
        "roll": x.roll((1, -2), (1, 3)),
        "roll_flat": x.roll(5),
        "rot90": x.rot90(1, (2, 3)),
        "unfold": x.unfold(3, 3, 2),
        "diagonal": x.diagonal(1, 2, 3),
        "diagonal_down": x.diagonal(-1, -1, 1),
        "diag_embed": x[0, 0].diag_embed(1),
        "tril": x.tril(1),
        "triu": x.triu(-1),
        "repeat": x.repeat(2, 1, 1, 3, 1),
        "tile": x.tile(2, 3),
        "repeat_interleave": x.repeat_interleave(3, 1),
        "pixel_shuffle": F.pixel_shuffle(x.reshape(1, 12, 3, 4), 2),
        "pixel_unshuffle": F.pixel_unshuffle(x, 2),
        "channel_shuffle": F.channel_shuffle(x.reshape(2, 6, 2, 6), 3),
        "im2col": F.unfold(x.float(), 2, padding=1),
        "swap": x.swapaxes(0, 3).contiguous(),
    }


@pytest.mark.parametrize("dtype", (torch.float32, torch.int32, torch.bool), ids=str)
def test_shapes(dtype: torch.dtype) -> None:
    check_function(shapes, (torch.randn(2, 3, 4, 6) * 4).to(dtype))


def joins(a: Tensor, b: Tensor, e: Tensor) -> dict[str, Any]:  # (2, 3), (2, 3), (0,)
    return {
        "cat": torch.cat([a, b, a]),
        "cat_dim": torch.cat([a, b], -1),
        "cat_empty": torch.cat([e, a, b], 1),
        "cat_types": torch.cat([a, b.long(), b.half()]),
        "stack": torch.stack([a, b], -1),
        "hstack": torch.hstack([a, b]),
        "vstack": torch.vstack([a, b]),
        "dstack": torch.dstack([a, b]),
        "block_diag": torch.block_diag(a, b),
        "meshgrid": torch.meshgrid(a[0], b[:, 0], indexing="ij"),
        "meshgrid_xy": torch.meshgrid(a[0], b[:, 0], indexing="xy"),
        "outer": torch.outer(a[0], b[1]),
        "kron": torch.kron(a, b),
        "cartesian": torch.cartesian_prod(a[0], b[0]),
        "broadcast": torch.broadcast_tensors(a[:, :1], b),
        "tensor_split": a.tensor_split(2, 1),
        "atleast": torch.atleast_3d(a),
    }


def test_joins() -> None:
    check_function(joins, torch.randn(2, 3), torch.randn(2, 3), torch.empty(0))


def pads(x: Tensor) -> dict[str, Any]:  # (2, 3, 4, 5)
    return {
        "constant": F.pad(x, (1, 2, 0, 3), value=1.5),
        "infinite": F.pad(x, (0, 1), value=float("-inf")),
        "crop": F.pad(x, (-1, -2, 1, -1)),
        "reflect": F.pad(x, (2, 3, 1, 0), "reflect"),
        "replicate": F.pad(x, (2, 3, 4, 0), "replicate"),
        "circular": F.pad(x, (2, 3, 4, 1), "circular"),
        "reflect1": F.pad(x[0], (4, 2), "reflect"),
        "replicate3": F.pad(x[None], (1, 1, 2, 0, 0, 3), "replicate"),
        "nearest": F.interpolate(x, scale_factor=2),
        "nearest_size": F.interpolate(x, size=(7, 11)),
        "nearest_down": F.interpolate(x, size=(2, 3)),
        "nearest1": F.interpolate(x[0], scale_factor=3),
        "linear": F.interpolate(x[0], scale_factor=2, mode="linear"),
        "bilinear": F.interpolate(x, size=(7, 3), mode="bilinear"),
        "bilinear_scaled": F.interpolate(x, scale_factor=1.7, mode="bilinear"),
        "bilinear_corners": F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
        "bilinear_one": F.interpolate(x, size=(1, 1), mode="bilinear", align_corners=True),
        "trilinear": F.interpolate(x[None], scale_factor=2, mode="trilinear"),
    }


def test_pads_and_nearest_resampling() -> None:
    check_function(pads, torch.randn(2, 3, 4, 5))


def test_writes_into_views_become_values() -> None:
    def ops(x: Tensor, y: Tensor) -> list[Any]:
        a, b, c, d = x.clone(), x.clone(), x.clone(), x.clone()
        a[:, 1:3] = y[:, 1:3]
        b[1] = y[0] * 2
        c[:, ::2] += 1
        c.fill_diagonal_(7.0)
        d.diagonal().copy_(y[0, :3])
        e = torch.zeros(3, 4)
        e[0, 1:] = x[1, 1:]
        e[x > 0] = -1.0
        return [a, b, c, d, e, torch.slice_scatter(x, y[:, :2], 1, 1, 4, 2)]

    check_function(ops, torch.randn(3, 4), torch.randn(3, 4), externs=None)


def test_creation() -> None:
    def ops(x: Tensor) -> list[Any]:
        return [
            *(torch.arange(5), torch.arange(1, 9, 3), torch.arange(0, 1, 0.3)),
            *(torch.arange(4, dtype=torch.float32), torch.eye(3), torch.eye(2, 4)),
            *(torch.ones(2, 3), torch.zeros(2, dtype=torch.int32), torch.full((2,), 7)),
            *(torch.full_like(x, 2.5), x.new_ones(3), torch.zeros_like(x), torch.tensor(3.0) * x),
            *(
                torch.tensor([1.0, 2.0, 4.0]) + x,
                torch.linspace(0, 1, 5),
                torch.tril(x.new_ones(3, 3)),
            ),
            torch.tensor([[True, False, True]]) & (x > 0),
        ]

    check_function(ops, torch.randn(2, 3), externs=None)


def test_non_contiguous_inputs_and_results() -> None:
    def ops(x: Tensor, y: Tensor) -> list[Any]:
        return [x + 1, x.t() * 2, x @ y, x.sum(0), y.transpose(0, 1), x.t().reshape(-1), y[::2]]

    x, y = torch.randn(4, 3).t(), torch.randn(8, 6)[::2, 1:4]
    check_function(ops, x, y)


def test_empty_views() -> None:
    def ops(e: Tensor, z: Tensor) -> list[Any]:
        return [
            *(e.reshape(3, 0, 2), e.permute(1, 0), e[:, :1], torch.cat([e, e]), e.flip(0)),
            *(e.expand(2, 0, 6), e.repeat(2, 2), F.pad(e, (0, 0, 1, 1)), e.unsqueeze(0)),
            *(z.reshape(1, 1), z.expand(2, 3), z.unsqueeze(0), torch.stack([z, z]), z.flatten()),
        ]

    check_function(ops, torch.randn(0, 6), torch.tensor(2.0))


def test_more_tensors_than_a_kernel_is_handed_are_joined_by_the_library() -> None:
    check_function(lambda x: torch.stack([x * k for k in range(300)], 1), torch.randn(4), externs=1)
    check_function(lambda x: torch.stack([x * k for k in range(200)], 1), torch.randn(4))
