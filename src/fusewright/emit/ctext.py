"""C text without meaning: fragments with precedence, literals, identifiers, indentation, wrapping.

Everything here is shared by the C++ and the CUDA printers. What an expression means, how operations
are spelled and how loops are laid out live in `spell`, `cstyle` and the anchors' modules.
"""

import keyword
import math
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fusewright.errors import IRError
from fusewright.ir.body import Scalar
from fusewright.ir.dtypes import BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT32, DType

WIDTH = 100
INDENT = 4

# Precedence of C operators: a larger number binds tighter.
TERNARY, LOR, LAND, BITOR, BITXOR, BITAND, EQUALITY, RELATION, SHIFT, ADD, MUL, UNARY, PRIMARY = (
    range(2, 15)
)


@dataclass(frozen=True, slots=True)
class Text:
    """A C expression and the precedence of its outermost operator."""

    code: str
    level: int = PRIMARY

    def at(self, level: int) -> str:
        """The expression as an operand that must bind at least as tightly as `level`."""
        return self.code if self.level >= level else f"({self.code})"


def infix(op: str, level: int, a: Text, b: Text) -> Text:
    """`a op b`, left-associative."""
    return Text(f"{a.at(level)} {op} {b.at(level + 1)}", level)


def call(function: str, *args: Text) -> Text:
    """`function(args)`."""
    return Text(f"{function}({', '.join(a.code for a in args)})")


def prefix(op: str, a: Text) -> Text:
    """`op a` for `-`, `!`, `~` and casts."""
    code = a.at(UNARY)
    gap = " " if code.startswith(op) else ""
    return Text(f"{op}{gap}{code}", UNARY)


def ternary(cond: Text, a: Text, b: Text) -> Text:
    """`cond ? a : b`."""
    return Text(f"{cond.at(LOR)} ? {a.at(LOR)} : {b.at(TERNARY)}", TERNARY)


# ------------------------------------------------------------------------------------- identifiers

# Keywords of C++ and the names that the printers and the CUDA headers use themselves.
_RESERVED_TEXT = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl const
constexpr const_cast continue decltype default delete do double dynamic_cast else enum explicit
export extern false float for friend goto if inline int long mutable namespace new noexcept not
not_eq nullptr operator or or_eq private protected public register reinterpret_cast restrict
return short signed sizeof static static_assert static_cast struct switch template this throw true
try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq std
main int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t half threadIdx blockIdx
blockDim gridDim warpSize stream error failed lane item width start v row live group column chunk
flat base NULL INFINITY NAN min max abs
"""
_RESERVED = frozenset(_RESERVED_TEXT.split())


def identifier(name: str) -> str:
    """`name` as a C identifier that is no keyword of C++ or Python and no name the printers use."""
    clean = re.sub(r"_{2,}", "_", re.sub(r"\W", "_", name, flags=re.ASCII)).strip("_") or "v"
    if clean[0].isdigit():
        clean = f"v{clean}"
    taken = clean in _RESERVED or keyword.iskeyword(clean) or clean.lower().startswith("fw_")
    return f"{clean}_" if taken else clean


class Names:
    """Hands out identifiers that are distinct within one function."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def fresh(self, wanted: str) -> str:
        """`wanted` as an identifier, with a number appended when it is taken."""
        base = name = identifier(wanted)
        count = 1
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


# ---------------------------------------------------------------------------------------- literals


def literal(value: Scalar, dtype: DType) -> Text:
    """A constant of `dtype`, exact."""
    if dtype == BOOL:
        return Text("true" if value else "false")
    if dtype.kind == "int":
        return _int_literal(int(value))
    if dtype in (FLOAT16, BFLOAT16):
        return call(f"fw_to_{dtype.name}", float_literal(float(value), FLOAT32))
    return float_literal(float(value), dtype)


def _int_literal(value: int) -> Text:
    if value in (-(2**31), -(2**63)):
        suffix = "" if value == -(2**31) else "LL"
        return Text(f"{value + 1}{suffix} - 1", ADD)
    suffix = "" if -(2**31) < value < 2**31 else "LL"
    return Text(f"{value}{suffix}", UNARY if value < 0 else PRIMARY)


def float_literal(value: float, dtype: DType) -> Text:
    """The shortest decimal that reads back as the same float32 or float64."""
    if math.isnan(value):
        return Text("FW_NAN" if dtype == FLOAT32 else "(double)FW_NAN")
    value = round_to_float32(value) if dtype == FLOAT32 else value
    if math.isinf(value):
        code = "FW_INF" if dtype == FLOAT32 else "(double)FW_INF"
        return Text(code) if value > 0 else Text(f"-{code}", UNARY)
    code = _shortest_float32(value) if dtype == FLOAT32 else repr(value)
    if "." not in code and "e" not in code:
        code += ".0"
    suffix = "" if dtype == FLOAT64 else "f"
    negative = math.copysign(1.0, value) < 0
    return Text(f"{code}{suffix}", UNARY if negative else PRIMARY)


