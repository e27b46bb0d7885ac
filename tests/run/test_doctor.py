"""The doctor names what is there and what to install."""

import io
import json
from pathlib import Path

from rich.console import Console

from fusewright.run.doctor import doctor, render_doctor


def test_this_machine_is_examined(tmp_path: Path):
    report = doctor(cache_dir=tmp_path)
    found = {check["name"]: check for check in json.loads(json.dumps(report.to_json()))["checks"]}
    for name in ("Python", "PyTorch", "C++ compiler", "OpenMP", "build cache"):
        assert found[name]["state"] == "ok", found[name]
    assert {"CUDA device", "nvcc", "NVRTC", "ninja", "setuptools"} <= set(found)


def test_what_is_missing_comes_with_a_remedy(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    report = doctor(cxx="no-such-compiler", nvcc="no-such-nvcc", cache_dir=blocked)
    found = {check.name: check for check in report.checks}
    for name in ("C++ compiler", "OpenMP", "build cache"):
        assert found[name].state == "missing" and found[name].remedy
    assert found["nvcc"].state == "optional" and "CUDA toolkit" in found["nvcc"].remedy
    assert not report.healthy
    console = Console(file=io.StringIO(), width=160)
    console.print(render_doctor(report))
    assert "apt install g++" in console.file.getvalue()  # type: ignore[attr-defined]
