"""tools/size.py counts what it says and fails only on a hard limit."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "size.py"


@pytest.fixture(scope="module")
def size() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fusewright_size_tool", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(root: Path, text: str) -> Path:
    path = root / "src" / "package" / "part" / "module.py"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_counts_by_kind(size: ModuleType, tmp_path: Path) -> None:
    text = (
        '"""Doc\nof two lines."""\n\n# a comment\ndef f():\n    """Doc."""\n    return 1  # code\n'
    )
    measured = size.measure(write(tmp_path, text))
    assert (measured.total, measured.code, measured.comment, measured.doc) == (7, 2, 1, 3)
    assert [(f.name, f.length) for f in measured.functions] == [("f", 2)]


@pytest.mark.parametrize(("lines", "code"), [(99, 0), (100, 1)])
def test_function_limit(
    size: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: int, code: int
) -> None:
    write(tmp_path, "def f():\n" + "    x = 1\n" * lines)
    assert size.main([str(tmp_path)]) == code
    assert "f has" in capsys.readouterr().out


@pytest.mark.parametrize(("lines", "code"), [(600, 0), (601, 1)])
def test_file_limit(size: ModuleType, tmp_path: Path, lines: int, code: int) -> None:
    write(tmp_path, "x = 1\n" * lines)
    assert size.main([str(tmp_path)]) == code


def test_percentile_is_nearest_rank(size: ModuleType) -> None:
    assert size.percentile(list(range(1, 101)), 0.95) == 95
    assert size.percentile([7], 0.95) == 7
