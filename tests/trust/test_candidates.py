"""Every file under tests/candidates gets the verdict, and the failing check, that it declares.

A candidate's first line reads `expect: accept.` or `expect: reject CHECK.`, where CHECK is the
beginning of the name of the check that must fail, or several such beginnings joined by `|`.
"""

import re
from pathlib import Path

import pytest

from fusewright.run.verify import Nursery, VerifyReport, verify

ROOT = Path(__file__).resolve().parents[1] / "candidates"
FILES = sorted(path for path in ROOT.glob("*/*.py") if path.name != "reference.py")
EXPECTATION = re.compile(r'"""expect: (accept|reject)(?: ([^.]+))?\.\s')


def check(path: Path, nursery: Nursery) -> VerifyReport:
    # A hanging candidate shall not hold up the suite; everything else answers much sooner.
    limit = 3.0 if "hang" in path.name else 120.0
    return verify(
        path.parent / "reference.py", path, device="cpu", timeout_s=limit, nursery=nursery
    )


def summary(report: VerifyReport) -> str:
    lines = [f"{c.name}: {c.outcome}: {c.detail}" for c in report.checks if c.outcome != "pass"]
    return "\n".join([report.verdict, *lines])


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_candidate_gets_its_verdict(path: Path, nursery: Nursery) -> None:
    match = EXPECTATION.match(path.read_text(encoding="utf-8"))
    assert match, f"{path}: the first line does not declare what to expect"
    report = check(path, nursery)
    assert report.verdict == match[1], summary(report)
    if match[1] == "reject":
        failed = [c.name for c in report.failed()]
        wanted = tuple(match[2].split("|"))
        assert any(name.startswith(wanted) for name in failed), summary(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.stem.startswith("honest")],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_honest_candidate_is_accepted_over_fifty_seeds(path: Path, nursery: Nursery) -> None:
    report = verify(path.parent / "reference.py", path, device="cpu", seeds=50, nursery=nursery)
    assert report.verdict == "accept", summary(report)
    assert sum(check.name.startswith("values/given-") for check in report.checks) == 49


def rows_of(path: Path) -> set[int]:
    """The rows of the catalogue that a candidate's docstring names."""
    text = path.read_text(encoding="utf-8").split('"""')[1]
    return {
        int(n)
        for words in re.findall(r"Rows? (\d+(?: and \d+)*)", text)
        for n in words.split(" and ")
    }


def catalogue() -> dict[int, str]:
    """Row of the table in docs/trust.md -> its cell of what shows it."""
    text = (ROOT.parents[1] / "docs" / "trust.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    return {int(row): shown for row, shown in found}


def test_the_catalogue_names_what_shows_each_of_its_rows() -> None:
    table = catalogue()
    assert sorted(table) == list(range(1, 38))
    for row, shown in table.items():
        names = re.findall(r"`([a-z0-9_/.]+)`", shown)
        assert names or row == 19, f"row {row} is shown by nothing"
        for name in names:
            test = ROOT.parents[1] / name
            assert test.is_file() or row in rows_of(ROOT / f"{name}.py"), f"row {row}: {name}"
    for path in FILES:
        for row in rows_of(path):
            assert f"`{path.parent.name}/{path.stem}`" in table[row], f"row {row}: {path}"


def test_there_are_enough_candidates_of_both_kinds() -> None:
    honest = sum(path.stem.startswith("honest") for path in FILES)
    assert honest >= 12 and len(FILES) - honest >= 28
