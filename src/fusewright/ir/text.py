"""Graphs as index equations, for people: `out[i] = 0.75 * sum(k) x[i, k] * w[k]`.

One equation per value worth a name; chains that are used once are written where they are used.
`sum(k)` reaches over the products to its right and ends before a `+`. The text that rebuilds a
graph is `ir.code`'s; programs are printed by `ir.program_text`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from . import graph as g
from . import index as ix
from .index import Cond, Conds, Index

LETTERS = "ijklmnpqrstuvw"
# An equation longer than this, in tensors named or in nesting, is split.
LEAVES, DEPTH = 9, 12

TERNARY, LOGIC, COMPARE, SUM, PRODUCT, NEGATION, POWER, ATOM = range(8)
INFIX = {
    "add": ("+", SUM),
    "sub": ("-", SUM),
    "mul": ("*", PRODUCT),
    "div": ("/", PRODUCT),
    "floor_div": ("//", PRODUCT),
    "remainder": ("%", PRODUCT),
    "pow": ("**", POWER),
    "eq": ("==", COMPARE),
    "ne": ("!=", COMPARE),
    "lt": ("<", COMPARE),
    "le": ("<=", COMPARE),
    "gt": (">", COMPARE),
    "ge": (">=", COMPARE),
    "logical_and": ("and", LOGIC),
    "logical_or": ("or", LOGIC),
}


@dataclass(frozen=True, slots=True)
class Equation:
    """`name[axes] = right`; `shape` and `dtype` of the value, `origin` in the user's code."""

    name: str
    axes: tuple[str, ...]
    right: str
    node: g.Node
    origin: g.Origin

    @property
    def text(self) -> str:
        indices = f"[{', '.join(self.axes)}]" if self.axes else ""
        return f"{self.name}{indices} = {self.right}"


def graph_text(graph: g.Graph) -> str:
    """The graph's inputs with their types, then its equations, each with the line it comes from."""
    lines = [f"{s.name}: {type_text(s.node)}  {s.node.role}" for s in graph.inputs]
    lines.append("")
    for e in equations(graph):
        where = f"  line {e.origin.line}" if e.origin.line else ""
        lines.append(f"{e.text}    # {type_text(e.node)}{where}")
    return "\n".join(lines) + "\n"


def type_text(node: g.Node) -> str:
    """`float32[128, 4]`."""
    return f"{node.dtype}[{', '.join(map(str, node.shape))}]"


def equations(graph: g.Graph) -> tuple[Equation, ...]:
    """The graph as index equations, operands first, outputs and mutations last."""
    names = _names(graph)
    out = []
    for node in graph.nodes():
        if node in names and not isinstance(node, g.Input):
            out.append(_equation(names[node], node, names, graph))
    taken = set(names.values())
    labels = _root_labels(graph)
    for label, root in zip(labels, graph.roots, strict=True):
        if label not in taken:
            out.append(_equation(label, root, names, graph, named=root in names))
    return tuple(out)


def _root_labels(graph: g.Graph) -> list[str]:
    count = len(graph.outputs)
    outs = ["out"] if count == 1 else [f"out{k}" for k in range(count)]
    return outs + [f"new {m.target}" for m in graph.mutations]


def _equation(
    name: str, node: g.Node, names: Mapping[g.Node, str], graph: g.Graph, named: bool = False
) -> Equation:
    origin = graph.origins.get(node, g.Origin())
    if isinstance(node, g.Extern) and not named:
        return Equation(name, (), _call_text(node, names), node, origin)
    axes = tuple(ix.var(_letter(k), n) for k, n in enumerate(node.shape))
    inner = names if named else {n: t for n, t in names.items() if n != node}
    piece = _Writer(inner).at(node, axes, len(axes))
    return Equation(name, tuple(str(a) for a in axes), piece.text, node, origin)