def round_to_float32(value: float) -> float:
    """The float32 nearest to `value`; an infinity when it is out of range."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def _shortest_float32(value: float) -> str:
    digits = (f"{value:.{p}g}" for p in range(1, 10))
    shortest = next(d for d in digits if round_to_float32(float(d)) == value)
    plain = abs(value) < 2**24 and value == int(value)
    return str(int(value)) if plain and value else shortest


# ----------------------------------------------------------------------------------- line building


class Writer:
    """Collects lines of C with indentation; too long ones are wrapped at their outermost spaces."""

    def __init__(self, depth: int = 0) -> None:
        self.lines: list[str] = []
        self.depth = depth

    def line(self, text: str = "") -> None:
        if text.startswith("#pragma"):
            *start, last = wrap(" " * (INDENT * self.depth) + text, WIDTH - 2)
            self.lines += [*(f"{x} \\" for x in start), last]
        elif not text or text.startswith("#"):
            self.lines.append(text)
        else:
            self.lines.extend(wrap(" " * (INDENT * self.depth) + text))

    def extend(self, lines: Iterable[str]) -> None:
        for text in lines:
            self.line(text)

    @contextmanager
    def declared(self, name: str, declaration: str) -> Iterator[None]:
        """Puts `declaration` before the lines written inside, if any of them uses `name`."""
        mark = len(self.lines)
        yield
        use = re.compile(rf"\b{name}\b")
        if any(use.search(x) for x in self.lines[mark:]):
            self.lines.insert(mark, " " * (INDENT * self.depth) + declaration)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """`head {` ... `}`."""
        self.line(f"{head} {{" if head else "{")
        self.depth += 1
        yield
        self.depth -= 1
        self.line("}")

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def shortened(quoted: str) -> str:
    """A source line as comments quote it: its beginning, where it is longer than a line."""
    return quoted if len(quoted) < WIDTH else f"{quoted[: WIDTH - 10].rstrip()}…"


def wrap(line: str, width: int = WIDTH) -> list[str]:
    """`line` broken at spaces where parentheses nest least; continuations are indented by 4 more.

    A comment continues as a comment.
    """
    if len(line) <= width:
        return [line]
    stripped = line.lstrip()
    indent = len(line) - len(stripped)
    lead = "// " if stripped.startswith("//") else ""
    cut = _best_break(line, indent + len(lead), width)
    if cut is None:
        return [line]
    step = 0 if lead else INDENT
    rest = " " * (indent + step) + lead + line[cut:].lstrip()
    head = line[:cut].rstrip()
    return [head, *(_wrap_rest(rest, width))]


def _wrap_rest(rest: str, width: int) -> list[str]:
    """A continuation, itself wrapped without further indentation."""
    lines = []
    while len(rest) > width:
        indent = len(rest) - len(rest.lstrip())
        lead = "// " if rest.lstrip().startswith("//") else ""
        cut = _best_break(rest, indent + len(lead), width)
        if cut is None:
            break
        lines.append(rest[:cut].rstrip())
        rest = " " * indent + lead + rest[cut:].lstrip()
    return [*lines, rest]


def _best_break(line: str, start: int, width: int) -> int | None:
    """The last position, among those of least nesting in the second half, where a break may go."""
    depth, found = 0, []
    for at, c in enumerate(line[: width + 1]):
        depth += (c in "([{") - (c in ")]}")
        if c == " " and at > start and not _in_type(line, at):
            found.append((depth, -at))
    late = [f for f in found if -f[1] > (start + width) // 2] or found
    return -min(late)[1] if late else None


def _in_type(line: str, at: int) -> bool:
    """Whether the space at `at` is inside of a type's name."""
    return line[:at].endswith(("long", "unsigned", "signed")) and line[at + 1 : at + 2].isalpha()


def comment(text: str) -> list[str]:
    """Lines of a `//` comment."""
    return [f"// {part}".rstrip() for part in text.splitlines()]


def c_type(dtype: DType, dialect: str) -> str:
    """The C spelling of an element type; neither dialect needs a header for its spelling."""
    table = _CPU_TYPES if dialect == "cpu" else _CUDA_TYPES
    if dtype.name not in table:
        raise IRError(f"no C type for {dtype.name} on {dialect}: add it to emit/ctext.py")
    return table[dtype.name]


def memory_type(dtype: DType, dialect: str) -> str:
    """The C type of elements in memory and of accumulators: on a CPU bools are bytes, since GCC
    makes no vectors of loads and folds of `bool`."""
    return "uint8_t" if dtype == BOOL and dialect == "cpu" else c_type(dtype, dialect)


_COMMON_TYPES = {
    "bool": "bool",
    INT32.name: "int",
    "float16": "fw_float16",
    "bfloat16": "fw_bfloat16",
    "float32": "float",
    "float64": "double",
}
_CPU_TYPES = {
    **_COMMON_TYPES,
    "uint8": "uint8_t",
    "int8": "int8_t",
    "int16": "int16_t",
    "int64": "int64_t",
}
_CUDA_TYPES = {
    **_COMMON_TYPES,
    "uint8": "unsigned char",
    "int8": "signed char",
    "int16": "short",
    "int64": "long long",
}
