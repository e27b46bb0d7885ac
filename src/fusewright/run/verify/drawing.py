"""Makes the inputs and weights of a verification, as commands of the referee."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from fusewright.errors import ProblemError
from fusewright.problem import split_init_args
from fusewright.run.verify import draws, generators, hidden, oracle, runner, specs, tensors
from fusewright.run.verify.book import Book, Draw
from fusewright.run.verify.specs import Spec

_INPUT_SEED = 1000
# Elements of each tensor that must come out the same when it is drawn again.
_PROBED = 64


def init_arguments(book: Book, prefix: str) -> Spec:
    """The constructor's positional and keyword arguments, from `get_init_inputs` if defined."""
    assert book.session.cls is not None
    get = getattr(book.session.source, "get_init_inputs", list)
    generators.seed(_INPUT_SEED)
    return tensors.dump(list(split_init_args(book.session.cls, get())), prefix)


def inputs(book: Book, name: str) -> Spec:
    """Named inputs; drawn once more where they were let go of."""
    return _again(book, name, book.draws, lambda d: (d.kind, d.seed, d.prefix, d.rows), draw_inputs)


def loaded(book: Book, name: str) -> list[Any]:
    """Named inputs to be read only: on the CPU they are mappings of their files."""
    return book.session.loaded(inputs(book, name), copy=False)


def redraw_beside(book: Book, names: list[str]) -> None:
    """These buffers beside the state_dict are drawn with the weights from now on."""
    book.redrawn = names


def weights(book: Book, name: str) -> Spec:
    """As `inputs`, for weights."""
    return _again(book, name, book.weights, lambda d: (d.kind, d.seed, d.prefix), draw_weights)


def _again(
    book: Book, name: str, held: dict[str, Spec], how: Callable[[Draw], Any], draw: Any
) -> Spec:
    if name not in held:
        old = book.recipes[name]
        draw(book, name, *how(replace(old, prefix=f"{old.prefix}-again")))
        if book.recipes[name].first != old.first:
            raise MemoryError(
                "get_inputs gives other values each time, and memory is too short to keep them"
            )
    return held[name]


def _hold(book: Book, held: dict[str, Spec], name: str, draw: Draw, made: Any) -> Spec:
    """Hand over what was drawn, and note how to see that it comes out the same again."""
    first = tuple(repr(t.reshape(-1)[:_PROBED].tolist()) for _, t in tensors.tensor_leaves(made))
    book.recipes[name] = replace(draw, first=first)
    held[name] = tensors.dump(made, draw.prefix, book.session.lender)
    return held[name]


def _make_place(book: Book, held: dict[str, Spec]) -> None:
    """Before a draw: where loans hold more than oracle.KEPT_BYTES, the oldest go. Device memory is
    scarce, and all but the weights as constructed can be drawn again."""
    for name in [n for n in held if n != "given"]:
        if sum(specs.lent_bytes(spec) for spec in held.values()) > oracle.KEPT_BYTES:
            book.session.lender.take_back(specs.loans(held.pop(name)))
    runner.release_memory(book.session.device)


def make_room(book: Book) -> None:
    """Let go of all that can be had again."""
    for held in (book.draws, book.weights):
        for name in [n for n in held if n != "given" and specs.loans(held[n])]:
            book.session.lender.take_back(specs.loans(held.pop(name)))
    book.expectations.clear()
    book.stale, book.gradients = {}, {}
    runner.release_memory(book.session.device)


def forget_draw(book: Book, name: str) -> None:
    """Inputs or weights that no further point uses."""
    for held in (book.draws, book.weights):
        if name in held:
            book.session.lender.take_back(specs.loans(held.pop(name)))
    runner.release_memory(book.session.device)


def draw_inputs(book: Book, name: str, kind: str, seed: int, prefix: str, rows: int | None) -> Spec:
    """Inputs from `get_inputs` after seeding, redrawn by `kind`, with `rows` rows (None: as given).

    kind: "given", "tail" (only the last row or element is new), "swap" (two elements have changed
    places), "special" (NaN, Inf, ... sprinkled in), "double" (as given, in double precision),
    a rule of draws.OTHER_NUMBERS or of draws.REDRAWN.
    """
    _make_place(book, book.draws)
    device = book.session.device
    given = _given(book, _INPUT_SEED + seed)
    generator = torch.Generator(device).manual_seed(seed)
    made = given if rows is None else with_rows(given, rows)
    if kind == "tail":
        made = tensors.map_leaves(made, lambda t: draws.with_new_tail(t, generator))
    elif kind == "swap":
        made = tensors.map_leaves(made, lambda t: draws.with_two_exchanged(t, generator))
    elif kind == "special":
        made = tensors.map_leaves(made, lambda t: draws.with_special_values(t, generator))
        book.marked[name] = _special_rows(made)
    elif kind == "double":
        made = tensors.map_leaves(made, lambda t: t.double() if t.is_floating_point() else t)
    elif kind in ("floats", "ints"):
        made = [tensors.map_values(value, draws.OTHER_NUMBERS[kind]) for value in made]
    elif kind != "given":
        made = tensors.map_leaves(made, lambda t: draws.redraw(t, kind, generator))
    made = _laid_out_as(given, made)
    held = _hold(book, book.draws, name, Draw(kind, seed, prefix, rows, ()), made)
    for path, leaf in specs.leaves(held):
        if leaf["k"] == "opaque":
            what = f"input{path} is a {leaf['type']}"
            raise ProblemError(f"{what}: it cannot be handed to the candidate's process")
    return held


