"""The commands that judge one file: `verify`, `bench`; and `doctor`. This process needs no torch.

Only `bench` compiles, to know the floor that the hardware sets for the reference's program.
"""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusewright.errors import FusewrightError
from fusewright.run.bench import bench as run_bench
from fusewright.run.bench.render import render_bench
from fusewright.run.doctor import doctor as run_doctor
from fusewright.run.doctor import render_doctor
from fusewright.run.verify import render_verify
from fusewright.run.verify import verify as run_verify

from . import console


def verify(chosen: Namespace) -> int:
    """Exit code 0 accept, 1 reject, 2 cannot tell."""
    with console.progress("verify") as tell:
        found = run_verify(
            chosen.reference,
            chosen.candidate,
            device=chosen.device,
            precision=chosen.precision,
            seeds=chosen.seeds,
            timeout_s=chosen.timeout,
            sanitize=chosen.sanitize,
            progress=tell,
        )
    if chosen.json:
        console.show_json(found.to_json())
    else:
        console.show(render_verify(found))
    return found.exit_code


def bench(chosen: Namespace) -> int:
    """Exit code 1 when a finding makes the figures void."""
    with console.progress("bench") as tell:
        tell("the reference's floor")
        floor = _floor(chosen.reference, chosen.device)
        found = run_bench(
            chosen.reference,
            chosen.candidate,
            device=chosen.device,
            baselines=names(chosen.baselines),
            rounds=chosen.rounds,
            seconds=chosen.seconds,
            floor=floor,
            seed=chosen.seed,
            progress=tell,
        )
    if chosen.json:
        console.show_json(found.to_json())
    else:
        console.show(render_bench(found))
    return int(found.rejected)


def _floor(reference: Path, device: str) -> Mapping[str, Any] | None:
    """What our own program for the reference would cost; None where it cannot be compiled."""
    from fusewright.api import explain  # imports torch, which a refused file must not wait for

    try:
        return explain(reference, target=device)
    except FusewrightError as error:
        console.note(f"no floor: {error}")
        return None


def names(text: str) -> list[str]:
    """The words of a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def doctor(chosen: Namespace) -> int:
    """Exit code 1 when something that is needed is missing."""
    found = run_doctor()
    if chosen.json:
        console.show_json(found.to_json())
    else:
        console.show(render_doctor(found))
    return int(not found.healthy)
