"""The programs under measurement: reference and candidate on one device with one state, and inputs.

Full-size problems hold gigabytes of weights: the candidate takes over the reference's very
parameters, so that two models need the memory of one. Buffers are copied, since forward may write
them. Inputs are new draws of `get_inputs` in new storage for every round where that is affordable.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fusewright.errors import ProblemError
from fusewright.problem import execute_file, split_init_args
from fusewright.run.bench.check import fingerprint, mapped
from fusewright.run.verify.tensors import distinct_elements, tensor_leaves

CANDIDATE_CLASSES = ("ModelNew", "Model")
MOST_INPUT_SETS = 4
# Share of the free memory that input sets may take; outputs, poison and baselines need the rest.
INPUT_SHARE = 0.4
LONGEST_DRAW_S = 0.25


@dataclass(frozen=True, slots=True)
class Subject:
    """An executed file: its globals and the seconds that executing it took."""

    path: Path
    namespace: Mapping[str, Any]
    import_s: float


def load_subject(path: Path) -> Subject:
    """Executes a problem or candidate file. Raises ProblemError with the line at fault."""
    start = time.perf_counter()
    module, _ = execute_file(path)
    return Subject(path, vars(module), time.perf_counter() - start)


def build(path: Path) -> float:
    """Builds the kernels of an emitted file, which else its first call does; returns the seconds.

    A file without kernels is only executed. Raises ProblemError as `load_subject` does.
    """
    start = time.perf_counter()
    library = load_subject(path).namespace.get("_library")
    if library is not None:
        library()
    return time.perf_counter() - start


def construct(subject: Subject, names: tuple[str, ...], init: list[Any], seed: int) -> nn.Module:
    """Builds the first class of `names` that the file has, under the current default device."""
    found = next((subject.namespace[name] for name in names if name in subject.namespace), None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ProblemError(f"{subject.path}: no torch.nn.Module class named {' or '.join(names)}")
    args, kwargs = split_init_args(found, init)
    torch.manual_seed(seed)
    try:
        return found(*args, **kwargs)
    except Exception as error:
        text = f"{subject.path}: the constructor of {found.__name__} raised "
        raise ProblemError(text + f"{type(error).__name__}: {error}") from error


def init_inputs(subject: Subject) -> list[Any]:
    """The constructor's arguments; a file without `get_init_inputs` needs none."""
    function = subject.namespace.get("get_init_inputs")
    return list(function()) if function else []


def share_state(reference: nn.Module, candidate: nn.Module) -> str | None:
    """Gives the candidate the reference's parameters (same storage), modes and copies of buffers.

    Returns why that failed, None if all went well; the candidate then keeps what it has drawn.
    """
    parameters = {name for name, _ in reference.named_parameters(remove_duplicate=False)}
    state = reference.state_dict(keep_vars=True)
    shared = {k: v if k in parameters else _copied(v) for k, v in state.items()}
    modes = {path: part.training for path, part in reference.named_modules()}
    for path, part in candidate.named_modules():
        part.training = modes.get(path, reference.training)
    try:
        candidate.load_state_dict(shared, strict=True, assign=True)
    except (RuntimeError, TypeError, ValueError) as error:
        return str(error)
    return None


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


class BufferState:
    """A model's buffers as they were: forward may write them, every timed call starts equal."""

    def __init__(self, module: nn.Module) -> None:
        self._buffers = list(module.named_buffers())
        self._saved = [buffer.detach().clone() for _, buffer in self._buffers]
        self.mutated = False

    def note_mutation(self) -> None:
        """Learns whether a call has changed a buffer; only then is anything restored later."""
        now = [buffer for _, buffer in self._buffers]
        self.mutated = fingerprint(now) != fingerprint(self._saved)

    def restore(self) -> None:
        """Puts the saved values back."""
        if self.mutated:
            for (_, buffer), saved in zip(self._buffers, self._saved, strict=True):
                buffer.copy_(saved)


class Inputs:
    """Input sets for the rounds: fresh values and another storage than the round before.

    drawn: `get_inputs` anew with another seed each round, the last sets kept alive so that the
    allocator cannot hand out the same memory. swapped: where drawing costs more than a round, sets
    are drawn once and trade their values in place, so a storage never holds the same values twice
    in a row. in place: one set alone fits; it is dropped and drawn again.
    """

    def __init__(self, draw: Callable[[int], list[Any]], seed: int, free_bytes: int) -> None:
        self._draw = draw
        self._seed = seed
        start = time.perf_counter()
        self._sets = [draw(seed)]
        self.draw_s = time.perf_counter() - start
        self.bytes = sum(x.nbytes for x in tensors_of(self._sets[0]))
        fitting = int(free_bytes * INPUT_SHARE / max(self.bytes, 1))
        self.count = max(1, min(MOST_INPUT_SETS, fitting))
        self.refresh = "drawn" if self.count > 1 else "in place"
        self._round = 0
        self._sets += [self._next_draw() for _ in range(self.count - 1)]

    def prefer_swapping(self, round_s: float) -> None:
        """Stops drawing for each round if a draw takes longer than a round and a quarter second."""
        if self.refresh == "drawn" and self.draw_s > max(LONGEST_DRAW_S, round_s):
            self.refresh = "swapped"

    def advance(self) -> tuple[list[Any], list[Any]]:
        """The round's inputs, and another set (the same one if only one fits) to rehearse with."""
        self._round += 1
        if self.refresh == "swapped":
            return self._swap()
        if self.refresh == "in place":
            self._sets.clear()
            self._sets.append(self._next_draw())
        else:
            self._sets.append(self._next_draw())
            del self._sets[0]
        return self._sets[-1], self._sets[0]

    def rewritten(self) -> list[Any]:
        """The latest set with new values in the same storage: a cache keyed on pointers misses it.

        Where only one set fits into memory it is a new draw, most likely in the same place.
        """
        if self.count == 1:
            return self.advance()[0]
        fresh = tensors_of(self._next_draw())
        for target, source in zip(tensors_of(self._sets[-1]), fresh, strict=True):
            write(target, source)
        return self._sets[-1]

    def _swap(self) -> tuple[list[Any], list[Any]]:
        current = self._round % 2
        if current == 0:
            first, second = tensors_of(self._sets[0]), tensors_of(self._sets[1])
            for a, b in zip(first, second, strict=True):
                held = a.clone()
                write(a, b)
                write(b, held)
        return self._sets[current], self._sets[1 - current]

    def _next_draw(self) -> list[Any]:
        self._seed += 1
        return self._draw(self._seed)


def write(target: torch.Tensor, source: torch.Tensor) -> None:
    """New values in the same storage, also where axes of stride 0 repeat an element."""
    strides = target.stride()
    distinct_elements(target, strides).copy_(distinct_elements(source, strides))


def tensors_of(tree: Any) -> list[torch.Tensor]:
    """The tensors among a tree's leaves."""
    return [x for _, x in tensor_leaves(tree)]


def cloned(tree: Any) -> Any:
    """The tree with every tensor copied, strides kept."""
    return mapped(tree, lambda x: x.detach().clone())


def drawer(subject: Subject, device: torch.device) -> Callable[[int], list[Any]]:
    """A function from a seed to new inputs on the device; ProblemError if get_inputs raises."""

    def draw(seed: int) -> list[Any]:
        torch.manual_seed(seed)
        try:
            with torch.device(device):
                inputs = subject.namespace["get_inputs"]()
        except Exception as error:
            text = f"{subject.path}: get_inputs raised {type(error).__name__}: {error}"
            raise ProblemError(text) from error
        return [mapped(value, lambda x: x.to(device)) for value in inputs]

    return draw
