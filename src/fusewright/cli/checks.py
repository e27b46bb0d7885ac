"""What follows the writing of a file: is it right, and is it fast, on the device it is for.

Verdicts and times are made in `run`; here it is decided whether they can be had on this machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusewright.errors import BuildError, FusewrightError
from fusewright.ir.kernel import Kernel
from fusewright.pipeline import Compilation
from fusewright.run.bench import BenchReport, bench
from fusewright.run.build import find_compiler, find_nvcc
from fusewright.run.device import detected_target, host_memory
from fusewright.run.verify import VerifyReport, verify

from . import console
from .figures import quantity

# A glance after writing, not a benchmark: `fusewright bench` takes longer and compares with more.
ROUNDS = 15
SECONDS = 6.0
# Inputs, parameters and outputs held at once by the verifier's two processes and its files.
COPIES = 4
# The beginning of what torch.utils.cpp_extension raises.
BUILD_FAILURE = "Error building extension"


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found out about a written file; `skipped` says why nothing or not all was."""

    verified: VerifyReport | None = None
    timed: BenchReport | None = None
    skipped: str = ""

    @property
    def rejected(self) -> bool:
        return self.verified is not None and self.verified.verdict == "reject"

    def to_json(self) -> dict[str, Any]:
        """`verify` and `bench` objects, null where there are none."""
        return {
            "verify": self.verified.to_json() if self.verified else None,
            "bench": self.timed.to_json() if self.timed else None,
            "not_checked": self.skipped or None,
        }


def check_output(c: Compilation, output: Path, told: Mapping[str, Any]) -> Checked:
    """Verify the file and, unless it is rejected, time it against eager.

    Raises BuildError when the file's kernels cannot be compiled here for want of a compiler.
    """
    device = c.arch.kind
    if why := missing_device(c) or missing_memory(c):
        return Checked(skipped=why)
    _require_compiler(c, output)
    reference = c.problem.path
    assert reference is not None
    with console.progress("verify") as tell:
        precision = c.context.options.precision
        verified = verify(reference, output, device=device, precision=precision, progress=tell)
    if message := compiler_message(verified):
        raise BuildError(f"{output} is written, but its kernels do not compile here:\n{message}")
    if verified.verdict == "reject":
        return Checked(verified, skipped="not timed, because it was rejected")
    try:
        with console.progress("bench") as tell:
            timed = bench(
                reference,
                output,
                device=device,
                baselines=("eager",),
                rounds=ROUNDS,
                seconds=SECONDS,
                floor=told,
                imports=False,
                progress=tell,
            )
    except FusewrightError as error:
        return Checked(verified, skipped=f"not timed: {error}")
    return Checked(verified, timed)


def compiler_message(verified: VerifyReport) -> str:
    """What the compiler said of the file's kernels, empty where it took them: that is a fault of
    the compiler or of fusewright, and no verdict on what the file computes."""
    said = (c.detail for c in verified.failed() if BUILD_FAILURE in c.detail)
    return next(said, "")


def missing_device(c: Compilation) -> str:
    """Why the file cannot run here; empty when it can."""
    here = detected_target()
    if c.arch.kind == "cpu" or here == c.arch.name or (c.arch.name == "cuda" and here != "cpu"):
        return ""
    found = "no CUDA device" if here == "cpu" else f"a {here} device"
    whose = "any GPU (`--target cuda:sm_90a` writes for an H100)" if c.arch.name == "cuda" else ""
    return (
        f"not checked: the file is for {whose or c.arch.name} and this machine has {found}; it is "
        "complete, run `fusewright verify` and `fusewright bench` where such a device is"
    )


def missing_memory(c: Compilation) -> str:
    """Why checking on the CPU would exhaust this machine; empty when it would not, or on a GPU."""
    held = sum(s.node.nbytes for s in c.graph.inputs) + sum(n.nbytes for n in c.graph.outputs)
    free = host_memory()
    if c.arch.kind != "cpu" or free is None or COPIES * held <= free:
        return ""
    return (
        f"not checked: that needs about {quantity(COPIES * held, 'B')} of memory and "
        f"{quantity(free, 'B')} are free; `fusewright verify` and `fusewright bench` try it anyway"
    )


def _require_compiler(c: Compilation, output: Path) -> None:
    if not any(isinstance(step, Kernel) for step in c.program.steps):
        return
    if find_compiler() is None:
        raise BuildError(
            f"{output} is written but not checked: no C++ compiler was found; install g++ or "
            "clang++ (Debian: apt install g++), or leave the check out with --no-check"
        )
    if c.arch.kind == "cuda" and find_nvcc() is None:
        raise BuildError(
            f"{output} is written but not checked: no nvcc was found; install the CUDA toolkit "
            "12.0 or later, or leave the check out with --no-check"
        )
