"""A model as a list of statements over named tensors, and its text as a problem file.

Nothing is drawn and nothing is judged here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_NAME = re.compile(r"\bself\.\w+|\b[vx]\d+\b")

_HEAD = """import torch
from torch import nn
{functional}

class Model(nn.Module):
    def __init__(self):
        super().__init__()
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """One line of forward: `target = text`, or `text` alone where it writes in place."""

    target: str
    text: str

    @property
    def line(self) -> str:
        return f"{self.target} = {self.text}" if self.target else self.text

    @property
    def reads(self) -> frozenset[str]:
        """Names that the line needs: values, inputs and entries of the module."""
        return frozenset(_NAME.findall(self.text))


@dataclass(frozen=True, slots=True)
class Draft:
    """inputs: (name, expression) of each argument; state: (name, expression) of each parameter,
    buffer or submodule; `outputs`: names that forward returns, nested as `structure` says."""

    inputs: tuple[tuple[str, str], ...]
    state: tuple[tuple[str, str], ...]
    statements: tuple[Statement, ...]
    outputs: tuple[str, ...]
    structure: str = "tuple"

    def source(self, comment: str = "") -> str:
        """The problem file; `comment` comes first."""
        head = "".join(f"# {line}\n" for line in comment.splitlines())
        state = "".join(f"        {_registered(n, e)}\n" for n, e in self.state)
        names = ", ".join(("self", *(n for n, _ in self.inputs)))
        body = "".join(f"        {s.line}\n" for s in self.statements)
        given = "".join(f"        {e},\n" for _, e in self.inputs)
        text = (
            f"{state}\n    def forward({names}):\n{body}"
            f"        return {self._returned()}\n\n\ndef get_inputs():\n"
            f"    return [\n{given}    ]\n"
        )
        functional = "from torch.nn import functional as F\n" if "F." in text else ""
        return head + _HEAD.format(functional=functional) + text

    def numbered_from(self, first: int) -> "Draft":
        """The same with `first` added to every number in a name."""

        def later(name: re.Match[str]) -> str:
            return re.sub(r"\d+$", lambda n: str(int(n[0]) + first), name[0])

        def moved(text: str) -> str:
            return _NAME.sub(later, text)

        def state(name: str) -> str:
            return moved(f"self.{name}").removeprefix("self.")

        return Draft(
            tuple((moved(n), e) for n, e in self.inputs),
            tuple((state(n), e) for n, e in self.state),
            tuple(Statement(moved(s.target), moved(s.text)) for s in self.statements),
            tuple(map(moved, self.outputs)),
            self.structure,
        )

    def _returned(self) -> str:
        if self.structure == "dict":
            return "{" + ", ".join(f'"r{k}": {n}' for k, n in enumerate(self.outputs)) + "}"
        if self.structure == "one" and len(self.outputs) == 1:
            return self.outputs[0]
        if self.structure == "list":
            return f"[{', '.join(self.outputs)}]"
        return f"({', '.join(self.outputs)},)"


def side_by_side(drafts: Sequence[Draft]) -> Draft:
    """One draft that does what all of them do: compiling it costs less than compiling each."""
    moved = [d.numbered_from(100 * k) for k, d in enumerate(drafts)]
    return Draft(
        tuple(x for d in moved for x in d.inputs),
        tuple(x for d in moved for x in d.state),
        tuple(s for d in moved for s in d.statements),
        tuple(n for d in moved for n in d.outputs),
    )


def _registered(name: str, expression: str) -> str:
    if name.startswith("b"):
        return f'self.register_buffer("{name}", {expression})'
    if name.startswith("p"):
        return f"self.{name} = nn.Parameter({expression})"
    return f"self.{name} = {expression}"
