"""The same input gives the same bytes: in any process, folder, and under any hash seed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ("gemm_divide_sum_scaling", "attention_block", "batch_norm_train", "dropout_mlp")
TARGETS = ("cpu", "cuda:sm_90a")
# Run in a process of its own: every example for every target, by the command line.
SCRIPT = """
import sys
from fusewright.cli import main

out, examples, *names = sys.argv[1:]
for name in names:
    stem, target = name.split("@")
    words = [f"{examples}/{stem}.py", "-o", f"{out}/{name}.py", "--target", target, "--no-check"]
    if code := main(["optimize", *words]):
        sys.exit(code)
"""


def emit(folder: Path, cwd: Path, examples: str, seed: str) -> subprocess.Popen[str]:
    folder.mkdir()
    names = [f"{e}@{t}" for e in EXAMPLES for t in TARGETS]
    variables = {
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": str(ROOT / "src"),
        "FUSEWRIGHT_EXAMPLE_SCALE": "small",
        "OMP_NUM_THREADS": seed,
    }
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), examples, *names],
        cwd=cwd,
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders of the same files, by two processes that differ in what must not count."""
    base = tmp_path_factory.mktemp("twice")
    first, second = base / "first", base / "second"
    running = [
        emit(first, ROOT, "examples", "1"),
        emit(second, base, str(ROOT / "examples"), "2"),
    ]
    for process in running:
        _, told = process.communicate(timeout=240)
        assert process.returncode == 0, told
    return first, second


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("example", EXAMPLES)
def test_two_processes_write_the_same_bytes(twice: tuple[Path, Path], example: str, target: str):
    first, second = ((folder / f"{example}@{target}.py").read_bytes() for folder in twice)
    assert first == second
    assert b"class ModelNew" in first and str(ROOT).encode() not in first
