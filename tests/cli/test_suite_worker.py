"""The suite's processes: what they are told is done, one after another in the same process too."""

from pathlib import Path

import pytest

from fusewright.cli import suite_worker
from fusewright.run.bench import bench
from fusewright.run.verify.isolate import Nursery, WorkerRaised, verifier_variables

PROBLEM = """
import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(16))

    def forward(self, x):
        return torch.tanh(x * self.weight).sum(1)


def get_inputs():
    return [torch.randn(8, 16)]


def get_init_inputs():
    return []
"""


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("nursery")
    variables = verifier_variables(folder) | {"TORCHINDUCTOR_CACHE_DIR": folder / "inductor"}
    with Nursery(folder, variables, suite_worker.__name__) as started:
        yield started


def test_a_problem_is_compiled_built_and_timed_twice_in_one_process(
    nursery: Nursery, tmp_path: Path
):
    problem, new = tmp_path / "p.py", tmp_path / "n.py"
    problem.write_text(PROBLEM)
    worker = nursery.spawn("all")
    options = {"target": "cpu"}
    told = worker.call("optimize", 120, problem=str(problem), new=str(new), options=options)
    assert told["memory"] == {"inputs": 512, "state": 64, "outputs": 32, "largest": 512}
    assert worker.call("build", 120, new=str(new))["seconds"] > 0
    assert list((nursery.folder / "extensions").rglob("*.so"))
    for _ in range(2):
        report = bench(
            problem,
            new,
            device="cpu",
            baselines=["eager"],
            rounds=5,
            imports=False,
            race=lambda spec: worker.call("race", 120, spec=spec),
        )
        assert not report.rejected and report.time_ms("candidate")
    worker.close()


def test_a_baseline_that_cannot_compile_is_told(nursery: Nursery, tmp_path: Path):
    problem = tmp_path / "p.py"
    problem.write_text(PROBLEM)
    spec = {"reference": str(problem), "device": "cpu", "seed": 0, "baselines": ["eager"]}
    worker = nursery.spawn("warm")
    assert worker.call("warm", 120, spec=spec) == {}
    with pytest.raises(WorkerRaised, match="only cpu and cuda"):
        worker.call("warm", 120, spec=spec | {"device": "meta"})
    worker.close()


def test_the_processor_is_one_device(nursery: Nursery):
    worker = nursery.spawn("devices")
    (found,) = worker.call("devices", 60, kind="cpu")
    assert found["name"] == "cpu" and found["bytes"] > 1 << 20 and found["visible"] is None
    worker.close()