def _call_text(node: g.Extern, names: Mapping[g.Node, str]) -> str:
    """`aten.sort(x, 1)[0]`: an operator that is called as it is."""
    call = node.call
    args = [_arg_text(a, names) for a in call.args]
    args += [f"{k}={_arg_text(v, names)}" for k, v in call.kwargs]
    text = f"{call.op.removesuffix('.default')}({', '.join(args)})"
    return text if len(call.results) == 1 else f"{text}[{node.position}]"


def _arg_text(arg: g.Arg, names: Mapping[g.Node, str]) -> str:
    match arg:
        case g.Node():
            return names[arg] if arg in names else _Writer(names).at(arg, arg.axes, 0).text
        case tuple():
            return f"[{', '.join(_arg_text(a, names) for a in arg)}]"
        case g.Verbatim():
            return arg.text
        case g.Device():
            return "device"
        case _:
            return repr(arg)


def _letter(k: int) -> str:
    return LETTERS[k] if k < len(LETTERS) else f"i{k}"


# --------------------------------------------------------------------------- which values get names


def _names(graph: g.Graph) -> dict[g.Node, str]:
    """A name for every input and for every node that deserves an equation of its own."""
    names: dict[g.Node, str] = {s.node: s.name for s in graph.inputs}
    taken = set(names.values()) | set(_root_labels(graph))
    for label, root in reversed(list(zip(_root_labels(graph), graph.roots, strict=True))):
        if not isinstance(root, g.Input):
            names[root] = label
    for node in _worth_naming(graph):
        if node not in names:
            names[node] = _fresh(node, graph.origins.get(node, g.Origin()), taken)
    return names


def _fresh(node: g.Node, origin: g.Origin, taken: set[str]) -> str:
    """The user's name of the module that computes the value, else its operation with a number."""
    last = origin.module.rpartition(".")[2]
    if last.isidentifier() and last not in taken:
        taken.add(last)
        return last
    kind = node.kind.removeprefix("aten.").partition(".")[0].removeprefix("reduce_")
    name = next(n for k in range(1, len(taken) + 2) if (n := f"{kind}_{k}") not in taken)
    taken.add(name)
    return name


def _worth_naming(graph: g.Graph) -> list[g.Node]:
    nodes = graph.nodes()
    uses = _uses_through_views(graph, nodes)
    forced = {n for x in nodes for n in _forced_by(x)}
    roots = set(graph.roots)
    size: dict[g.Node, tuple[int, int]] = {}
    found = []
    for n in nodes:
        leaves = sum(size[o][0] for o in n.operands) or 1
        depth = 1 + max((size[o][1] for o in n.operands), default=0)
        plain = isinstance(n, g.Input | g.Const | g.Iota | g.View)
        shared = uses[n] > 1 and not plain
        large = (leaves > LEAVES or depth > DEPTH) and not isinstance(n, g.View)
        if shared or large or n in forced or isinstance(n, g.Extern):
            found.append(n)
        named = (bool(found) and found[-1] == n) or n in roots or (plain and not n.operands)
        size[n] = (1, 0) if named else (leaves, depth)
    return found


def _uses_through_views(graph: g.Graph, nodes: Sequence[g.Node]) -> dict[g.Node, int]:
    """How often each value is mentioned when views are written out where they are used."""
    uses = dict.fromkeys(nodes, 0)
    for root in graph.roots:
        uses[root] += 1
    for n in reversed(nodes):
        for o in n.operands:
            uses[o] += uses[n] if isinstance(n, g.View) else 1
    return uses


def _forced_by(node: g.Node) -> list[g.Node]:
    """Values that `node` can only mention by name: operands of calls, and of nested sums."""
    if isinstance(node, g.Extern):
        return [o for o in node.operands if not isinstance(o, g.Input | g.Const)]
    if isinstance(node, g.Contract | g.ArgReduce | g.Scan):
        return [s for s in map(_source, node.operands) if _holds_sum(s)]
    return []


def _source(node: g.Node) -> g.Node:
    while isinstance(node, g.View):
        node = node.x
    return node


