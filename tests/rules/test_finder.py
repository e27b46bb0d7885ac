"""The missed-rewrite finder: finds nothing with all rules, and finds much with few."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "find_missed.py"


@pytest.fixture(scope="module")
def finder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fusewright_find_missed", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_rules_reach_the_optimum(finder: ModuleType) -> None:
    assert finder.main(["--programs", "100"]) == 0


def test_exact_rules_alone_do_not(finder: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert finder.main(["--programs", "20", "--numerics", "exact"]) == 1
    assert "operations, " in capsys.readouterr().out
