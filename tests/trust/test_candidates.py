"""Every file under tests/candidates gets the verdict, and the failing check, that it declares.

A candidate's first line reads `expect: accept.` or `expect: reject CHECK.`, where CHECK is the
beginning of the name of the check that must fail, or several such beginnings joined by `|`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusewright.run.verify import Nursery, VerifyReport, verify

ROOT = Path(__file__).resolve().parents[1] / "candidates"
FILES = sorted(path for path in ROOT.glob("*/*.py") if path.name != "reference.py")
EXPECTATION = re.compile(r'"""expect: (accept|reject)(?: ([^.]+))?\.\s')


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery")) as started:
        yield started


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
