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
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from .agree import Disagreement, Unusable, disagreement
from .draft import Draft
from .draw import drafts
from .shrink import shrunk

REGRESSIONS = Path(__file__).parent / "regressions"


@dataclass(slots=True)
class Tally:
    """Counts of one run (mutable)."""

    models: int = 0
    built: int = 0
    lines: int = 0
    unusable: collections.Counter = field(default_factory=collections.Counter)
    failures: list[str] = field(default_factory=list)


def checked(draft: Draft, folder: Path, build: bool) -> Disagreement | None:
    """`disagreement` of the draft written as a file."""
    path = folder / "model.py"
    path.write_text(draft.source())
    try:
        return disagreement(path, build)
    finally:
        for name in [n for n in sys.modules if n.startswith(("fusewright_problem", "fusewright_opt"))]:
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
    path.write_text(draft.source(comment=f"Found by make fuzz. {str(found)[:400]}"))
    return path


def run(models: int, start: int, builds: int, out: Path, seconds: float) -> Tally:
    """Check `models` drafts (fewer when `seconds` are over), the first `builds` of them built."""
    tally, end = Tally(), time.monotonic() + seconds
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))

    def one(draft: Draft) -> None:
        if time.monotonic() > end or tally.models >= models:
            return
        build = tally.built < builds
        try:
            found = checked(draft, folder, build)
        except Unusable as reason:
            tally.unusable[str(reason)[:100]] += 1
            return
        tally.models += 1
        tally.built += build
        tally.lines += len(draft.statements)
        if found is not None:
            _report(tally, draft, found, folder, build, out, f"seed{start}_{tally.models}")
        if tally.models % 50 == 0:
            gc.collect()
            torch._dynamo.reset()
            print(f"{tally.models} models, {len(tally.failures)} failures", file=sys.stderr)

    while tally.models < models and time.monotonic() < end:
        _draw(one, min(models - tally.models, 500), start)
        start += 1_000_003
    return tally


def _report(tally, draft, found, folder, build, out, name) -> None:
    print(f"FAILURE {name}: {str(found)[:300]}", flush=True)
    small = shrunk(draft, lambda d: same_failure(d, folder, build, found))
    again = checked(small, folder, build) or found
    path = written(small, again, out, name)
    tally.failures.append(f"{path.name}: {again}")


def _draw(one, count: int, start: int) -> None:
    checks = list(HealthCheck)
    once = settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=checks,
        derandomize=False,
    )
    seed(start)(once(given(drafts())(one)))()


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
        "unusable": dict(tally.unusable.most_common(12)),
        "failures": tally.failures,
    }


if __name__ == "__main__":
    sys.exit(main())
