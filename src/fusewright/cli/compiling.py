"""The commands that compile: `optimize` and `explain`. They need torch, but no device.

What a stage does is the pipeline's, what a file is worth is `run`'s; here they are put in order.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

from fusewright.errors import OutputError
from fusewright.options import Options
from fusewright.pipeline import Compilation, compile_problem, require_place, write_output
from fusewright.problem import load_problem
from fusewright.report import report

from . import console
from .checks import Checked, check_output
from .explain import render_explain
from .summary import render_checked, render_summary

# What a stage's name in the log is, said as an activity.
ACTIVITIES = {
    "captured": "capturing the forward pass",
    "interface": "reading the module",
    "rewritten": "rewriting",
    "scheduled": "fusing",
    "kernels": "printing kernels",
    "emitted": "writing ModelNew",
}
TUNING = {"tuned": "measuring products"}  # only where it is asked for
OURS = "Written by fusewright"


def optimize(chosen: Namespace) -> int:
    """Write the file, then verify and time it where its device is present.

    Exit code 1 when the verifier rejects the file; it stays for inspection, and the output says so.
    """
    output = output_path(chosen.problem, chosen.output)
    require_place(output, chosen.problem)
    compiled = compile_file(chosen)
    write_output(compiled.module_text, output, compiled.problem)
    told = report(compiled)
    if not chosen.json:
        console.show(render_summary(compiled, told, output, console.width()))
    checked = Checked() if chosen.no_check else check_output(compiled, output, told)
    if chosen.json:
        console.show_json(told | {"output": str(output)} | checked.to_json())
    else:
        console.show(*render_checked(checked))
    return int(checked.rejected)


def explain(chosen: Namespace) -> int:
    """Print the proof, one stage's result, or the report as JSON. Writes no file."""
    compiled = compile_file(chosen)
    if chosen.stage is not None:
        text = compiled.context.log.entry(chosen.stage).text()
        if chosen.json:
            console.show_json({"stage": chosen.stage, "text": text})
        else:
            print(text, end="" if text.endswith("\n") else "\n")
    elif chosen.json:
        console.show_json(report(compiled))
    else:
        console.show(render_explain(compiled, report(compiled), console.width()))
    return 0


def compile_file(chosen: Namespace) -> Compilation:
    """The problem file through all stages, with progress on stderr."""
    options = compile_options(chosen)
    with console.progress(chosen.problem.stem) as tell:
        tell("loading the problem")
        problem = load_problem(chosen.problem, fake=True)
        said = ACTIVITIES | TUNING
        compiled = compile_problem(problem, options, progress=lambda stage: tell(said[stage]))
    for warning in compiled.warnings:
        console.note(f"warning: {warning}")
    return compiled


def compile_options(chosen: Namespace) -> Options:
    """The options given on the command line, then those of the environment."""
    names = ("target", "precision", "numerics", "binding", "tune", "tuned")
    given: dict[str, Any] = {name: getattr(chosen, name) for name in names}
    return Options.from_env(**given)


def output_path(problem: Path, given: Path | None) -> Path:
    """The file to write: as given, else `<problem>_fused.py` in the current folder.

    A name that nobody asked for must not cost anybody a file: raises OutputError when something
    that fusewright did not write is there.
    """
    if given is not None:
        return given
    path = Path(f"{problem.stem}_fused.py")
    if path.exists() and OURS not in path.read_text(encoding="utf-8", errors="replace"):
        raise OutputError(f"{path} exists and was not written by fusewright; name it with -o")
    return path
