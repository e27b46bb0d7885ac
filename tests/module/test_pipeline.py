"""The pipeline: what it keeps, writes and refuses, and that the same input gives the same bytes."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fusewright.errors import CaptureError, OutputError
from fusewright.options import Options
from fusewright.pipeline import STAGES, compile_problem, write_output
from fusewright.problem import load_problem
from fusewright.report import report
from module.problems import HEAD, compiled, write_problem

BODY = """
class Model(nn.Module):
    '''try: pass'''
    def __init__(self, n):
        super().__init__()
        self.low_pass = nn.Linear(n, n)
    def forward(self, x):
        return torch.softmax(self.low_pass(x) / 2, dim=1).sort(1).values
def get_inputs(): return [torch.rand(64, 16)]
def get_init_inputs(): return [16]
"""
SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_problem(tmp_path_factory.mktemp("pipeline"), BODY)


@pytest.fixture(scope="module")
def compilation(path):
    return compiled(path)


def test_every_stage_is_logged_and_prints(compilation):
    entries = compilation.context.log.entries
    assert tuple(e.name for e in entries) == STAGES
    assert all(e.text() and e.seconds >= 0 for e in entries)
    assert "sum(k) x[i, k] * low_pass.weight[j, k]" in entries[0].text()
    assert compilation.context.log.entry("emitted").text() == compilation.module_text


def test_progress_names_the_stages(path):
    told = []
    compile_problem(load_problem(path, fake=True), Options(target="cpu"), progress=told.append)
    assert tuple(told) == STAGES


def test_debugging_prints_times_and_results_on_stderr(path, capsys):
    compile_problem(load_problem(path, fake=True), Options(target="cpu", debug=2))
    out, err = capsys.readouterr()
    assert out == ""
    assert "[fusewright] captured: " in err
    assert "class ModelNew(Model):" in err


def test_the_users_source_is_in_the_file_unchanged(compilation, path):
    assert path.read_text().rstrip("\n") in compilation.module_text


@pytest.mark.parametrize("target", ["cpu", "cuda:sm_90a", "cuda:sm_80", "cuda"])
@pytest.mark.parametrize("binding", ["raw", "torch"])
def test_emitted_files_obey_the_static_checkers(path, target, binding):
    c = compiled(path, target=target, binding=binding)
    compile(c.module_text, "emitted", "exec")
    ours = c.module_text.replace(path.read_text().rstrip("\n"), "")
    for forbidden in (r"\bpass\b", r"\btry\b", r"\bexcept\b", r"\bthreading\b", r"_make_subclass"):
        assert not re.search(forbidden, ours), forbidden
    assert "load_inline(" in ours
    if target != "cpu":
        assert "__global__" in ours
        assert "cudaStream_t" in ours
        assert "synchronize" not in ours


def test_emitted_python_fits_in_the_page(compilation, path):
    ours = compilation.module_text.replace(path.read_text().rstrip("\n"), "")
    assert [line for line in ours.splitlines() if len(line) > 100] == []


def test_no_path_of_this_machine_and_no_name_of_the_user(compilation, path):
    for word in (str(path.parent), str(Path.home()), str(SOURCE)):
        assert word not in compilation.module_text


def test_bytes_are_the_same_under_any_hash_seed_and_folder(path, compilation, tmp_path):
    other = write_problem(tmp_path, BODY)
    code = (
        "import sys\n"
        "from fusewright.options import Options\n"
        "from fusewright.pipeline import compile_problem\n"
        "from fusewright.problem import load_problem\n"
        "c = compile_problem(load_problem(sys.argv[1], fake=True), Options(target='cpu'))\n"
        "sys.stdout.write(c.module_text)\n"
    )
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(SOURCE)}
        done = subprocess.run(
            [sys.executable, "-c", code, str(other)],
            env=environment, capture_output=True, text=True, check=True, cwd=tmp_path,
        )  # fmt: skip
        assert done.stdout == compilation.module_text


def test_the_report_has_the_documented_keys(compilation):
    data = report(compilation)
    assert json.loads(json.dumps(data)) == data
    keys = {"problem", "target", "reference", "optimized", "rewrites", "why_not", "warnings"}
    assert set(data) == keys
    assert data["problem"] == "problem"
    assert set(data["optimized"]) == {
        "flops", "bytes", "kernels", "library_calls", "extern_calls",
    }  # fmt: skip
    (kernel,) = data["optimized"]["kernels"]
    assert set(kernel) == {"name", "anchor", "covers", "flops", "bytes", "tile"}
    # Softmax over 64 x 16 floats: one read and one write of each, and the bias.
    assert 2 * 64 * 16 * 4 <= kernel["bytes"] <= 2 * 64 * 16 * 4 + 16 * 4
    (product,) = data["optimized"]["library_calls"]
    assert product["flops"] == 2 * 64 * 16 * 16
    (call,) = data["optimized"]["extern_calls"]
    assert call["function"] == "torch.ops.aten.sort.default"
    assert data["reference"]["flops"] >= product["flops"]


# ---------------------------------------------------------------------------------------- output


def test_output_is_written_with_the_usual_permissions(compilation, tmp_path):
    written = write_output(compilation.module_text, tmp_path / "new.py", compilation.problem)
    assert written.read_text() == compilation.module_text
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(written.stat().st_mode) == 0o666 & ~mask
    assert [p.name for p in tmp_path.iterdir()] == ["new.py"]


def test_the_problem_file_is_never_overwritten(compilation, path, tmp_path):
    link = tmp_path / "link.py"
    link.symlink_to(path)
    for target in (path, link, path.parent / "." / path.name):
        with pytest.raises(OutputError, match="would overwrite the problem file"):
            write_output("text", target, compilation.problem)
    assert path.read_text().startswith(HEAD)


@pytest.mark.parametrize("name", ["missing/new.py", "."])
def test_output_that_cannot_be_written(compilation, tmp_path, name):
    with pytest.raises(OutputError, match=r"cannot be written|is a folder"):
        write_output("text", tmp_path / name, compilation.problem)


def test_an_interrupted_write_leaves_the_old_file(compilation, tmp_path, monkeypatch):
    target = tmp_path / "new.py"
    target.write_text("old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_output("new", target, compilation.problem)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["new.py"]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("def warnings(): return 1", "warnings"),
        ("import numpy as os", "os"),
        ("from math import exp as ctypes", "ctypes"),
        ("first, CPP_SOURCE = 1, 2", "CPP_SOURCE"),
        ("class ModelNew: ...", "ModelNew"),
        ("_held: int = 3", "_held"),
    ],
)
def test_names_the_file_needs_for_itself_are_refused(tmp_path, line, name):
    with pytest.raises(OutputError, match=f"binds the name {name}, which"):
        compiled(write_problem(tmp_path, f"{BODY}\n{line}\n"))


def test_the_same_imports_do_no_harm(tmp_path):
    lines = "import os, warnings\nimport torch.nn.functional\nfrom torch.utils import cpp_extension"
    assert compiled(write_problem(tmp_path, f"{BODY}\n{lines}\n")).module_text


def test_what_cannot_be_captured_is_an_error_that_names_the_line(tmp_path):
    body = BODY.replace("return torch", "if x.sum() > 0: x = x + 1\n        return torch")
    with pytest.raises(CaptureError, match=r"problem\.py:\d+"):
        compiled(write_problem(tmp_path, body))
