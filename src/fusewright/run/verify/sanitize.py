"""One call of the candidate under NVIDIA's compute-sanitizer: out of bounds, races, uninitialised.

The caching allocator is switched off there, so that every tensor is an allocation of its own and a
write past its end is seen. Runs in the verifier's process.
"""

import re
import shutil
import subprocess
from pathlib import Path

from fusewright.run.verify.isolate import WorkerFailure, direct_worker
from fusewright.run.verify.report import Outcome
from fusewright.run.verify.trial import Trial

TOOLS = ("memcheck", "racecheck", "initcheck")
_HOMES = ("/usr/local/cuda/bin", "/opt/cuda/bin")
_SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)")
_FIRST = re.compile(
    r"^=+ ((?:Invalid|Uninitialized|Error|Warning|Race|Potential).*)$", re.MULTILINE
)
_SLOWDOWN = 10.0
_EXIT_S = 120.0


def find_sanitizer() -> str | None:
    """Path of compute-sanitizer on the PATH or in CUDA's usual homes."""
    found = (shutil.which("compute-sanitizer", path=home) for home in (None, *_HOMES))
    return next((path for path in found if path), None)


def sanitizer_checks(trial: Trial) -> None:
    """A check for each tool; skipped where there is no GPU or no compute-sanitizer."""
    program = find_sanitizer()
    device = trial.ask_referee("device")
    for tool in TOOLS:
        trial.progress(f"sanitize/{tool}")
        if device != "cuda":
            trial.add(f"sanitize/{tool}", "skip", "compute-sanitizer sees CUDA kernels only")
        elif program is None:
            trial.add(f"sanitize/{tool}", "skip", "compute-sanitizer is not on the PATH")
        else:
            trial.add(f"sanitize/{tool}", *run_tool(trial, program, tool))


def run_tool(trial: Trial, program: str, tool: str) -> tuple[Outcome, str]:
    """(outcome, detail) of the first call of a fresh module under one tool."""
    prefix = ["PYTORCH_NO_CUDA_MEMORY_CACHING=1", program, "--tool", tool]
    limit = _SLOWDOWN * trial.settings.timeout_s
    with direct_worker(prefix, trial.nursery.folder, f"sanitize-{tool}") as (worker, process, log):
        try:
            path = str(trial.settings.candidate)
            arguments = {"path": path, "cls": "ModelNew", "device": "cuda", "poison": False}
            worker.call("load", limit, **arguments)
            worker.call("construct", limit, slot="main", init=trial.init, where="cpu")
            spec = trial.ask_referee("inputs", name="given-0")
            worker.call("put", limit, name="x", spec=spec, layout="plain")
            worker.call("call", limit, slot="main", inputs="x", seed=7, prefix=None)
        except WorkerFailure as failure:
            return "fail", f"under {tool}: {failure}; {first_finding(log)}"
        worker.hang_up()
        try:
            process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            return "warn", f"{tool} did not end within {_EXIT_S:g} s of the call"
    return read_log(log.read_text(errors="replace"), tool)


def read_log(text: str, tool: str) -> tuple[Outcome, str]:
    """(outcome, detail) from what the tool printed."""
    counts = [int(count) for count in _SUMMARY.findall(text)]
    if not counts:
        return "warn", f"{tool} printed no summary: {text.strip()[-300:]}"
    if sum(counts) == 0:
        return "pass", "no finding in the first call"
    first = _FIRST.search(text)
    return "fail", f"{sum(counts)} findings; the first: {first[1] if first else 'see the log'}"


def first_finding(log: Path) -> str:
    found = _FIRST.search(log.read_text(errors="replace")) if log.exists() else None
    return found[1] if found else "no finding printed"
