"""docs/algebra.md is what the rules say."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_page_is_current() -> None:
    path = ROOT / "tools" / "algebra_docs.py"
    spec = importlib.util.spec_from_file_location("fusewright_algebra_docs", path)
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = (ROOT / "docs" / "algebra.md").read_text(encoding="utf-8")
    assert page == tool.text(), "run `PYTHONPATH=src python tools/algebra_docs.py`"
