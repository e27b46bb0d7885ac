"""Where a node comes from: the user's module and source line, as torch remembers them."""

import traceback

from torch import fx

from fusewright.ir.graph import Origin
from fusewright.problem import Problem

from .export import user_frame


def origin_of(problem: Problem, node: fx.Node) -> Origin:
    """Module path and source line of an FX node, as well as torch remembers them."""
    stack = node.meta.get("nn_module_stack") or {}
    module = str(list(stack.values())[-1][0]) if stack else ""
    module = module.removeprefix("L['self']").removeprefix(".")
    frame = user_frame(problem, _frames(node.meta.get("stack_trace") or ""))
    if frame is None:
        return Origin(module)
    return Origin(module, frame.lineno or 0, (frame.line or "").strip())


def _frames(trace: str) -> list[traceback.FrameSummary]:
    """The frames of a printed stack trace, outermost first."""
    lines = [line.strip() for line in trace.splitlines()]
    frames = []
    for line, code in zip(lines, [*lines[1:], ""]):
        if line.startswith('File "'):
            filename, _, rest = line.removeprefix('File "').partition('", line ')
            number = rest.partition(",")[0]
            frames.append(traceback.FrameSummary(filename, int(number), "", line=code))
    return frames
