"""The benchmark on a CUDA device: events, the host clock, CUDA graphs, baselines. Needs a GPU."""

from pathlib import Path
from typing import Any

import pytest

from fusewright.run.bench import bench
from fusewright.run.bench.report import BenchReport
from run import bench_candidates as texts

pytestmark = pytest.mark.gpu

LARGE = texts.REFERENCE.replace("[512]", "[4096]").replace("randn(256, 512)", "randn(2048, 4096)")

# All work on a stream that the timed stream does not wait for.
SIDE_STREAM = """
class ModelNew(Model):
    def __init__(self, size):
        super().__init__(size)
        self.stream = torch.cuda.Stream()
    def forward(self, x):
        with torch.cuda.stream(self.stream):
            return super().forward(x)
"""
FASTER = texts.FASTER.removeprefix(texts.REFERENCE)
WORKS_ON_CPU = """
class ModelNew(Model):
    def forward(self, x):
        host = torch.nn.functional.linear(x.cpu(), self.linear.weight.cpu(), self.linear.bias.cpu())
        return host.sum(dim=1, keepdim=True).cuda()
"""


def run(folder: Path, candidate: str, **options: Any) -> BenchReport:
    reference, new = folder / "reference.py", folder / "candidate.py"
    reference.write_text(LARGE)
    new.write_text(LARGE + candidate)
    chosen = {"baselines": ("eager",), "imports": False, "seconds": 4.0, "device": "cuda"}
    return bench(reference, new, **(chosen | options))


def rejections(report: BenchReport) -> set[str]:
    return {finding.name for finding in report.findings if finding.severity == "reject"}


def test_equal_file_is_indistinguishable(tmp_path: Path):
    report = run(tmp_path, "")
    assert report.verdict == "indistinguishable" and report.findings == ()
    assert {s.mode for s in report.speedups} == {"cold", "latency"}
    assert report.environment["capability"] and report.sensors["samples"] > 0


def test_less_work_is_faster_and_all_baselines_are_measured(tmp_path: Path):
    report = run(tmp_path, FASTER, baselines=("eager", "compile", "compile-max"))
    assert report.verdict == "faster" and rejections(report) == set()
    expected = ("eager", "compile", "compile-max", "compile-max-no-graphs")
    assert all(report.time_ms(name) is not None for name in expected)


def test_work_on_a_side_stream_is_found_out(tmp_path: Path):
    report = run(tmp_path, SIDE_STREAM)
    assert "clock-mismatch" in rejections(report) and report.verdict == "invalid"


def test_work_on_the_host_is_timed(tmp_path: Path):
    report = run(tmp_path, WORKS_ON_CPU, rounds=6)
    assert report.verdict == "slower"
