"""Names of buffers, kernels and calls, from the user's modules and attributes.

Every name is a valid identifier in Python and C, unique in the program, and the same whenever the
same graph is scheduled.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from fusewright.ir import body as b
from fusewright.ir import graph as g
from fusewright.ir.kernel import Phase
from fusewright.ir.scalar import OPS

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
        return self._unique(identifier(self._described(node)))

    def kernel(self, phases: tuple[Phase, ...], sinks: tuple[g.Node, ...]) -> str:
        """A kernel's name: the module it serves, or the costliest operations it performs."""
        modules = self._modules(sinks)
        if len(modules) == 1 and modules[0]:
            return self._unique(identifier(f"{modules[0]}_kernel"))
        return self._unique(identifier("_".join(_main_operations(phases) or ["copy"])) + "_kernel")

    def call(self, node: g.Node) -> str:
        return self._unique(identifier(self._described(node)) + "_call")

    def _modules(self, nodes: Iterable[g.Node]) -> list[str]:
        origins = (self.graph.origins.get(n) for n in nodes)
        return list(dict.fromkeys(o.module for o in origins if o is not None))

    def _described(self, node: g.Node) -> str:
        (module,) = self._modules([node]) or [""]
        kind = node.kind.removeprefix("reduce_").removeprefix("aten.").split(".")[0]
        return f"{module}_{kind}" if module else kind


def _main_operations(phases: tuple[Phase, ...]) -> list[str]:
    """Up to three operations of a kernel, the costliest, in the order they are performed."""
    found: dict[str, int] = {}
    for p in phases:
        for e in b.walk(*p.bodies):
            if isinstance(e, b.Apply):
                found.setdefault(e.op, OPS[e.op].cost)
        found.update((f.kind, 100) for f in p.folds)
        found.update((f"cum{s.kind}", 100) for s in p.scans)
    ranked = sorted(found, key=lambda op: -found[op])[:3]
    return [op for op in found if op in ranked]
