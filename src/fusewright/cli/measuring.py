"""The commands that judge files: `verify`, `bench`, `suite`, `doctor`. This process needs no torch.

Only `bench` compiles, to know the floor that the hardware sets for the reference's program.
"""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from fusewright.errors import FusewrightError
from fusewright.run.bench import bench as run_bench
from fusewright.run.bench_render import render_bench
from fusewright.run.doctor import doctor as run_doctor
from fusewright.run.doctor import render_doctor
from fusewright.run.suite import cli_step, markdown_table
from fusewright.run.suite import suite as run_suite
from fusewright.run.verify import render_verify
from fusewright.run.verify import verify as run_verify

from . import console

# A step of one problem of a suite that takes longer is that problem's failure.
SUITE_STEP_S = 600.0


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
            baselines=_names(chosen.baselines),
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


def suite(chosen: Namespace) -> int:
    """Exit code 1 when a problem failed or was rejected."""
    device = (chosen.target or "auto").partition(":")[0]
    baselines = _names(chosen.baselines)
    options = _passed_on(chosen)

    def judge(problem: Path, new: Path) -> dict[str, Any]:
        precision = chosen.precision or "match"
        return run_verify(problem, new, device=device, precision=precision).to_json()

    def measure(problem: Path, new: Path, explained: Mapping[str, Any]) -> dict[str, Any]:
        return run_bench(
            problem, new, device=device, baselines=baselines, floor=explained
        ).to_json()

    found = run_suite(
        chosen.paths,
        cli_step("optimize", ["--no-check", *options], SUITE_STEP_S),
        chosen.out,
        chosen.jobs,
        verify=judge,
        measure=None if chosen.no_bench else measure,
        options=[options, baselines],
        console=Console(stderr=True),
    )
    if chosen.json:
        console.show_json(found.to_json())
    else:
        console.show(Markdown(markdown_table(found)))
    return int(any(r["status"] != "ok" or r["verdict"] == "reject" for r in found.results))


def _passed_on(chosen: Namespace) -> list[str]:
    """The compilation options as words for another process's command line."""
    words = []
    for name in ("target", "precision", "numerics", "binding"):
        value = getattr(chosen, name)
        words += [f"--{name}", value] if value is not None else []
    return [*words, *(["--tune"] if chosen.tune else [])]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def doctor(chosen: Namespace) -> int:
    """Exit code 1 when something that is needed is missing."""
    found = run_doctor()
    if chosen.json:
        console.show_json(found.to_json())
    else:
        console.show(render_doctor(found))
    return int(not found.healthy)
