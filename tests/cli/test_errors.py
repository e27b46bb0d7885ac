"""Bad input gets a clear error with its exit code, and nothing is lost."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import GOOD, HEAD, Run

INIT = "        super().__init__()\n"
MODEL = f"class Model(nn.Module):\n    def __init__(self):\n{INIT}"
FORWARD = "\n    def forward(self, x):\n        return x + 1\n"
INPUTS = "\n\ndef get_inputs():\n    return [torch.rand(4)]\n"
BRANCH = (
    "\n    def forward(self, x):\n"
    "        y = x * 2\n"
    "        if y.sum() > 0:\n"
    "            return y\n"
    "        return x\n"
)
FAILING = "\n    def forward(self, x):\n        return x @ torch.ones(5, 7)\n"

# (text of the problem file, exit code, what the message must say)
BAD = {
    "not_python": ("class Model(:\n", 2, ["bad.py:1", "not Python"]),
    "raises": (HEAD + "raise RuntimeError('stop here')\n", 2, ["bad.py:5", "stop here"]),
    "no_model": (HEAD + INPUTS, 2, ["no class `Model`", "get_inputs"]),
    "no_inputs": (HEAD + MODEL + FORWARD, 2, ["no function `get_inputs`"]),
    "constructor": (
        HEAD + MODEL + "        raise ValueError('odd width')\n" + FORWARD + INPUTS,
        2,
        ["bad.py:8", "the constructor of Model raised ValueError: odd width"],
    ),
    "get_inputs": (
        HEAD + MODEL + FORWARD + "\n\ndef get_inputs():\n    return [1 / 0]\n",
        2,
        ["bad.py:14", "get_inputs raised ZeroDivisionError"],
    ),
    "forward": (HEAD + MODEL + FAILING + INPUTS, 3, ["bad.py:10", "torch.ones(5, 7)"]),
    "branch": (
        HEAD + MODEL + BRANCH + INPUTS,
        3,
        ["bad.py:11", "if y.sum() > 0:", "depends on the values of a tensor"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_problem_names_the_line_and_keeps_the_output(run: Run, tmp_path: Path, name: str):
    text, code, said = BAD[name]
    bad, out = tmp_path / "bad.py", tmp_path / "new.py"
    bad.write_text(text)
    out.write_text("what was there before")
    outcome = run("optimize", bad, "-o", out, "--target", "cpu")
    assert outcome.code == code, outcome.err
    assert outcome.err.splitlines()[-1].startswith("fusewright: ")
    assert all(part in outcome.err for part in said), outcome.err
    assert "Traceback" not in outcome.err
    assert out.read_text() == "what was there before"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["bad.py", "new.py"]


def test_a_missing_problem(run: Run, tmp_path: Path):
    outcome = run("explain", tmp_path / "nothing.py")
    assert outcome.code == 2
    assert "nothing.py: cannot be read: No such file" in outcome.err


def test_an_error_is_one_object_for_programs(run: Run, tmp_path: Path):
    outcome = run("optimize", tmp_path / "nothing.py", "--json")
    assert outcome.code == 2
    assert list(outcome.json) == ["error"] and "nothing.py" in outcome.json["error"]


def test_a_verifier_that_cannot_run_never_accepts(run: Run, tmp_path: Path):
    outcome = run("verify", tmp_path / "a.py", tmp_path / "b.py", "--json")
    assert outcome.code == 2
    assert outcome.json["verdict"] == "inconclusive"
    assert "a.py" in outcome.json["checks"][0]["detail"]


@pytest.mark.parametrize(
    "words",
    [
        ["explain", "x.py", "--target", "tpu"],
        ["explain", "x.py", "--stage", "nowhere"],
        ["verify", "x.py"],
        ["translate", "x.py"],
        [],
    ],
)
def test_bad_usage(run: Run, words: list[str]):
    outcome = run(*words)
    assert outcome.code == 2
    assert "usage: fusewright" in outcome.err and not outcome.out


def test_an_unknown_target_is_answered_with_the_known_ones(run: Run):
    assert "'cuda:sm_90a'" in run("explain", "x.py", "--target", "tpu").err


def test_a_target_from_the_environment(run: Run, problem: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FUSEWRIGHT_TARGET", "tpu")
    outcome = run("explain", problem)
    assert outcome.code == 2 and "FUSEWRIGHT_TARGET" in outcome.err


# ------------------------------------------------------------------------------------------- output


def test_the_output_may_not_be_the_problem(run: Run, problem: Path, tmp_path: Path):
    link = tmp_path / "link.py"
    link.symlink_to(problem)
    for out in (problem, link):
        outcome = run("optimize", problem, "-o", out, "--target", "cpu", "--no-check")
        assert outcome.code == 2 and "would overwrite the problem" in outcome.err
    assert problem.read_text() == GOOD


@pytest.mark.parametrize("where", ["absent/new.py", "small.py/new.py", "."])
def test_an_output_that_cannot_be_written(run: Run, problem: Path, tmp_path: Path, where: str):
    outcome = run("optimize", problem, "-o", tmp_path / where, "--target", "cpu", "--no-check")
    assert outcome.code == 2
    assert str(tmp_path / where) in outcome.err and "Traceback" not in outcome.err
    assert "capturing" not in outcome.err  # nobody waits for a compile first
    assert list(tmp_path.glob("**/*")) == [problem]


def test_a_default_output_spares_foreign_files(
    run: Run, problem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "small_fused.py"
    mine.write_text("# by hand\n")
    refused = run("optimize", problem, "--target", "cpu", "--no-check")
    assert refused.code == 2 and "name it with -o" in refused.err
    assert mine.read_text() == "# by hand\n"
    mine.unlink()
    for _ in range(2):  # what fusewright wrote it may replace
        assert run("optimize", problem, "--target", "cpu", "--no-check").code == 0
    assert "ModelNew" in mine.read_text()


# ------------------------------------------------------------------------------------------ machine


def test_without_a_compiler_the_file_is_still_written(
    run: Run, problem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    out = tmp_path / "new.py"
    outcome = run("optimize", problem, "-o", out, "--target", "cpu")
    assert outcome.code == 2
    assert "no C++ compiler was found; install g++" in outcome.err
    assert "class ModelNew" in out.read_text()


def test_a_failing_compiler_is_shown_and_the_source_kept(
    run: Run, problem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, compiler = tmp_path / "bin", shutil.which("c++")
    folder.mkdir()
    for name in ("g++", "c++"):
        script = folder / name
        script.write_text(
            '#!/bin/sh\ncase "$*" in *--version*|*-dumpversion*|*-dumpfullversion*|*-v*) '
            f'exec {compiler} "$@";; esac\n'
            "echo 'kernel.cpp:7: the compiler is out of sorts' >&2\nexit 1\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CXX", str(folder / "g++"))
    out = tmp_path / "new.py"
    outcome = run("optimize", problem, "-o", out, "--target", "cpu")
    assert outcome.code == 2, outcome.err
    assert "its kernels do not compile here" in outcome.err
    assert "the compiler is out of sorts" in outcome.err
    assert "reject" not in outcome.out
    assert "CPP_SOURCE" in out.read_text()


def test_a_cuda_file_can_be_written_without_a_gpu(run: Run, problem: Path, tmp_path: Path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    out = tmp_path / "new.py"
    outcome = run("optimize", problem, "-o", out, "--target", "cuda:sm_90a")
    assert outcome.code == 0, outcome.err
    assert "not checked: the file is for cuda:sm_90a" in outcome.out.replace("\n", " ")
    assert "CUDA_SOURCE" in out.read_text()


# ------------------------------------------------------------------------------------- interruption

# Stops in the middle of writing: half of the text is in the temporary file, nothing is renamed yet.
SLOW = """
import os, signal, sys, time

# A job in the background of a shell that is not interactive inherits that interrupts are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def replace(source, target):
    with open(source, "r+b") as file:
        file.truncate(os.path.getsize(source) // 2)
    print("writing", flush=True)
    time.sleep(60)

os.replace = replace
from fusewright.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_what_was_there(problem: Path, tmp_path: Path, number: int):
    out = tmp_path / "new.py"
    out.write_text("what was there before")
    words = ["optimize", str(problem), "-o", str(out), "--target", "cpu", "--no-check"]
    source = Path(__file__).parents[2] / "src"
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "writing\n"
        time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(30) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        told = process.stderr.read()
    assert out.read_text() == "what was there before"
    if number == signal.SIGINT:
        assert told.splitlines()[-1] == "fusewright: interrupted"
        assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {"small.py", "new.py"}
