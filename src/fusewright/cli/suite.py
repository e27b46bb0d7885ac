"""The command `suite`: which process does what for many problems. This process needs no torch.

Every step runs in a process forked from one that has imported everything once; `suite_worker` lists
what such a process can be told. Each GPU has processes that see it alone.
"""

import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from fusewright.run.bench import bench as run_bench
from fusewright.run.suite import Steps
from fusewright.run.suite import suite as run_suite
from fusewright.run.suite_table import markdown_table
from fusewright.run.verify import verify as run_verify
from fusewright.run.verify.isolate import Nursery, Worker, WorkerFailure, verifier_variables

from . import console
from .measuring import names

WORKER = "fusewright.cli.suite_worker"
# A single call or build of a verification may take this long on a busy machine, whatever `--limit`.
LEAST_STEP_S = 120.0


def suite(chosen: Namespace) -> int:
    """Exit code 1 when a problem failed or was rejected."""
    names_given = ("target", "precision", "numerics", "binding", "tune", "tuned")
    given = {k: getattr(chosen, k) for k in names_given}
    options = {name: value for name, value in given.items() if value is not None}
    with _crew(chosen, options) as crew:
        found = run_suite(
            chosen.paths,
            crew.steps(),
            chosen.out,
            chosen.jobs,
            options=options,
            timing=[names(chosen.baselines), chosen.rounds, chosen.seconds],
            console=Console(stderr=True),
        )
    if chosen.json:
        console.show_json(found.to_json())
    else:
        console.show(Markdown(markdown_table(found.results, found.summary)))
    return int(any(r["status"] != "ok" or r["verdict"] == "reject" for r in found.results))


@dataclass(slots=True)
class _Crew:
    """The processes of one run. `nests[k]` sees the device `devices[k]` alone; `nest` sees all."""

    chosen: Namespace
    options: Mapping[str, Any]
    kind: str
    nest: Nursery
    devices: list[dict[str, Any]]
    nests: list[Nursery]
    racer: Worker | None = None

    def steps(self) -> Steps:
        chosen = self.chosen
        compiles = any(name != "eager" for name in names(chosen.baselines))
        warms = self.kind == "cuda" and compiles and not chosen.no_bench
        return Steps(
            self.optimize,
            verify=None if chosen.no_verify else self.verify,
            measure=None if chosen.no_bench else self.measure,
            build=self.build,
            warm=self.warm if warms else None,
            stop=self.stop,
            rooms=[device["bytes"] for device in self.devices],
        )

    def optimize(self, problem: Path, new: Path) -> dict[str, Any]:
        return self._ask(self.nest, "optimize", problem=str(problem), new=str(new))

    def build(self, problem: Path, new: Path) -> dict[str, Any]:
        return self._ask(self.nest, "build", new=str(new))

    def verify(self, problem: Path, new: Path, place: int) -> dict[str, Any]:
        limit = self.chosen.limit
        return run_verify(
            problem,
            new,
            device=self.kind,
            precision=self.chosen.precision or "match",
            timeout_s=max(LEAST_STEP_S, limit),
            limit_s=limit,
            nursery=self.nests[place],
        ).to_json()

    def warm(self, problem: Path, new: Path, place: int) -> dict[str, Any]:
        spec = {"reference": str(problem), "device": self.kind, "seed": 0}
        spec["baselines"] = names(self.chosen.baselines)
        try:
            return self._ask(self.nests[place], "warm", spec=spec)
        except WorkerFailure as failure:  # the benchmark compiles again, and tells what fails
            return {"failed": str(failure)}

    def measure(self, problem: Path, new: Path, explained: Mapping[str, Any]) -> dict[str, Any]:
        """On a GPU one process times problem after problem, until one fails or is found out."""
        timed = partial(
            run_bench,
            problem,
            new,
            device=self.kind,
            baselines=names(self.chosen.baselines),
            rounds=self.chosen.rounds,
            seconds=self.chosen.seconds,
            floor=explained,
            timeout=self.chosen.limit,
        )
        if self.kind == "cpu":
            return timed().to_json()
        worker, self.racer = self.racer or self.nests[0].spawn("bench"), None
        try:
            limit = self.chosen.limit
            found = timed(race=lambda spec: worker.call("race", limit, spec=spec), imports=False)
        except BaseException:
            worker.close()
            raise
        if found.rejected:
            worker.close()
        else:
            self.racer = worker
        return found.to_json()

    def stop(self) -> None:
        for nest in dict.fromkeys([self.nest, *self.nests]):
            nest.close()

    def _ask(self, nest: Nursery, command: str, **arguments: Any) -> dict[str, Any]:
        """The answer of a process of its own."""
        if command == "optimize":
            arguments["options"] = dict(self.options)
        worker = nest.spawn(command)
        try:
            return worker.call(command, self.chosen.limit, **arguments)
        finally:
            worker.close()


@contextmanager
def _crew(chosen: Namespace, options: Mapping[str, Any]) -> Iterator[_Crew]:
    """All processes that are forked from, running. What they build is kept for the next run."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fusewright-suite-")))
        caches = {"TORCH_EXTENSIONS_DIR": "extensions", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
        kept = {name: (chosen.out / path).resolve() for name, path in caches.items()}
        # Problems are compiled side by side already: each process compiles in itself.
        base = verifier_variables(folder) | {"TORCHINDUCTOR_COMPILE_THREADS": 1} | kept

        def nursery(name: str, **more: Any) -> Nursery:
            (folder / name).mkdir()
            return stack.enter_context(Nursery(folder / name, base | more, WORKER))

        nest = nursery("all")
        asked = nest.spawn("devices")
        devices = asked.call("devices", chosen.limit, kind=(chosen.target or "auto").split(":")[0])
        asked.close()
        visible = [device["visible"] for device in devices]
        nests = [
            nest if name is None else nursery(str(k), CUDA_VISIBLE_DEVICES=name)
            for k, name in enumerate(visible)
        ]
        kind = "cpu" if visible == [None] else "cuda"
        yield _Crew(chosen, options, kind, nest, devices, nests)
