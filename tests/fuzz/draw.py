"""Drawing a draft: how many inputs of which shapes, which lines, which outputs.

Decisions come from hypothesis, through one strategy; the lines are `lines`'.
"""

import torch
from hypothesis import strategies as st

from .draft import Draft
from .drawer import Drawer
from .lines import LINES
from .scope import Scope

FLOATS = ("float32",) * 12 + ("float64", "bfloat16", "float16")
INTEGERS = ("int64", "int64", "int64", "int32", "int16", "int8", "uint8", "bool", "bool")
SIZES = (1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8, 8, 9, 16, 17, 33)


@st.composite
def drafts(draw: st.DrawFn, lines: int = 12) -> Draft:
    """A draft of at most `lines` lines (fewer where eager refuses what was drawn)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _draft(Drawer(draw), lines)


def _draft(d: Drawer, lines: int) -> Draft:
    large = d.whole(0, 39) == 39
    scope = Scope(most=300_000 if large else 5000)
    extents = [d.pick(SIZES) for _ in range(3)] + ([0] if d.whole(0, 11) == 11 else [])
    if large:
        extents.append(d.pick((1023, 2048, 4099)))
    dtype = d.pick(FLOATS)
    for _ in range(d.whole(1, 3)):
        scope.add_input(_input(d, _shape(d, extents), dtype if d.whole(0, 7) else d.pick(FLOATS)))
    if d.whole(0, 2) == 0:
        scope.add_input(_integers(d, _shape(d, extents)))
    for _ in range(d.whole(0, 2)):
        scope.add_state("b", _plain(d, _shape(d, extents), d.pick((dtype, dtype, dtype, "int64"))))
    d.dtype = dtype
    wanted = d.whole(2, lines)
    for _ in range(3 * wanted):
        if len(scope.statements) < wanted:
            d.pick(LINES)(d, scope)
    return scope.draft(_outputs(d, scope), d.pick(("tuple", "one", "list", "dict")))


def _shape(d: Drawer, extents: list[int]) -> tuple[int, ...]:
    rank = d.pick((0, 1, 2, 2, 2, 3, 3, 3, 4, 4))
    shape = [1 if d.whole(0, 9) == 9 else d.pick(extents) for _ in range(rank)]
    while len(shape) > 1 and _size(shape) > 40_000:
        shape.pop()
    return tuple(shape)


def _size(shape: list[int]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _plain(d: Drawer, shape: tuple[int, ...], dtype: str) -> str:
    """A dense tensor: small multiples of a power of two (ties, zeros, -0.0 excluded) or normals."""
    size = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    if dtype == "bool":
        return f"torch.randint(0, 2, ({size})).bool()"
    if dtype == "uint8":
        return f"torch.randint(0, 9, ({size}), dtype=torch.uint8)"
    if not dtype.startswith(("f", "bf")):
        return f"torch.randint(-4, 9, ({size}), dtype=torch.{dtype})"
    cast = "" if dtype == "float32" else f".to(torch.{dtype})"
    kind = d.whole(0, 3)
    if kind == 0:
        return f"(torch.randint(-8, 9, ({size})) / 4){cast}"
    return f"torch.randn(({size})){cast}" if kind < 3 else f"(torch.rand(({size})) + 0.5){cast}"


def _integers(d: Drawer, shape: tuple[int, ...]) -> str:
    return _plain(d, shape, d.pick(INTEGERS))


def _input(d: Drawer, shape: tuple[int, ...], dtype: str) -> str:
    """A dense tensor, or a view of one that is not: transposed, strided, expanded, offset."""
    kind = d.whole(0, 9)
    if not shape or kind < 5:
        return _plain(d, shape, dtype)
    first, rest = shape[0], shape[1:]
    if kind == 5:
        return f"{_plain(d, shape[::-1], dtype)}.permute({', '.join(map(str, _down(shape)))})"
    if kind == 6:
        return f"{_plain(d, (2 * first, *rest), dtype)}[::2]"
    if kind == 7:
        return f"{_plain(d, (first + 2, *rest), dtype)}[1:-1]"
    if kind == 8:
        return f"{_plain(d, (*shape[:-1], shape[-1] + 1), dtype)}[..., 1:]"
    return f"{_plain(d, (1, *rest), dtype)}.expand({', '.join(map(str, shape))})"


def _down(shape: tuple[int, ...]) -> list[int]:
    return list(range(len(shape) - 1, -1, -1))


def _outputs(d: Drawer, scope: Scope) -> tuple[str, ...]:
    """The last values that no line reads, and rarely any other value, an input or a buffer."""
    read = {n for s in scope.statements for n in s.reads}
    last = [n for n in scope.values if n.startswith("v") and n not in read]
    kept = last[-d.pick((4, 2, 1, 3)) :]
    others = [d.pick(list(scope.values))] if not kept or d.whole(0, 4) == 4 else []
    return (*kept, *others)
