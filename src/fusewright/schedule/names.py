"""Names of buffers, kernels and calls, from the user's modules and attributes.

Every name is a valid identifier in Python and C, unique in the program, and the same whenever the
same graph is scheduled.
"""

import re
from dataclasses import dataclass, field

from ..ir import graph as g

# Words that name something else in the emitted Python, C++ or CUDA text.
RESERVED = frozenset(
    [
        "and",
        "as",
        "assert",
        "async",
        "await",
        "break",
        "case",
        "catch",
        "char",
        "class",
        "const",
        "continue",
        "def",
        "default",
        "del",
        "delete",
        "do",
        "double",
        "elif",
        "else",
        "enum",
        "except",
        "export",
        "extern",
        "False",
        "finally",
        "float",
        "for",
        "from",
        "global",
        "goto",
        "if",
        "import",
        "in",
        "inline",
        "int",
        "is",
        "lambda",
        "long",
        "namespace",
        "new",
        "None",
        "nonlocal",
        "not",
        "operator",
        "or",
        "pass",
        "private",
        "public",
        "raise",
        "register",
        "restrict",
        "return",
        "self",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "template",
        "this",
        "throw",
        "torch",
        "True",
        "try",
        "typedef",
        "union",
        "unsigned",
        "using",
        "virtual",
        "void",
        "volatile",
        "while",
        "with",
        "yield",
        "blockIdx",
        "threadIdx",
        "blockDim",
        "gridDim",
        "stream",
        "i",
        "j",
        "k",
        "l",
        "m",
        "n",
        "q",
        "lane",
        "status",
    ]
)


def identifier(text: str) -> str:
    """`text` as an identifier: `linear.weight` becomes `linear_weight`."""
    name = re.sub(r"\W+", "_", text).strip("_") or "value"
    return f"v_{name}" if name[0].isdigit() or name in RESERVED else name


@dataclass(slots=True)
class Names:
    """Hands out unique names for one program."""

    graph: g.Graph
    _taken: dict[str, None] = field(default_factory=dict)

    def _unique(self, wanted: str) -> str:
        name, k = wanted, 1
        while name in self._taken:
            k += 1
            name = f"{wanted}_{k}"
        self._taken[name] = None
        return name

    def buffer(self, node: g.Node) -> str:
        """A buffer's name: the input's own, `out`, or the module and operation it comes from."""
        if isinstance(node, g.Input):
            return self._unique(identifier(node.name))
        if node in self.graph.outputs:
            position = self.graph.outputs.index(node)
            return self._unique("out" if len(self.graph.outputs) == 1 else f"out{position}")
        return self._unique(identifier(self._described([node])))

    def kernel(self, sinks: list[g.Node]) -> str:
        """A kernel's name from the operations it ends in."""
        return self._unique(identifier(self._described(sinks)) + "_kernel")

    def call(self, node: g.Node) -> str:
        return self._unique(identifier(self._described([node])) + "_call")

    def _described(self, nodes: list[g.Node]) -> str:
        origins = (self.graph.origins.get(n) for n in nodes)
        modules = [o.module for o in origins if o is not None and o.module]
        kinds = dict.fromkeys(n.kind.removeprefix("reduce_") for n in nodes)
        module = modules[-1] if modules else ""
        text = "_".join([k.removeprefix("aten.").split(".")[0] for k in kinds][:3])
        return f"{module}_{text}" if module else text
