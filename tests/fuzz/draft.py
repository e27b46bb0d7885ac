"""A model as a list of statements over named tensors, and its text as a problem file.

Nothing is drawn and nothing is judged here.
"""

import re
from dataclasses import dataclass

_NAME = re.compile(r"\bself\.\w+|\b[vx]\d+\b")

_HEAD = """import torch
from torch import nn
from torch.nn import functional as F


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
        return (
            f"{head}{_HEAD}{state}\n    def forward({names}):\n{body}"
            f"        return {self._returned()}\n\n\ndef get_inputs():\n"
            f"    return [\n{given}    ]\n"
        )

    def _returned(self) -> str:
        if self.structure == "dict":
            return "{" + ", ".join(f'"r{k}": {n}' for k, n in enumerate(self.outputs)) + "}"
        if self.structure == "one" and len(self.outputs) == 1:
            return self.outputs[0]
        if self.structure == "list":
            return f"[{', '.join(self.outputs)}]"
        return f"({', '.join(self.outputs)},)"


def _registered(name: str, expression: str) -> str:
    if name.startswith("b"):
        return f'self.register_buffer("{name}", {expression})'
    if name.startswith("p"):
        return f"self.{name} = nn.Parameter({expression})"
    return f"self.{name} = {expression}"
