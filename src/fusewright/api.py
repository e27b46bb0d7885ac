"""The public functions on live modules and files; the package's `__init__` exports them.

What they do is the pipeline's; here arguments become problems and results become objects.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import UsageError
from .options import Options
from .pipeline import compile_problem, import_text
from .problem import Problem, load_problem, nn, problem_from_module
from .report import report

MODEL_GIVEN = "# Model is the class of the module that was given to fusewright.optimize."


def optimize(
    module: nn.Module, example_inputs: Sequence[Any], target: str = "auto", **options: Any
) -> nn.Module:
    """A module that computes what `module` computes, with fused kernels where its guards admit.

    `example_inputs` are the positional arguments of one forward call; shapes, dtypes and strides of
    later calls must be theirs for the kernels to run. The result shares parameters, buffers and
    submodules with `module`: what changes in one changes in the other. Kernels are compiled on
    first use. `target` "auto" is the kind of device that holds the module. `options` are those of
    `options.Options`. Raises CaptureError for a forward that cannot be captured.
    """
    problem = problem_from_module(module, example_inputs)
    chosen = _options(_target_of(problem) if target == "auto" else target, options)
    compilation = compile_problem(problem, chosen, source=MODEL_GIVEN)
    given = {**compilation.given, "Model": type(module)}
    emitted = import_text(compilation.module_text, compilation.title, given)
    new = emitted.ModelNew.__new__(emitted.ModelNew)
    new.__dict__.update(module.__dict__)
    return new


def explain(
    problem: Problem | nn.Module | str | Path,
    example_inputs: Sequence[Any] | None = None,
    target: str = "auto",
    **options: Any,
) -> dict[str, Any]:
    """What fusewright makes of a problem file, a Problem or a module with its example inputs.

    Returns the object of `fusewright explain --json`. Nothing is compiled or allocated. Raises
    UsageError for a module without example inputs or anything else with them.
    """
    if isinstance(problem, nn.Module):
        if example_inputs is None:
            raise UsageError("a module needs example_inputs, the arguments of one forward call")
        problem = problem_from_module(problem, example_inputs)
        target = _target_of(problem) if target == "auto" else target
    elif example_inputs is not None:
        raise UsageError("example_inputs belong to a module; a problem has its own")
    elif not isinstance(problem, Problem):
        problem = load_problem(problem, fake=True)
    given = problem.source is not None and problem.original is None
    source = None if given else MODEL_GIVEN
    return report(compile_problem(problem, _options(target, options), source=source))


def _options(target: str, options: dict[str, Any]) -> Options:
    return Options.from_env(**options, target=None if target == "auto" else target)


def _target_of(problem: Problem) -> str:
    """`cpu` when everything the module holds is on the CPU, else what this machine has."""
    held = (*problem.module.parameters(), *problem.module.buffers())
    tensors = (*held, *(x for x in problem.inputs if hasattr(x, "device")))
    return "auto" if any(x.device.type == "cuda" for x in tensors) else "cpu"
