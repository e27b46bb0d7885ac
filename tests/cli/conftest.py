"""The command line run in this process, and small problem files to run it on."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fusewright.cli import main

HEAD = "import torch\nfrom torch import nn\n\n\n"
GOOD = (
    HEAD
    + """class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(24, width))

    def forward(self, x):
        x = torch.matmul(x, self.weight.T)
        x = x / 2
        return torch.sum(x, dim=1)


def get_inputs():
    return [torch.rand(8, 16)]


def get_init_inputs():
    return [16]
"""
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit code and both outputs."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Stdout as the one object it must be."""
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs one command line in this process; the arguments may be paths."""
    # main() may extend PATH; monkeypatch puts it back.
    monkeypatch.setenv("PATH", os.environ["PATH"])

    def call(*words: object) -> Outcome:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    """A problem file whose sum passes through its product."""
    path = tmp_path / "small.py"
    path.write_text(GOOD)
    return path
