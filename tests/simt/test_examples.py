"""Emitted CUDA files, run whole on the CPU in several orders of threads, against eager."""

from pathlib import Path
from typing import get_args

import pytest

from fusewright.ir.kernel import AnchorName, Kernel
from module.problems import compiled, write_problem
from simt.shim import compare, run_of

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SEEDS = (0, 1)
# An example with each anchor. Products for tensor cores are no SIMT kernels.
ANCHORS = {
    "elementwise": "pointwise_chain",
    "row_reduce": "softmax_rows",
    "column_reduce": "sum_reduction",
    "row_scan": "gather_scan_sort",
}
# What no example has at small scale: planes for all multiprocessors with rows of odd length,
# running sums of columns, rows that fit no block, loads across the stores, overlapping windows,
# weighted ones.
OTHERS = {
    "transpose": """
class Model(nn.Module):
    def forward(self, x, y): return torch.tanh(x.permute(0, 2, 3, 1)) * y, x.mT + 1
def get_inputs(): return [torch.randn(3, 37, 5, 70), torch.randn(3, 5, 70, 37)]
""",
    "column_stream": """
class Model(nn.Module):
    def forward(self, x): return x.sum(1) * 0.5, x.amax(1)
def get_inputs(): return [torch.randn(120, 40, 129)]
""",
    "window": """
class Model(nn.Module):
    def forward(self, x): return F.max_pool2d(F.relu(x) + 1, (3, 4), 1, 1) * 2
def get_inputs(): return [torch.randn(2, 3, 37, 128)]
""",
    "stencil": """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(6, 6, (3, 4), (1, 2), 1, groups=6), nn.BatchNorm2d(6)
        self.eval()
    def forward(self, x): return F.relu(self.norm(self.conv(F.hardswish(x))))
def get_inputs(): return [torch.randn(2, 6, 37, 130)]
""",
    "row_cluster": """
class Model(nn.Module):
    def forward(self, x): return F.layer_norm(x, x.shape[1:])
def get_inputs(): return [torch.randn(132, 33001)]
""",
    "column_scan": """
class Model(nn.Module):
    def forward(self, x): return x.cumsum(0)
def get_inputs(): return [torch.randn(300, 40)]
""",
}


def anchors(c) -> set[str]:
    return {k.anchor for k in c.program.steps if isinstance(k, Kernel)}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path, monkeypatch):
    monkeypatch.setenv("FUSEWRIGHT_EXAMPLE_SCALE", "small")
    c = compiled(path, target="cuda:sm_90a")
    assert anchors(c) >= {anchor for anchor, name in ANCHORS.items() if name == path.stem}
    compare(run_of(c), SEEDS)


@pytest.mark.parametrize("anchor", OTHERS)
def test_other_anchor(anchor, tmp_path):
    c = compiled(write_problem(tmp_path, OTHERS[anchor]), target="cuda:sm_90a")
    assert anchors(c) == {anchor}
    compare(run_of(c), SEEDS)


def test_nothing_is_left_out():
    assert {*ANCHORS, *OTHERS, "contraction"} == set(get_args(AnchorName))
    assert set(ANCHORS.values()) <= {p.stem for p in EXAMPLES}
    assert len(EXAMPLES) >= 25
