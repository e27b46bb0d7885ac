"""Normalisation in both modes, pooling, reads at computed positions, against eager."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .harness import check_function, check_module
from .test_contract import Each


def norm_layers() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    return {
        "batch1d": (nn.BatchNorm1d(4), (6, 4)),
        "batch1d_long": (nn.BatchNorm1d(4, affine=False), (3, 4, 5)),
        "batch2d": (nn.BatchNorm2d(3, momentum=0.3, eps=1e-3), (2, 3, 4, 5)),
        "batch3d": (nn.BatchNorm3d(2), (2, 2, 3, 2, 2)),
        "batch_cumulative": (nn.BatchNorm2d(3, momentum=None), (2, 3, 4, 5)),
        "batch_stateless": (nn.BatchNorm2d(3, track_running_stats=False), (2, 3, 4, 4)),
        "instance": (nn.InstanceNorm2d(3), (2, 3, 4, 4)),
        "instance_affine": (nn.InstanceNorm1d(3, affine=True), (2, 3, 7)),
        "instance_running": (nn.InstanceNorm2d(3, track_running_stats=True), (2, 3, 4, 4)),
        "layer": (nn.LayerNorm(6), (3, 4, 6)),
        "layer_axes": (nn.LayerNorm((4, 6), elementwise_affine=False), (3, 4, 6)),
        "layer_no_bias": (nn.LayerNorm(6, bias=False), (2, 6)),
        "group": (nn.GroupNorm(2, 6), (3, 6, 4)),
        "group_plain": (nn.GroupNorm(3, 6, affine=False), (3, 6, 2, 2)),
        "rms": (nn.RMSNorm(6), (3, 6)),
        "local_response": (nn.LocalResponseNorm(3), (2, 5, 3, 3)),
    }


@pytest.mark.parametrize("training", (True, False), ids=("train", "eval"))
def test_norms(training: bool) -> None:
    torch.manual_seed(0)
    layers = norm_layers()
    module = Each({k: m for k, (m, _) in layers.items()}).train(training)
    for p in module.parameters():
        nn.init.normal_(p)
    inputs = {k: torch.randn(s) * 2 + 1 for k, (_, s) in layers.items()}
    graph = check_module(module, inputs)
    counters = [m for m in graph.mutations if m.target.endswith("num_batches_tracked")]
    assert len(counters) == (5 if training else 0)


def test_half_precision_norms() -> None:
    parts: dict[str, nn.Module] = {"layer": nn.LayerNorm(8), "group": nn.GroupNorm(2, 4)}
    module = Each(parts).to(torch.bfloat16)
    shapes = {"layer": (4, 8), "group": (2, 4, 6)}
    check_module(module, {k: torch.randn(s).bfloat16() for k, s in shapes.items()})


def test_batch_norm_with_mixed_dtypes() -> None:
    module = nn.BatchNorm2d(3)
    check_module(module, torch.randn(2, 3, 4, 4).bfloat16())


def pools(x: Tensor) -> dict[str, Any]:  # (2, 3, 8, 7)
    return {
        "max": F.max_pool2d(x, 2),
        "max_pad": F.max_pool2d(x, 3, 2, 1),
        "max_dilated": F.max_pool2d(x, (2, 3), (1, 2), 1, (2, 1)),
        "max_ceil": F.max_pool2d(x, 3, 2, 0, ceil_mode=True),
        "max_indices": F.max_pool2d(x, (2, 3), 2, return_indices=True),
        "max1": F.max_pool1d(x[0], 3, 1, 1),
        "max3": F.max_pool3d(x[None].float(), 2),
        "avg": F.avg_pool2d(x, 2),
        "avg_pad": F.avg_pool2d(x, 3, 2, 1),
        "avg_no_pad": F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        "avg_ceil": F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        "avg_ceil_no_pad": F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        "avg_divisor": F.avg_pool2d(x, 2, divisor_override=3),
        "avg1": F.avg_pool1d(x[0], 3, 2, 1),
        "avg3": F.avg_pool3d(x[None].float(), (3, 2, 2)),
        "adaptive_one": F.adaptive_avg_pool2d(x, 1),
        "adaptive_even": F.adaptive_avg_pool2d(x, (4, 7)),
        "adaptive_uneven": F.adaptive_avg_pool2d(x, (3, 5)),
        "adaptive_none": F.adaptive_avg_pool2d(x, (None, 2)),
        "adaptive1": F.adaptive_avg_pool1d(x[0], 3),
        "adaptive3": F.adaptive_avg_pool3d(x[None].float(), (2, 3, 2)),
        "adaptive_max": F.adaptive_max_pool2d(x, (3, 5)),
        "adaptive_max1": F.adaptive_max_pool1d(x[0], 2),
        "lp": F.lp_pool2d(x.abs(), 2, 2),
    }


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16))
def test_pools(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 8, 7).to(dtype)
    x[0, 0, 0, 0], x[1, 1, 2, 2] = float("nan"), float("-inf")
    check_function(pools, x)


def test_pool_indices_with_padding_stay_a_call() -> None:
    check_function(
        lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True), torch.randn(1, 2, 5, 5), externs=1
    )


def reads(x: Tensor, i: Tensor, j: Tensor, small: Tensor) -> dict[str, Any]:
    # x is (4, 5, 6); i and j are (3,); small is (2, 3)
    return {
        "embedding": F.embedding(small.abs(), x[0], padding_idx=0),
        "bag_mean": F.embedding_bag(small.abs(), x[0]),
        "bag_sum": F.embedding_bag(small.abs(), x[0], mode="sum", padding_idx=1),
        "bag_weighted": F.embedding_bag(
            small.abs(), x[0], mode="sum", per_sample_weights=x[1, :2, :3]
        ),
        "one_bag": F.embedding_bag(i[None], x[0], mode="sum"),
        "index_select": x.index_select(1, i),
        "index": x[i],
        "index_negative": x[-i - 1],
        "index_middle": x[:, i],
        "index_last": x[..., small],
        "index_two": x[i, j],
        "index_matrix": x[small.abs(), :, small],
        "index_split": x[i, :, j],
        "index_adjacent": x[:, small, j],
        "index_broadcast": x[i[:, None], j],
        "index_mixed": x[2, :, i],
        "gather": x.gather(2, small.abs().expand(4, 2, 3)),
        "take": x.take(small),
        "take_along": torch.take_along_dim(x[..., :3], small.abs()[None], 1),
        "one_hot": F.one_hot(i, 7),
    }


def test_bags_of_several_sizes_and_their_maxima_stay_calls() -> None:
    i, rows = torch.tensor([0, 3, 1, 2]), torch.randn(4, 5)
    check_function(lambda i, w: F.embedding_bag(i, w, torch.tensor([0, 3])), i, rows, externs=1)
    check_function(lambda i, w: F.embedding_bag(i[None], w, mode="max"), i, rows, externs=1)


def test_reads() -> None:
    i, j = torch.tensor([0, 3, 1]), torch.tensor([2, 0, 4])
    small = torch.tensor([[0, 1, -2], [3, -1, 2]])
    check_function(reads, torch.randn(4, 5, 6), i, j, small, externs=None)


def test_scattered_writes_are_calls() -> None:
    def ops(x: Tensor, where: Tensor, source: Tensor) -> list[Any]:
        return [
            x.scatter(1, where, source),
            x.scatter_add(1, where, source),
            x.index_add(0, where[0], source),
            x.index_put((where[0],), source),
        ]

    check_function(
        ops, torch.randn(4, 5), torch.tensor([[0, 1, 2]]), torch.randn(3, 5), externs=None
    )
