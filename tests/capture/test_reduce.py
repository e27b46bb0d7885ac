"""Reductions, softmax and norms against eager: axes, keepdim, dtypes, empty and 0-dim tensors."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from .harness import check_function

NAN, INF = float("nan"), float("inf")


def reductions(x: Tensor) -> dict[str, Any]:
    return {
        "sum": x.sum(),
        "sum_axes": x.sum((0, -1), keepdim=True),
        "sum_dtype": x.sum(1, dtype=torch.float64),
        "mean": x.mean(-1),
        "mean_all": x.mean(),
        "prod": x.prod(1),
        "prod_all": x.prod(),
        "amax": x.amax((0, 2)),
        "amin": x.amin(1, keepdim=True),
        "max": x.max(),
        "max_dim": tuple(x.max(1)),
        "min_dim": tuple(x.min(-1, keepdim=True)),
        "argmax": x.argmax(1, keepdim=True),
        "argmin": x.argmin(),
        "any": x.any(1),
        "all": x.all(),
        "all_axes": (x > 0).all((0, 1)),
        "var": x.var((1, 2)),
        "var_biased": x.var(1, correction=0, keepdim=True),
        "std": x.std(),
        "std_mean": torch.std_mean(x, 1),
        "var_mean": torch.var_mean(x, (0, 1), correction=2),
        "logsumexp": x.logsumexp((1, 2)),
        "aminmax": tuple(torch.aminmax(x, dim=0)),
        "count_nonzero": torch.count_nonzero(x, 1),
        "norm": x.norm(),
        "norm1": torch.linalg.vector_norm(x, 1, (0, 1)),
        "norm_inf": torch.linalg.vector_norm(x, INF, 2),
        "norm_minus_inf": torch.linalg.vector_norm(x, -INF, 2, keepdim=True),
        "norm0": torch.linalg.vector_norm(x, 0, 1),
        "norm3": torch.linalg.vector_norm(x, 3, 1),
        "frobenius": torch.linalg.matrix_norm(x),
        "nansum": x.nansum(1),
        "softmax": x.softmax(1),
        "log_softmax": x.log_softmax(-1),
        "softmax_dtype": F.softmax(x, -1, dtype=torch.float64),
        "cosine": F.cosine_similarity(x, x.flip(0), 1),
    }


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.float16, torch.bfloat16))
def test_reductions(dtype: torch.dtype) -> None:
    check_function(reductions, torch.randn(3, 4, 5).to(dtype))


def test_reductions_of_special_values() -> None:
    def ops(x: Tensor) -> list[Any]:
        return [
            *(x.amax(1), x.amin(1), *x.max(1), *x.min(1), x.argmax(1), x.argmin(1), x.sum(1)),
            *(x.logsumexp(1), x.softmax(1), x.log_softmax(1), x.nansum(1), x.prod(1)),
            torch.nanmean(x, 1),
        ]

    rows = [[1, NAN, 3], [INF, INF, 1], [-INF, -INF, -INF], [INF, -INF, 0], [2, 2, 1], [0, -0.0, 0]]
    check_function(ops, torch.tensor(rows))


@pytest.mark.parametrize("dtype", (torch.int64, torch.int32, torch.uint8, torch.bool))
def test_integer_reductions(dtype: torch.dtype) -> None:
    def ops(x: Tensor) -> list[Any]:
        out = [x.sum(), x.sum(1), x.prod(0), x.any(), x.all(1), x.amax(1), x.amin(0)]
        out += [x.argmax(1)] if dtype != torch.bool else []
        return [*out, x.sum(1, dtype=torch.float32), x.count_nonzero(), x.float().mean()]

    check_function(ops, torch.randint(0, 3, (3, 4)).to(dtype))


def test_empty_and_zero_dim_tensors() -> None:
    def ops(e: Tensor, z: Tensor) -> list[Any]:
        return [
            *(e.sum(), e.sum(0), e.sum(1), e.mean(), e.prod(0), e.any(), e.all(1), e.amax(1)),
            *(e.softmax(1), e.logsumexp(0), e + 1, e.var(0), e.norm()),
            *(z.sum(), z.mean(), z.softmax(0), z.amax(), z.argmax(), *z.max(0), z.log_softmax(-1)),
            *(z.var(correction=0), z.logsumexp(0), z.norm(), z.prod(0, keepdim=True), z * 2),
        ]

    check_function(ops, torch.randn(0, 3), torch.tensor(0.7))


def losses(x: Tensor, y: Tensor, labels: Tensor, weight: Tensor) -> dict[str, Any]:
    p, q = x.sigmoid(), y.sigmoid()
    return {
        "mse": F.mse_loss(x, y),
        "l1": F.l1_loss(x, y, reduction="sum"),
        "smooth_l1": F.smooth_l1_loss(x, y, beta=0.5),
        "huber": F.huber_loss(x, y, delta=0.7),
        "bce": F.binary_cross_entropy(p, q),
        "bce_logits": F.binary_cross_entropy_with_logits(x, q, pos_weight=weight),
        "kl": F.kl_div(x.log_softmax(1), y.softmax(1), reduction="batchmean"),
        "kl_log": F.kl_div(x.log_softmax(1), y.log_softmax(1), log_target=True),
        "nll": F.nll_loss(x.log_softmax(1), labels),
        "cross_entropy": F.cross_entropy(x, labels),
        "cross_entropy_full": F.cross_entropy(
            x, labels, weight=weight, ignore_index=1, label_smoothing=0.1
        ),
        "cross_entropy_soft": F.cross_entropy(x, y.softmax(1), reduction="none"),
        "cosine": F.cosine_embedding_loss(x, y, labels.sign() * 2 - 1),
        "hinge": F.hinge_embedding_loss(x, y.sign()),
        "triplet": F.triplet_margin_loss(x, y, x.flip(0)),
        "margin": F.margin_ranking_loss(x, y, y.sign()),
        "soft_margin": F.soft_margin_loss(x, y.sign()),
        "poisson": F.poisson_nll_loss(x, y.abs()),
        "gaussian": F.gaussian_nll_loss(x, y, p, full=True),
        "gaussian_rows": F.gaussian_nll_loss(x, y, p[:, 0], reduction="none"),
        "gaussian_number": F.gaussian_nll_loss(x, y, 0.5, reduction="sum"),
        "pairwise": F.pairwise_distance(x, y),
        "multilabel_soft": F.multilabel_soft_margin_loss(x, (y > 0).float()),
    }


def test_losses() -> None:
    x, y = torch.randn(6, 4), torch.randn(6, 4)
    labels = torch.tensor([0, 3, 1, 2, 2, 0])
    check_function(losses, x, y, labels, torch.rand(4))


def test_multilabel_margin_loss_stops_at_the_first_negative_target() -> None:
    targets = torch.tensor([[3, 0, -1, 1], [0, -1, 2, 2], [1, 2, 3, -1]])
    check_function(F.multilabel_margin_loss, torch.randn(3, 4), targets, externs=None)


def test_segmentation_loss() -> None:
    x, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    check_function(
        lambda a, b: (F.cross_entropy(a, b), F.nll_loss(a, b, reduction="sum")), x, labels
    )


def cumulative(x: Tensor) -> list[Any]:
    out: list[Any] = [x.cumsum(1), x.cumprod(0), x.cumsum(-1, dtype=torch.float64)]
    out += [*x.cummax(1), *x.cummin(0), x[0, 0].cumsum(0), *x[0, 0].cummax(0), x[:, :1].cumsum(1)]
    return [*out, x.logcumsumexp(1)] if x.is_floating_point() else out


def test_cumulative_ops() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.int32, torch.bool, torch.uint8):
        check_function(cumulative, (torch.randn(3, 4) * 3).to(dtype))


def test_sorting_ops_stay_calls() -> None:
    def ops(x: Tensor) -> list[Any]:
        values, order = x.sort(1)
        return [values, order, *x.topk(2, 1), x.median()]

    check_function(ops, torch.randn(3, 4), externs=3)