def _given(book: Book, seed: int) -> list[Any]:
    """What `get_inputs` returns after seeding, made on the device: there it takes milliseconds."""
    get = getattr(book.session.source, "get_inputs", None)
    if get is None:
        raise ProblemError("the reference file defines no get_inputs")
    device = book.session.device
    generators.seed(seed)
    try:
        with torch.device(device):
            made = list(get())
    except (RuntimeError, TypeError):
        # It mixes devices, as one that uses NumPy or a generator of its own may.
        generators.seed(seed)
        made = list(get())
    return tensors.map_leaves(made, lambda t: t.to(device))


def _special_rows(made: list[Any]) -> list[int]:
    """The rows of the batch that special values were put in: these are always looked at."""
    total = oracle.batch_rows(made)
    leaves = tensors.tensor_leaves(made) if total else ()
    batched = [t for _, t in leaves if t.ndim and t.shape[0] == total]
    places = [(t.numel() // total, k) for t in batched for k in draws.special_places(t.numel())]
    return sorted({place // inner for inner, place in places if inner})


def _laid_out_as(given: list[Any], made: list[Any]) -> list[Any]:
    """The redrawn inputs with the strides of the given ones, where the shapes are the same."""
    wanted = iter([t for _, t in tensors.tensor_leaves(given)])

    def change(tensor: torch.Tensor) -> torch.Tensor:
        like = next(wanted)
        if like.shape != tensor.shape or like.stride() == tensor.stride():
            return tensor
        return tensors.relaid(tensor, like.stride())

    return tensors.map_leaves(made, change)


def with_rows(inputs: list[Any], rows: int) -> list[Any]:
    """The inputs at another batch size: axis 0 cut, or extended by repeating rows in reverse."""
    have = oracle.batch_rows(inputs)

    def change(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.ndim or tensor.shape[0] != have:
            return tensor
        index = torch.arange(rows, device=tensor.device).remainder(max(have, 1))
        return tensor[index if rows <= have else index.flip(0)]

    return tensors.map_leaves(inputs, change)


def draw_weights(book: Book, name: str, kind: str, seed: int, prefix: str) -> Spec:
    """A state for both modules: as constructed ("given") or redrawn; tied entries stay tied.

    kind: "given", one of draws.redraw_weight, or "swapped": drawn as "random" with the same seed,
    then two elements of each entry exchanged.
    """
    _make_place(book, book.weights)
    module = book.session.slots["reference"]
    hidden.forget_late(module, book.session.entries)
    generator = torch.Generator(book.session.device).manual_seed(seed)
    swapping = torch.Generator(book.session.device).manual_seed(seed)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    made: dict[str, torch.Tensor] = {}
    by_storage: dict[tuple[int, int, torch.Size], torch.Tensor] = {}
    lender = book.session.lender
    given = runner.mapped(book.weights["given"], lender) if book.weights else {}
    first = {n: t for n, t in book.session.unsaved.items() if n in book.redrawn and t is not None}
    entries: dict[str, torch.Tensor] = {**module.state_dict(), **first}
    for entry, current in entries.items():
        key = (current.untyped_storage().data_ptr(), int(current.storage_offset()), current.shape)
        if key not in by_storage:
            value = given.get(entry, current).to(book.session.device)
            role = entry in parameters
            by_storage[key] = _redraw_entry(value, kind, role, generator)
            if kind == "swapped":
                by_storage[key] = draws.with_two_exchanged(by_storage[key], swapping)
        made[entry] = by_storage[key]
    return _hold(book, book.weights, name, Draw(kind, seed, prefix, None, ()), made)


def _redraw_entry(
    value: torch.Tensor, kind: str, is_parameter: bool, generator: torch.Generator
) -> torch.Tensor:
    if kind == "given":
        # A copy, since it may be lent, and the module's own memory takes other weights.
        return value.detach().clone()
    if not is_parameter and value.is_floating_point() and value.numel() and value.min() >= 0:
        return draws.redraw_positive(value, generator)
    return draws.redraw_weight(value.detach(), kind, generator)


COMMANDS = {
    "init_arguments": init_arguments,
    "inputs": inputs,
    "weights": weights,
    "redraw_beside": redraw_beside,
    "make_room": make_room,
    "forget_draw": forget_draw,
    "draw_inputs": draw_inputs,
    "draw_weights": draw_weights,
}
