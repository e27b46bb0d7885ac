"""Making a failing draft smaller while it still fails in the same stage.

Steps: fewer outputs, lines left out, a value given as an input in place of the lines that made it,
state that nothing uses left out. Each step is tried on the whole; the first that fails is kept.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from .draft import Draft, Statement

Fails = Callable[[Draft], bool]


def shrunk(draft: Draft, fails: Fails, tries: int = 120) -> Draft:
    """The smallest draft found with at most `tries` calls of `fails`, which holds for `draft`."""
    draft = without_dead(draft)
    while True:
        for candidate in _smaller(draft):
            tries -= 1
            if tries < 0:
                return draft
            if fails(candidate):
                draft = candidate
                break
        else:
            return draft


def without_dead(draft: Draft) -> Draft:
    """Lines that nothing needs and that write nothing are left out, inputs and state likewise."""
    needed = set(draft.outputs)
    kept: list[Statement] = []
    for s in reversed(draft.statements):
        if not s.target or s.target in needed:
            needed |= s.reads
            kept.append(s)
    state = tuple((n, e) for n, e in draft.state if f"self.{n}" in needed)
    inputs = tuple((n, e) for n, e in draft.inputs if n in needed) or draft.inputs[:1]
    return replace(draft, statements=tuple(kept[::-1]), state=state, inputs=inputs)


def _smaller(draft: Draft) -> Iterator[Draft]:
    """Candidates, the boldest first; those that do not run fail differently and are refused."""
    if len(draft.outputs) > 1:
        for name in draft.outputs:
            yield without_dead(replace(draft, outputs=(name,)))
    for k in range(len(draft.statements) - 1, -1, -1):
        yield from _without_line(draft, k)
    for k in range(len(draft.statements) - 1):
        yield from _given(draft, k)
    if draft.structure != "one":
        yield replace(draft, structure="one")


def _without_line(draft: Draft, k: int) -> Iterator[Draft]:
    """Without line k; its value is taken from each of its operands in turn."""
    line = draft.statements[k]
    rest = draft.statements[:k] + draft.statements[k + 1 :]
    if not line.target:
        yield without_dead(replace(draft, statements=rest))
        return
    for name in sorted(n for n in line.reads if not n.startswith(("self.m", "self.p"))):
        renamed = tuple(_renamed(s, line.target, name) for s in rest)
        outputs = tuple(name if n == line.target else n for n in draft.outputs)
        yield without_dead(replace(draft, statements=renamed, outputs=outputs))


def _renamed(s: Statement, old: str, new: str) -> Statement:
    return Statement(s.target, re.sub(rf"\b{old}\b", new, s.text))


def _given(draft: Draft, k: int) -> Iterator[Draft]:
    """Line k's value as an argument of forward, of the same shape, strides and dtype."""
    line = draft.statements[k]
    value = _value(draft, k) if line.target else None
    if value is None:
        return
    name = f"x{1 + max(int(n[1:]) for n, _ in draft.inputs)}"
    rest = draft.statements[:k] + draft.statements[k + 1 :]
    renamed = tuple(_renamed(s, line.target, name) for s in rest)
    outputs = tuple(name if n == line.target else n for n in draft.outputs)
    inputs = (*draft.inputs, (name, value))
    yield without_dead(replace(draft, statements=renamed, outputs=outputs, inputs=inputs))


def _value(draft: Draft, k: int) -> str | None:
    """An expression for a tensor like the value of line k."""
    cut = replace(draft, statements=draft.statements[: k + 1], structure="one")
    cut = replace(cut, outputs=(draft.statements[k].target,))
    space: dict = {}
    exec(cut.source(), space)
    torch.manual_seed(0)
    with torch.no_grad():
        x = space["Model"]()(*space["get_inputs"]())
    shape, dtype = tuple(x.shape), str(x.dtype)
    if not x.is_contiguous():
        return None
    if x.dtype == torch.bool:
        return f"torch.rand({shape}) > 0.5"
    if not x.dtype.is_floating_point:
        top = max(int(x.max()), 0) + 1 if x.numel() else 1
        return f"torch.randint(0, {top}, {shape}).to({dtype})"
    return f"torch.randn({shape}, dtype={dtype})"