def _holds_sum(node: g.Node) -> bool:
    """Whether a sum would be written inside: looks a few operations deep."""
    front = [node]
    for _ in range(4):
        if any(isinstance(n, g.Reduce | g.Scan | g.Contract) for n in front):
            return True
        front = [_source(o) for n in front for o in n.operands][:16]
    return False


# ----------------------------------------------------------------------------- right-hand sides


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text with its precedence; `open` when it ends in the body of a sum."""

    text: str
    level: int = ATOM
    open: bool = False

    def inside(self, level: int) -> str:
        """The text as an operand that must bind at least as tightly as `level`."""
        return self.text if self.level >= level else f"({self.text})"


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes a node's value at given indices; nodes in `names` are mentioned, not expanded."""

    names: Mapping[g.Node, str]

    def at(self, node: g.Node, axes: Sequence[Index], used: int) -> _Piece:
        """`used` letters are bound already; new sums take the next ones."""
        if node in self.names:
            return _mention(self.names[node], axes)
        match node:
            case g.Input():
                return _mention(node.name, axes)
            case g.Const():
                return _number(node.value)
            case g.Iota():
                value = ix.substitute(node.value, dict(zip(node.axes, axes, strict=True)))
                return _Piece(str(value), ATOM if isinstance(value, ix.Var) else SUM)
            case g.Unary():
                return _unary(node.op, self.at(node.x, axes, used))
            case g.Binary():
                return self._binary(node, axes, used)
            case g.Where():
                cond, a, b = (self.at(o, axes, used) for o in node.operands)
                return _choice(a, cond.inside(LOGIC), b)
            case g.Cast():
                return _Piece(f"{node.dtype}({self.at(node.x, axes, used).text})")
            case _:
                return self._indexed(node, tuple(axes), used)

    def _binary(self, node: g.Binary, axes: Sequence[Index], used: int) -> _Piece:
        first, second = node.a, node.b
        if node.op == "mul" and isinstance(second, g.Const):
            first, second = second, first
        a, b = self.at(first, axes, used), self.at(second, axes, used)
        if node.op not in INFIX:
            return _Piece(f"{node.op}({a.text}, {b.text})")
        sign, level = INFIX[node.op]
        left = f"({a.text})" if a.open and level >= PRODUCT else a.inside(level)
        swaps = node.op in ("add", "mul", "logical_and", "logical_or")
        last_sum = b.open and node.op == "mul" and b.level == PRODUCT
        right = b.inside(level if (swaps and _same(node.op, second)) or last_sum else level + 1)
        return _Piece(f"{left} {sign} {right}", level, b.open and right == b.text)

    def _indexed(self, node: g.Node, axes: tuple[Index, ...], used: int) -> _Piece:
        here = dict(zip(node.axes, axes, strict=True))
        match node:
            case g.View():
                inner = self.at(node.x, [ix.substitute(e, here) for e in node.index], used)
                conds = ix.substitute_conds(node.valid, here)
                return _choice(inner, conds_text(conds), _number(node.fill)) if conds else inner
            case g.Concat():
                return self._concat(node, axes, used)
            case g.Reduce() | g.ArgReduce():
                return self._reduce(node, axes, used)
            case g.Scan():
                return self._scan(node, axes, used)
            case g.Contract():
                return self._contract(node, here, used)
            case g.Gather():
                index = [ix.substitute(e, here) for e in node.index]
                where = self.at(node.where, axes, used).text
                index[node.axis] = ix.Var(where, node.x.shape[node.axis])
                return self.at(node.x, index, used)
            case _:
                return _mention(node.kind, axes)

    def _concat(self, node: g.Concat, axes: tuple[Index, ...], used: int) -> _Piece:
        at, start, parts = axes[node.axis], 0, []
        for x in node.xs:
            index = (*axes[: node.axis], at - start, *axes[node.axis + 1 :])
            start += x.shape[node.axis]
            parts.append((self.at(x, index, used), conds_text((ix.less(at, start),))))
        out = parts[-1][0]
        for piece, cond in reversed(parts[:-1]):
            out = _choice(piece, cond, out)
        return out

    def _reduce(self, node: g.Reduce | g.ArgReduce, axes: tuple[Index, ...], used: int) -> _Piece:
        gone = node.axes_reduced if isinstance(node, g.Reduce) else (node.axis,)
        rest = iter(axes)
        index, bound = [], []
        for k, n in enumerate(node.x.shape):
            if k in gone:
                bound.append(ix.var(_letter(used + len(bound)), n))
            index.append(bound[-1] if k in gone else next(rest))
        body = self.at(node.x, index, used + len(bound))
        return _summed(node.op, bound, body)

    def _scan(self, node: g.Scan, axes: tuple[Index, ...], used: int) -> _Piece:
        """`sum(k <= j) x[i, k]`."""
        bound = ix.var(_letter(used), node.x.shape[node.axis])
        index = (*axes[: node.axis], bound, *axes[node.axis + 1 :])
        sign = (">" if node.reverse else "<") + ("" if node.exclusive else "=")
        body = self.at(node.x, index, used + 1).inside(PRODUCT)
        return _Piece(f"{node.op}({bound} {sign} {axes[node.axis]}) {body}", PRODUCT, open=True)

    def _contract(self, node: g.Contract, here: dict[Index, Index], used: int) -> _Piece:
        bound = [ix.var(_letter(used + k), n) for k, n in enumerate(node.reduced)]
        here = here | dict(zip(node.reduced_axes, bound, strict=True))
        factors = []
        for x, index, valid in (
            (node.a, node.a_index, node.a_valid),
            (node.b, node.b_index, node.b_valid),
        ):
            piece = self.at(x, [ix.substitute(e, here) for e in index], used + len(bound))
            conds = ix.substitute_conds(valid, here)
            factors.append(_choice(piece, conds_text(conds), _number(0)) if conds else piece)
        a, b = (f"({f.text})" if f.open else f.inside(PRODUCT + k) for k, f in enumerate(factors))
        return _summed("sum", bound, _Piece(f"{a} * {b}", PRODUCT))


