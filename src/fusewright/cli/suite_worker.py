"""What the processes of a suite can be told: to compile a file, to build it, to judge and time it.

Served by the verifier's own worker loop, whose commands they obey too.
"""

from pathlib import Path
from typing import Any

from fusewright.ir import graph as g
from fusewright.options import Options
from fusewright.pipeline import Compilation, compile_problem, write_output
from fusewright.problem import load_problem
from fusewright.report import report
from fusewright.run.bench import subject as bench_subject
from fusewright.run.bench import worker as bench_worker
from fusewright.run.device import devices
from fusewright.run.verify import worker


def main(kind: str, descriptor: int) -> None:
    """A nursery or a worker on the socket `descriptor`."""
    worker.serve(kind, descriptor, _commands, _preload)


def _preload() -> None:
    worker.preload()
    bench_worker.preload()


def _commands() -> worker.Commands:
    return {
        **worker.verifier_commands(),
        "optimize": optimize,
        "build": build,
        "warm": bench_worker.warm,
        "race": bench_worker.race,
        "devices": devices,
    }


def optimize(problem: str, new: str, options: dict[str, Any]) -> dict[str, Any]:
    """Compiles a problem file and writes the result; returns its report, with `memory` in bytes."""
    compiled = compile_problem(load_problem(problem, fake=True), Options.from_env(**options))
    write_output(compiled.module_text, new, compiled.problem)
    return report(compiled) | {"memory": memory(compiled)}


def memory(c: Compilation) -> dict[str, int]:
    """Bytes of the inputs, of parameters and buffers, of the outputs and of the largest value."""
    nodes = c.graph.nodes()
    given = sum(x.nbytes for x in nodes if isinstance(x, g.Input) and x.role == "input")
    held = sum(x.nbytes for x in nodes if isinstance(x, g.Input) and x.role != "input")
    made = [x.nbytes for x in nodes if not isinstance(x, g.View | g.Const | g.Iota)]
    outputs = sum(x.nbytes for x in c.graph.outputs)
    return {"inputs": given, "state": held, "outputs": outputs, "largest": max(made, default=0)}


def build(new: str) -> dict[str, float]:
    """Compiles the kernels of an emitted file into the cache of extensions."""
    return {"seconds": bench_subject.build(Path(new))}
