"""`make fuzz`: many random models, each checked stage by stage; failures shrunk and written.

    python -m fuzz.fuzz --models 200 --seed 1 --builds 40 --out DIR

Prints one line per failure and a summary as JSON; exit status 1 when there was a failure.
"""

import argparse
import collections
import gc
import json
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .agree import STRIDES, Disagreement, Unusable, disagreement
from .draft import Draft, side_by_side
from .draw import drafts
from .shrink import shrunk

REGRESSIONS = Path(__file__).parent / "regressions"
# Models in one file: most of the time of a compilation does not depend on the size of the model.
TOGETHER = 10


@dataclass(slots=True)
class Tally:
    """Counts of one run (mutable)."""

    models: int = 0
    built: int = 0
    lines: int = 0
    strides: int = 0
    raised: list[str] = field(default_factory=list)
    unusable: collections.Counter = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)

    def count(self, drafts: list[Draft], build: bool) -> None:
        self.models += len(drafts)
        self.built += len(drafts) * build
        self.lines += sum(len(d.statements) for d in drafts)


def checked(draft: Draft, folder: Path, build: bool) -> Disagreement | None:
    """`disagreement` of the draft written as a file."""
    path = folder / "model.py"
    path.write_text(draft.source())
    try:
        return disagreement(path, build)
    finally:
        for name in list(sys.modules):
            if name.startswith(("fusewright_problem", "fusewright_optimized")):
                del sys.modules[name]


def same_failure(draft: Draft, folder: Path, build: bool, wanted: Disagreement) -> bool:
    try:
        found = checked(draft, folder, build)
    except Exception:  # a draft that shrinking broke is no failure of the same kind
        return False
    return found is not None and kind(found) == kind(wanted)


def kind(found: Disagreement) -> str:
    """Stage, and the exception's type where there is one."""
    name = found.detail.split(":")[0]
    return f"{found.stage} {name if name.isidentifier() else 'values'}"


def written(draft: Draft, found: Disagreement, out: Path, name: str) -> Path:
    """The failing model as a problem file whose first lines say what happened."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.py"
    comment = textwrap.fill(f"Found by make fuzz. {str(found)[:400]}", 96)
    path.write_text(draft.source(comment=comment))
    return path


def run(models: int, start: int, builds: int, out: Path, seconds: float) -> Tally:
    """Check `models` drafts (fewer when `seconds` are over), the first `builds` of them built."""
    tally, end = Tally(), time.monotonic() + seconds
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))

    def several(drawn: list[Draft]) -> None:
        if time.monotonic() > end or tally.models >= models:
            return
        build = tally.built < builds
        _check_several(tally, drawn, folder, build, out, f"seed{start}")
        print(f"{tally.models} models, {len(tally.failures)} failures", file=sys.stderr)
        gc.collect()

    while tally.models < models and time.monotonic() < end:
        _draw(several, 1 + (models - tally.models) // TOGETHER, start)
        start += 1_000_003
    return tally


def _check_several(
    tally: Tally, drawn: list[Draft], folder: Path, build: bool, out: Path, name: str
) -> None:
    """All in one file, and each alone where that one fails."""
    together = side_by_side(drawn)
    try:
        found = checked(together, folder, build)
    except Unusable:
        found = Disagreement("together", "unusable")
    if found is None or found.stage == STRIDES:
        tally.strides += found is not None
        tally.count(drawn, build)
        return
    before = len(tally.failures)
    for draft in drawn:
        _check_one(tally, draft, folder, build, out, f"{name}_{tally.models}")
    if len(tally.failures) == before and found.stage != "together":
        _report(tally, together, found, folder, build, out, f"{name}_{tally.models}_together")


def _check_one(tally: Tally, draft: Draft, folder: Path, build: bool, out: Path, name: str) -> None:
    try:
        found = checked(draft, folder, build)
    except Unusable as reason:
        tally.unusable[str(reason)[:100]] += 1
        return
    tally.count([draft], build)
    tally.strides += found is not None and found.stage == STRIDES
    if found is not None and found.stage != STRIDES:
        _report(tally, draft, found, folder, build, out, name)


def _report(
    tally: Tally, draft: Draft, found: Disagreement, folder: Path, build: bool, out: Path, name: str
) -> None:
    print(f"FAILURE {name}: {str(found)[:300]}", flush=True)
    raised = str(found).rpartition("(")[2] if not kind(found).endswith("values") else name
    if raised in tally.raised:
        tally.failures.append(f"{name}: raised where another model did")
        return
    tally.raised.append(raised)
    small = shrunk(draft, lambda d: same_failure(d, folder, build, found))
    again = checked(small, folder, build) or found
    path = written(small, again, out, name)
    tally.failures.append(f"{path.name}: {again}")


def _draw(check: Callable[[list[Draft]], None], count: int, start: int) -> None:
    once = settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=False,
    )
    several = st.lists(drafts(), min_size=TOGETHER, max_size=TOGETHER)
    seed(start)(once(given(several)(check)))()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--builds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--out", type=Path, default=REGRESSIONS)
    given = parser.parse_args()
    tally = run(given.models, given.seed, given.builds, given.out, given.seconds)
    print(json.dumps(summary(tally), indent=1))
    return bool(tally.failures)


def summary(tally: Tally) -> dict[str, object]:
    return {
        "models": tally.models,
        "built": tally.built,
        "lines": tally.lines,
        "other strides than eager's": tally.strides,
        "unusable": dict(tally.unusable.most_common(12)),
        "failures": tally.failures,
    }


if __name__ == "__main__":
    sys.exit(main())