def _same(op: str, node: g.Node) -> bool:
    return isinstance(node, g.Binary) and node.op == op


def _mention(name: str, axes: Sequence[Index]) -> _Piece:
    return _Piece(f"{name}[{', '.join(map(str, axes))}]" if axes else name)


def _number(value: float | int | bool) -> _Piece:
    if isinstance(value, bool):
        return _Piece("true" if value else "false")
    text = f"{value:.7g}" if isinstance(value, float) and isfinite(value) else str(value)
    return _Piece(text, NEGATION if text.startswith("-") else ATOM)


def _unary(op: str, x: _Piece) -> _Piece:
    if op == "neg":
        return _Piece(f"-{x.inside(NEGATION)}", NEGATION)
    if op == "logical_not":
        return _Piece(f"not {x.inside(COMPARE)}", COMPARE)
    return _Piece(f"{op}({x.text})")


def _choice(a: _Piece, cond: str, b: _Piece) -> _Piece:
    return _Piece(f"{a.inside(LOGIC)} if {cond} else {b.text}", TERNARY)


def _summed(op: str, bound: Sequence[Index], body: _Piece) -> _Piece:
    letters = [v.name for v in bound if isinstance(v, ix.Var)]
    if not letters and op not in ("argmax", "argmin"):
        return body
    return _Piece(f"{op}({', '.join(letters)}) {body.inside(PRODUCT)}", PRODUCT, open=True)


def conds_text(conds: Conds) -> str:
    """`i >= 1 and j < 7`."""
    return " and ".join(_cond_text(c) for c in conds)


def _cond_text(c: Cond) -> str:
    constant, terms = ix.parts(c.x)
    if c.kind == "ge" and terms and all(k < 0 for k, _ in terms):
        return f"{ix.add(*(ix.mul(a, -k) for k, a in terms))} <= {constant}"
    left = ix.add(ix.const(0), *(ix.mul(a, k) for k, a in terms))
    return f"{left} {'>=' if c.kind == 'ge' else '=='} {-constant}"
