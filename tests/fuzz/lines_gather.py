"""Makers of lines that read or write at positions which are values themselves."""

import torch

from .drawer import Drawer, has_rank, is_float
from .scope import Scope

# fmt: off
TAKEN = (
    "{x}[{i}]", "{x}.index_select(0, {i}.flatten())", "{x}[{i}.flatten()]",
    "F.embedding({i}, {x})", "{x}[{i}] * 2", "torch.gather({x}, 0, {i})",
    "torch.gather({x}, -1, {j})", "{x}[..., {j}]", "torch.take({x}, {i})", "{x}[{i}, 0]",
    "{x}.take_along_dim({j}, -1)", "F.embedding({i}, {x}).sum(-2)",
    "F.embedding({i}, {x}).mean(0)", "{x}[:, {j}]", "{x}.index_select(-1, {j}.flatten())",
    "{x}[{i}].amax(0)", "{x}[{i}, {j}]", "torch.gather({x}, 0, {i}).sum(0)",
)
PUT = (
    "{x}.index_add(0, {i}.flatten(), {x}[{i}.flatten()])", "{x}.scatter(0, {i}, 0.5)",
    "{x}.index_fill(0, {i}.flatten(), -1.0)", "torch.zeros_like({x}).scatter_add(0, {i}, {x})",
    "{x}.index_copy(0, {i}.flatten().unique(), {x}[:1])",
    "{x}.scatter_reduce(0, {i}, {x}, 'amax')", "F.one_hot({i}, {n})",
    "{x}.index_put(({i},), {x}[0])", "torch.bincount({i}.flatten())",
    "{x}.masked_scatter({x} > 0, {x})",
)
# fmt: on


def taken(d: Drawer, s: Scope) -> None:
    """Entries of a value at integers, which are first brought into range."""
    x = d.operand(s, has_rank(1, 4))
    i = x and d.operand(s, lambda v: not v.dtype.is_floating_point and v.ndim <= 3)
    if not (x and i):
        return
    shape = x[1].shape
    form = d.pick(TAKEN) if d.whole(0, 3) else d.pick(PUT)
    if not shape[0] or not shape[-1]:
        return
    index = i[0] if i[1].dtype == torch.int64 else f"{i[0]}.long()"
    text = form.format(
        x=x[0], i=f"({index} % {shape[0]})", j=f"({index} % {shape[-1]})", n=shape[0]
    )
    s.add(text, rounds=is_float(x[1]) and form not in TAKEN)


def embedded(d: Drawer, s: Scope) -> None:
    """nn.Embedding of integers, perhaps pooled."""
    if i := d.operand(s, lambda v: not v.dtype.is_floating_point and v.ndim <= 3):
        rows, width = d.pick((3, 10, 17)), d.pick((1, 4, 5, 8))
        name = s.add_state("m", f"nn.Embedding({rows}, {width})")
        pooled = d.pick(("", "", ".sum(-2)", ".mean(0)", ".amax(1)", " * 2"))
        text = f"{name}({i[0]}.long() % {rows}){pooled}"
        if name and s.add(text, rounds=pooled not in ("", ".amax(1)")) is None:
            s.drop_state(name)


GATHER = (*(taken,) * 4, embedded)
