"""Prints index expressions and conditions as C integers, 64-bit only where bounds need it.

Variables become the names they are given; bounds come from `ir.index`. No scalars, no loops.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fusewright.errors import IRError
from fusewright.ir.index import (
    Cond,
    Conds,
    Div,
    Extremum,
    Index,
    Linear,
    Mod,
    Var,
    const,
    parts,
)

from .ctext import ADD, EQUALITY, LAND, MUL, PRIMARY, RELATION, UNARY, Text

INT32_MAX = 2**31 - 1


def is_wide(lo: int, hi: int) -> bool:
    """Whether values in [lo, hi] need 64 bits."""
    return lo < -INT32_MAX or hi > INT32_MAX


@dataclass(frozen=True, slots=True)
class IndexPrinter:
    """`names` gives the text of each variable (and of whole expressions that were named before).

    `wide_type` is the 64-bit type. A variable is an `int` when its extent fits, else `wide_type`.
    """

    names: Mapping[Index, str]
    wide_type: str

    def text(self, x: Index) -> Text:
        """`x` as C."""
        if x in self.names:
            return Text(self.names[x])
        match x:
            case Var():
                raise IRError(f"index variable {x.name} is used outside of its loop")
            case Linear():
                return self._linear(x)
            case Div():
                return self._div(x)
            case Mod():
                return self._mod(x)
            case Extremum():
                kind = f"fw_{x.kind}imum<{self.type_of(x)}>"
                return Text(f"{kind}({self.text(x.a).code}, {self.text(x.b).code})")
            case _:
                raise TypeError(f"not an index expression: {x!r}")

    def type_of(self, x: Index) -> str:
        """The C type that holds every value of `x`."""
        return self.wide_type if is_wide(x.lo, x.hi) else "int"

    def _linear(self, x: Linear) -> Text:
        terms = sorted(x.terms, key=lambda t: (t[0] < 0, -abs(t[0]), self.text(t[1]).code))
        if not terms:
            return self._constant(x.constant)
        widen = _needs_wide(x.constant, terms)
        code, level = "", ADD
        if terms[0][0] < 0 and x.constant:
            code = self._constant(x.constant, widen).code
        for c, a in terms:
            term = self._term(abs(c), a, widen and not code)
            if not code:
                code, level = (term.code, term.level) if c > 0 else (f"-{term.at(MUL)}", UNARY)
            else:
                code, level = f"{code} {'-' if c < 0 else '+'} {term.at(MUL)}", ADD
        if x.constant and terms[0][0] > 0:
            code, level = f"{code} {'-' if x.constant < 0 else '+'} {abs(x.constant)}", ADD
        return Text(code, level)

    def _constant(self, value: int, widen: bool = False) -> Text:
        if is_wide(value, value):
            return Text(f"{value}LL", UNARY if value < 0 else PRIMARY)
        if widen:
            return Text(f"({self.wide_type}){value}" if value >= 0 else f"{value}LL", UNARY)
        return Text(str(value), UNARY if value < 0 else PRIMARY)

    def _term(self, c: int, a: Index, widen: bool) -> Text:
        atom = self.text(a)
        product_wide = is_wide(c * a.lo, c * a.hi)
        if (widen or product_wide) and not is_wide(a.lo, a.hi):
            atom = Text(f"({self.wide_type}){atom.at(UNARY)}", UNARY)
        return atom if c == 1 else Text(f"{atom.at(MUL)} * {c}", MUL)

    def _shifted(self, x: Index, divisor: int) -> tuple[Text, int]:
        """`x + k * divisor`, not negative, and k: C division truncates, floor division does not."""
        k = -(x.lo // divisor) if x.lo < 0 else 0
        return self.text(x + const(k * divisor)), k

    def _div(self, x: Div) -> Text:
        inner, k = self._shifted(x.x, x.divisor)
        out = Text(f"{inner.at(MUL)} / {x.divisor}", MUL)
        return out if not k else Text(f"{out.code} - {k}", ADD)

    def _mod(self, x: Mod) -> Text:
        inner, _ = self._shifted(x.x, x.divisor)
        return Text(f"{inner.at(MUL)} % {x.divisor}", MUL)

    # ------------------------------------------------------------------------------- conditions

    def cond(self, c: Cond) -> Text:
        """`x >= 0` or `x == 0` with the negative terms moved to the other side."""
        constant, terms = parts(c.x)
        left = Linear(0, tuple(t for t in terms if t[0] > 0))
        right = Linear(0, tuple((-k, a) for k, a in terms if k < 0))
        op, level = (">=", RELATION) if c.kind == "ge" else ("==", EQUALITY)
        if not left.terms and c.kind == "ge":
            # c - r >= 0 is r < c + 1
            left, right, constant, op = right, Linear(constant + 1, ()), 0, "<"
        elif constant and right.terms:
            left = Linear(constant, left.terms)
        else:
            right = Linear(-constant, right.terms)
        a, b = self.text(_tidy(left)), self.text(_tidy(right))
        return Text(f"{a.at(level + 1)} {op} {b.at(level + 1)}", level)

    def conds(self, conds: Conds) -> Text:
        """The conjunction; never empty."""
        if len(conds) == 1:
            return self.cond(conds[0])
        return Text(" && ".join(self.cond(c).at(LAND + 1) for c in conds), LAND)


def _tidy(x: Linear) -> Index:
    """`1 * atom` is the atom."""
    if not x.constant and len(x.terms) == 1 and x.terms[0][0] == 1:
        return x.terms[0][1]
    return x


def _needs_wide(constant: int, terms: list[tuple[int, Index]]) -> bool:
    """Whether a partial sum in printing order can leave 32 bits."""
    lo = hi = constant if terms[0][0] < 0 else 0
    for c, a in terms:
        lo += min(c * a.lo, c * a.hi)
        hi += max(c * a.lo, c * a.hi)
        if is_wide(lo, hi):
            return True
    return is_wide(lo + constant, hi + constant)
