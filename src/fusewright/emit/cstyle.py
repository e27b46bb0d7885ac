"""Prints scalar bodies as C: a DAG becomes short named constants and readable expressions.

A value used once is written where it is used, as long as the text stays short; a value used more
often, or a long one, gets a name. What stands under a guard is evaluated only under that guard. The
same code prints C++ and CUDA C++; loops, vectors and accumulators belong to the anchors' modules.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fusewright.errors import IRError
from fusewright.ir.body import (
    Apply,
    Checked,
    Choose,
    Convert,
    Coord,
    Expr,
    Guarded,
    Lit,
    Load,
    Ref,
)
from fusewright.ir.dtypes import INT64
from fusewright.ir.index import Div, Extremum, Index, Mod, children, const
from fusewright.ir.index import walk as walk_index

from .cindex import IndexPrinter, is_wide
from .ctext import ADD, MUL, UNARY, Names, Text, Writer, c_type, call, literal, ternary
from .spell import DialectName, apply_op, convert

# A value whose text is longer than this gets a name even if it is used once.
INLINE_LIMIT = 64
# A repeated part of an index expression that is longer than this gets a name.
NAMED_INDEX = 12
# Operations whose second operand C evaluates only where it counts.
SHORT_CIRCUIT = ("logical_and", "logical_or")
# Two branches of a guard longer than this become an if statement.
TERNARY_LIMIT = 72


@dataclass(frozen=True, slots=True)
class Env:
    """What names mean inside a kernel: pointers of buffers, loop variables, values behind `Ref`.

    `loaded` holds values of loads that were fetched before (vector registers); `fixed` are buffers
    that nobody writes meanwhile, where only the text can tell the compiler so.
    """

    dialect: DialectName
    names: Names
    pointers: Mapping[str, str]
    variables: Mapping[Index, str] = field(default_factory=dict)
    refs: Mapping[str, Text] = field(default_factory=dict)
    loaded: Mapping[Expr, Text] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()

    @property
    def index(self) -> IndexPrinter:
        return IndexPrinter(self.variables, c_type(INT64, self.dialect))

    def with_variables(self, extra: Mapping[Index, str]) -> "Env":
        return replace(self, variables={**self.variables, **extra})

    def with_refs(self, extra: Mapping[str, Text]) -> "Env":
        return replace(self, refs={**self.refs, **extra})

    def with_loaded(self, extra: Mapping[Expr, Text]) -> "Env":
        return replace(self, loaded={**self.loaded, **extra})

    def c_type(self, e: Expr) -> str:
        return c_type(e.dtype, self.dialect)

    def element(self, buffer: str, offset: Text) -> Text:
        """An element of a buffer in memory."""
        if buffer not in self.fixed:
            return Text(f"{self.pointers[buffer]}[{offset.code}]")
        at = "" if offset.code == "0" else f" + {offset.at(ADD)}"
        return Text(f"fw_fixed({self.pointers[buffer]}{at})")


def evaluate(roots: Sequence[Expr], env: Env, out: Writer) -> list[Text]:
    """Writes the statements that compute `roots` to `out` and returns the text of each value."""
    scope = _Scope(env, out, {})
    return scope.evaluate(roots)


def load_offset(e: Load, env: Env, out: Writer) -> Text:
    """Writes what the indices of a gather need and returns the text of where it reads."""
    scope = _Scope(env, out, {})
    scope.evaluate([x for x, _ in e.indirect])
    return scope.offset(e)


def name_value(name: str, body: Expr, env: Env, out: Writer) -> Text:
    """Writes `const T name = body;` and returns the name."""
    value = evaluate([body], env, out)[0]
    fresh = env.names.fresh(name)
    out.line(f"const {env.c_type(body)} {fresh} = {value.code};")
    return Text(fresh)


class _Scope:
    """One lexical block: the values that are computed in it or in a block around it."""

    def __init__(self, env: Env, out: Writer, outer: Mapping[Expr, Text]) -> None:
        self.env = env
        self.out = out
        self.known: dict[Expr, Text] = dict(outer)

    def evaluate(self, roots: Sequence[Expr]) -> list[Text]:
        done = self.env.loaded
        uses = _count_uses(roots, done)
        always = _unconditional(roots, done)
        chosen = _read_by_choices(roots, done) if self.env.dialect == "cpu" else set()
        for e in _in_order(roots, always, done):
            if e not in self.known:
                text = self._build(e)
                named = e in chosen or _deserves_name(e, text, uses[e])
                self.known[e] = self._name(e, text) if named and e not in done else text
        return [self.known[r] for r in roots]

    def _name(self, e: Expr, text: Text) -> Text:
        name = self._fresh(e)
        self.out.line(f"const {self.env.c_type(e)} {name} = {text.code};")
        return Text(name)

    def _fresh(self, e: Expr) -> str:
        match e:
            case Load():
                return self.env.names.fresh(f"{self.env.pointers[e.buffer]}_value")
            case Apply():
                return self.env.names.fresh(f"{e.op}_1")
            case _:
                return self.env.names.fresh(f"{type(e).__name__.lower()}_1")

    def _build(self, e: Expr) -> Text:
        if e in self.env.loaded:
            return self.env.loaded[e]
        dialect = self.env.dialect
        match e:
            case Lit():
                return literal(e.value, e.dtype)
            case Ref():
                return self._ref(e)
            case Load():
                return self._load(e)
            case Coord():
                return self._coord(e)
            case Apply():
                args = [self.known[a] for a in e.args]
                return apply_op(e.op, args, e.args[0].dtype, e.dtype, dialect)
            case Convert():
                return convert(self.known[e.x], e.x.dtype, e.dtype, dialect)
            case Choose():
                return ternary(*(self.known[x] for x in e.operands))
            case Checked():
                return self._checked(e)
            case Guarded():
                return self._guarded(e)
            case _:
                raise TypeError(f"not a scalar expression: {e!r}")

    def _ref(self, e: Ref) -> Text:
        if e.name not in self.env.refs:
            raise IRError(f"the value {e.name!r} is used before the phase that computes it")
        return self.env.refs[e.name]

    def _coord(self, e: Coord) -> Text:
        text, x = self._index(e.index), e.index
        if e.dtype == INT64:
            # An int where 64 bits are not needed: arithmetic with int64 operands widens it.
            return text if is_wide(x.lo, x.hi) else Text(f"({c_type(INT64, self.env.dialect)})"
                                                         f"{text.at(UNARY)}", UNARY)
        return convert(text, INT64, e.dtype, self.env.dialect)

    def _checked(self, e: Checked) -> Text:
        extra = [Text("failed")] if self.env.dialect == "cpu" else []
        return call("fw_checked", self.known[e.x], Text(str(e.extent)), *extra)

    def _load(self, e: Load) -> Text:
        return self.env.element(e.buffer, self.offset(e))

    def offset(self, e: Load) -> Text:
        """Where a load reads, in elements; its indices are computed already."""
        narrow = not is_wide(e.offset.lo, e.offset.hi + _reach(e))
        terms = [self._indirect(x, stride, narrow) for x, stride in e.indirect]
        if terms and e.offset == const(0):
            return Text(" + ".join(terms), ADD)
        offset = self._index(e.offset)
        return Text(" + ".join([*terms, offset.at(ADD)]), ADD) if terms else offset

    def _index(self, x: Index) -> Text:
        """An index expression; parts of it that are long and repeated are named before."""
        self._name_repeated(x)
        return self.env.index.text(x)

    def _name_repeated(self, x: Index) -> None:
        if len(self.env.index.text(x).code) <= INLINE_LIMIT:
            return
        for part in reversed(list(repeated_parts(x))):
            text = self.env.index.text(part)
            if part not in self.env.variables and len(text.code) > NAMED_INDEX:
                name = self.env.names.fresh("at_1")
                self.out.line(f"const {self.env.index.type_of(part)} {name} = {text.code};")
                self.env = self.env.with_variables({part: name})

    def _indirect(self, x: Expr, stride: int, narrow: bool) -> str:
        """The offset of a position; `narrow` where an int holds the whole of it.

        There it is one: 32-bit gathers are twice as wide, and GCC 12 computes 64-bit ones wrongly
        whose positions come from bools.
        """
        text = self.known[x]
        if narrow and isinstance(x, Checked):
            text = Text(f"(int){text.at(UNARY)}", UNARY)
        elif x.dtype != INT64 and not isinstance(x, Checked):
            text = Text(f"({c_type(INT64, self.env.dialect)}){text.at(UNARY)}", UNARY)
        return text.at(ADD) if stride == 1 else f"{text.at(MUL)} * {stride}"

    def _guarded(self, e: Guarded) -> Text:
        """A ternary when both branches are plain expressions, else an if statement."""
        for c in e.conds:
            self._name_repeated(c.x)
        cond = self.env.index.conds(e.conds)
        then, other = self._branch(e.x), self._branch(e.otherwise)
        plain = not then.lines and not other.lines
        if plain and len(cond.code + then.value.code + other.value.code) <= TERNARY_LIMIT:
            return ternary(cond, then.value, other.value)
        name = self._fresh(e)
        # A load of the other branch need not be within bounds where the conditions hold.
        needed = (x for x in _walk([e.otherwise], self.known) if x not in self.known)
        touches = any(isinstance(x, Load | Checked) for x in needed)
        if other.lines or touches:
            self.out.line(f"{self.env.c_type(e)} {name};")
        else:
            self.out.line(f"{self.env.c_type(e)} {name} = {other.value.code};")
        with self.out.block(f"if ({cond.code})"):
            self._assign(name, then)
        if other.lines or touches:
            with self.out.block("else"):
                self._assign(name, other)
        return Text(name)

    def _assign(self, name: str, branch: "_Branch") -> None:
        self.out.extend(branch.lines)
        self.out.line(f"{name} = {branch.value.code};")

    def _branch(self, x: Expr) -> "_Branch":
        out = Writer()
        scope = _Scope(self.env, out, self.known)
        value = scope.evaluate([x])[0]
        return _Branch(tuple(out.lines), value)


@dataclass(frozen=True, slots=True)
class _Branch:
    """Statements of one side of a guard and its value."""

    lines: tuple[str, ...]
    value: Text


def _reach(e: Load) -> int:
    """How far the checked positions of a load can be from its offset, in elements."""
    return sum((x.extent - 1) * stride for x, stride in e.indirect if isinstance(x, Checked))


def _deserves_name(e: Expr, text: Text, uses: int) -> bool:
    if isinstance(e, Lit | Ref) or text.code.isidentifier():
        return False
    return uses > 1 or len(text.code) > INLINE_LIMIT


def repeated_parts(x: Index) -> Iterator[Index]:
    """Divisions, remainders and extrema used more than once in `x`, users before operands."""
    uses: dict[Index, int] = {}
    for part in walk_index(x):
        for child in children(part):
            uses[child] = uses.get(child, 0) + 1
    for part in walk_index(x):
        if uses.get(part, 0) > 1 and isinstance(part, Div | Mod | Extremum):
            yield part


def _walk(
    roots: Iterable[Expr], done: Mapping[Expr, Text], guarded: bool = True
) -> Iterator[Expr]:
    """Every distinct subexpression once; nothing below what is `done`, nor, unless `guarded`, below
    guards."""
    seen: set[Expr] = set()
    stack = list(roots)
    while stack:
        e = stack.pop()
        if e not in seen:
            seen.add(e)
            yield e
            ends = e in done or (isinstance(e, Guarded) and not guarded)
            stack.extend(() if ends else e.operands)


def _count_uses(roots: Sequence[Expr], done: Mapping[Expr, Text]) -> dict[Expr, int]:
    uses: dict[Expr, int] = {}
    for r in roots:
        uses[r] = uses.get(r, 0) + 1
    for e in _walk(roots, done):
        for o in () if e in done else e.operands:
            uses[o] = uses.get(o, 0) + 1
    return uses


def _unconditional(roots: Iterable[Expr], done: Mapping[Expr, Text]) -> set[Expr]:
    """What is evaluated whatever the guards say; only membership is asked of this set."""
    return set(_walk(roots, done, guarded=False))


def _read_by_choices(roots: Iterable[Expr], done: Mapping[Expr, Text]) -> set[Expr]:
    """The loads that C's ?:, && and || would make conditional, which are no longer vectors' loads;
    only membership is asked of this set."""
    choices = [
        e
        for e in _walk(roots, done)
        if isinstance(e, Choose) or (isinstance(e, Apply) and e.op in SHORT_CIRCUIT)
    ]
    late = (x for e in choices if e not in done for x in e.operands[1:])
    return {e for e in _unconditional(late, done) if isinstance(e, Load)}


def _in_order(
    roots: Sequence[Expr], always: set[Expr], done: Mapping[Expr, Text]
) -> list[Expr]:
    """The unconditional values, each after everything it needs, also through its guards.

    A value that a guard shares with the code outside of it is thus computed before the guard.
    """
    order: dict[Expr, None] = {}
    stack: list[tuple[Expr, bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        e, ready = stack.pop()
        if e in order:
            continue
        if ready:
            order[e] = None
            continue
        stack.append((e, True))
        needs = () if e in done else e.operands
        if isinstance(e, Guarded):
            needs = tuple(x for x in _walk(needs, done) if x in always)
        stack.extend((o, False) for o in reversed(needs))
    return list(order)
