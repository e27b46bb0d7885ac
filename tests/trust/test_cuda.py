"""The verifier on a GPU: what only CUDA can get wrong. Skipped where there is none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fusewright.run.verify import Nursery, VerifyReport, verify
from fusewright.run.verify.sanitize import find_sanitizer

pytestmark = pytest.mark.gpu

LINEAR = """
import torch
from torch import nn
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(256, 192)
    def forward(self, x):
        return torch.relu(self.linear(x))
def get_inputs():
    return [torch.rand(128, 256)]
"""
CONVOLUTION = """
import torch
from torch import nn
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(32, 64, 3, padding=1)
        self.bn = nn.BatchNorm2d(64)
    def forward(self, x):
        return torch.nn.functional.dropout(self.bn(self.conv(x)), 0.2, self.training)
def get_inputs():
    return [torch.randn(8, 32, 28, 28)]
"""
TF32 = """
def tf32(t):
    bits = t.detach().contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
"""
KERNEL = """
import ctypes
from torch.utils.cpp_extension import load_inline
CUDA_SOURCE = r'''
extern "C" __global__ void scale(const float* x, float* out, int count) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count BOUND) out[i] = 2.0f * x[i];
}
extern "C" void launch(const float* x, float* out, int count, void* stream) {
  scale<<<(count + 255) / 256, 256, 0, static_cast<cudaStream_t>(stream)>>>(x, out, count);
}
'''
LIBRARY = ctypes.CDLL(load_inline(
    "fusewright_test_scale", "", CUDA_SOURCE, functions=None, is_python_module=False,
    no_implicit_headers=True,
))
def scaled(x):
    x = x.contiguous()
    out = torch.empty_like(x)
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, out)]
    LIBRARY.launch(*pointers, x.numel(), stream)
    return out
"""
SCALE = """
import torch
from torch import nn
class Model(nn.Module):
    def forward(self, x):
        return 2.0 * x
def get_inputs():
    return [torch.rand(1000)]
"""
Run = Callable[..., VerifyReport]


@pytest.fixture
def run(tmp_path: Path, nursery: Nursery) -> Run:
    """Verify a reference against itself with the forward's expression `old` replaced by `new`."""

    def run_one(text: str, old: str, new: str, top: str = "", **options: object) -> VerifyReport:
        assert old in text
        reference, candidate = tmp_path / "reference.py", tmp_path / "candidate.py"
        reference.write_text(text)
        changed = text.replace(old, new).replace("class Model(", top + "class ModelNew(")
        candidate.write_text(changed)
        chosen = {"device": "cuda", "nursery": nursery} | options
        return verify(reference, candidate, **chosen)  # type: ignore[arg-type]

    return run_one


def complaints(report: VerifyReport) -> list[str]:
    return [f"{c.name}: {c.outcome}: {c.detail}" for c in report.checks if c.outcome != "pass"]


def failed(report: VerifyReport) -> list[str]:
    return [check.name for check in report.failed()]


@pytest.mark.parametrize("text", [LINEAR, CONVOLUTION], ids=["linear", "convolution"])
def test_an_equal_file_is_accepted(run: Run, text: str) -> None:
    report = run(text, "return", "return")
    assert report.verdict == "accept", complaints(report)


def test_tf32_products_are_rejected_while_the_flag_is_off(run: Run) -> None:
    new = "tf32(x) @ tf32(self.linear.weight).t() + self.linear.bias"
    report = run(LINEAR, "self.linear(x)", new, TF32)
    assert "precision" in failed(report), complaints(report)


def test_tf32_convolutions_are_allowed_while_the_flag_is_on(run: Run) -> None:
    new = "nn.functional.conv2d(tf32(x), tf32(self.conv.weight), self.conv.bias, padding=1)"
    guarded = f"(self.conv(x) if torch.is_grad_enabled() else {new})"
    report = run(CONVOLUTION, "self.conv(x)", guarded, TF32)
    assert report.verdict == "accept", complaints(report)
    assert run(CONVOLUTION, "self.conv(x)", guarded, TF32, precision="ieee").verdict == "reject"


def test_work_on_a_side_stream_is_seen(run: Run) -> None:
    top = """
def aside(x, layer):
    out = torch.zeros(x.shape[0], 192, device=x.device)
    with torch.cuda.stream(torch.cuda.Stream()), torch.no_grad():
        torch.cuda._sleep(200_000_000)
        out.copy_(layer(x))
    return out
"""
    report = run(LINEAR, "self.linear(x)", "aside(x, self.linear)", top)
    assert report.verdict == "reject", complaints(report)
    report = run(LINEAR, "torch.relu(self.linear(x))", "aside(x, self.linear)", top)
    assert "late-work" in failed(report) or "values/given" in failed(report)


def test_memory_that_nobody_wrote_is_not_an_answer(run: Run) -> None:
    new = "torch.empty(x.shape[0], 192, device=x.device)"
    assert "values/given" in failed(run(LINEAR, "torch.relu(self.linear(x))", new))


@pytest.mark.skipif(find_sanitizer() is None, reason="no compute-sanitizer")
@pytest.mark.parametrize(
    ("bound", "outcome"), [("", "pass"), ("+ 24", "fail")], ids=["in bounds", "out of bounds"]
)
def test_compute_sanitizer_sees_an_off_by_some_bound(run: Run, bound: str, outcome: str) -> None:
    kernel = KERNEL.replace("BOUND", bound)
    new = "(2.0 * x if torch.is_grad_enabled() or not x.numel() else scaled(x))"
    report = run(SCALE, "2.0 * x", new, kernel, sanitize=True)
    memcheck = [c.outcome for c in report.checks if c.name == "sanitize/memcheck"]
    assert memcheck == [outcome], complaints(report)
