"""The comment at the top of an emitted file: rewrites, kernels with tiles, how to reproduce it."""

from collections.abc import Iterable

from fusewright.ir.kernel import Kernel, LibraryCall
from fusewright.options import Options

from .common import tile_text
from .emission import Emission
from .pytext import comment, unspeakable


def header_lines(e: Emission) -> list[str]:
    """Comments: what this is, what was rewritten, the kernels with tiles, how to reproduce it."""
    what = "nothing to fuse" if e.keeps_forward else "Model with fused kernels"
    lines = comment(f"{e.title}: {what} for {e.arch.name} (class ModelNew).")
    lines += [f"# Written by fusewright {e.version}. Reproduce:", f"#   {reproduce_command(e)}"]
    lines += ["#", f"# Rewrites ({e.options.numerics}):"]
    lines += _listed(e.rewrites)
    kernels = [_kernel_line(s) for s in e.program.steps if isinstance(s, Kernel)]
    calls = [s for s in e.program.steps if isinstance(s, LibraryCall)]
    lines += ["# Kernels:", *_listed(kernels)]
    lines += ["# Library calls:", *_listed(_call_line(c) for c in calls if not c.extern)]
    lines += ["# ATen calls without a kernel:", *_listed(_call_line(c) for c in calls if c.extern)]
    return [unspeakable(line) for line in lines]


def _listed(texts: Iterable[str]) -> list[str]:
    lines = [line for t in texts for line in comment(f"  {t}")]
    return lines or ["#   none"]


def _kernel_line(k: Kernel) -> str:
    tile = tile_text(k.tile)
    covers = f": {', '.join(k.covers)}" if k.covers else ""
    return f"{k.name} ({k.anchor}{tile and f', {tile}'}){covers}"


def _call_line(c: LibraryCall) -> str:
    covers = [name for name in c.covers if not c.function.endswith(name)]
    return f"{c.function}: {', '.join(covers)}" if covers else c.function


def reproduce_command(e: Emission) -> str:
    """The command line that writes this file again."""
    given = [f"--target {e.arch.name}"]
    for name in ("precision", "numerics", "binding"):
        value = getattr(e.options, name)
        if value != getattr(Options(), name):
            given.append(f"--{name} {value}")
    if e.options.tune or e.options.tuned:
        given.append("--tuned")
    return f"fusewright optimize {e.title}.py {' '.join(given)}"
