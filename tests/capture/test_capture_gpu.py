"""What only a GPU can show: layers, layouts and random numbers on CUDA against eager there."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .harness import calls, check_function, check_module
from .test_capture import Dropping
from .test_contract import CONVOLUTIONS, Each
from .test_norm_pool_gather import norm_layers, pools
from .test_pointwise import ACTIVATIONS, ARITHMETIC, all_of
from .test_reduce import reductions

pytestmark = pytest.mark.gpu
# Eager's convolutions and products may use TF32 or other algorithms here.
LOOSE = 200


def on_gpu(module: nn.Module, inputs: Any) -> tuple[nn.Module, Any]:
    torch.backends.cudnn.allow_tf32 = False
    return module.cuda(), {k: torch.randn(s).cuda() for k, s in inputs.items()}


def test_random_numbers_are_those_of_eager() -> None:
    check_module(Dropping().cuda(), torch.randn(3, 4, 5).cuda(), externs=None)


def test_random_numbers_follow_the_layout() -> None:
    x = torch.randn(4, 3, 8, 8).cuda().to(memory_format=torch.channels_last)
    check_function(lambda x: F.dropout(x * 2, 0.5) + F.dropout(x.mT, 0.2), x, externs=2)


@pytest.mark.parametrize("training", (True, False), ids=("train", "eval"))
def test_norms(training: bool) -> None:
    layers = norm_layers()
    module = Each({k: m for k, (m, _) in layers.items()}).train(training)
    check_module(*on_gpu(module, {k: s for k, (_, s) in layers.items()}), slack=5)


def test_convolutions() -> None:
    module = Each({k: m for k, (m, _) in CONVOLUTIONS.items()})
    inputs = {k: s for k, (_, s) in CONVOLUTIONS.items()}
    check_module(*on_gpu(module, inputs), slack=LOOSE)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16))
def test_ops(dtype: torch.dtype) -> None:
    a, b = torch.randn(4, 6).to("cuda", dtype), torch.randn(6).to("cuda", dtype) + 0.1
    check_function(all_of(ARITHMETIC), a, b)
    check_function(all_of({k: f for k, f in ACTIVATIONS.items() if k != "glu"}), a)
    check_function(reductions, torch.randn(3, 4, 5).to("cuda", dtype), slack=2)
    check_function(pools, torch.randn(2, 3, 8, 7).to("cuda", dtype))


class Model(nn.Module):
    """Attention with dropout and a recurrent layer: calls of ATen's own kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, dropout=0.3, batch_first=True)
        self.lstm = nn.LSTM(16, 8, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        y, _ = self.attention(x, x, x, need_weights=False)
        return self.lstm(y)[0]


def test_calls() -> None:
    graph = check_module(Model().cuda(), torch.randn(2, 5, 16).cuda(), externs=None, slack=20)
    assert "aten.scaled_dot_product_attention.default" in calls(graph)
