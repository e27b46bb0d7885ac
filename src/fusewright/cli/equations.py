"""Index equations typeset for reading: `out[i] = 0.75 · Σₖ x[i,k] · w[k]`. Text in, text out.

What the equations say is `ir.text`'s; only spelling and line breaks are decided here.
"""

import re
import textwrap

from fusewright.ir import graph as g
from fusewright.ir.text import Equation, equations, type_text

_LETTERS = "ijklmnprstuv"
_SUBSCRIPTS = str.maketrans(dict(zip(_LETTERS, "ᵢⱼₖₗₘₙₚᵣₛₜᵤᵥ", strict=True)))
_FOLDS = {"sum": "Σ", "prod": "Π"}
# `max(k) x[i, k]` is a fold; `max(i, j) - 1` and `max(i, j) if ...` are a function's value.
_FOLD = re.compile(
    r"\b(sum|prod|max|min|any|all|argmax|argmin)\(([a-z](?:, [a-z])*)\) "
    r"(?=[\w(]|-[^ ])(?!(?:if|else|and|or)\b)"
)
_SIGNS = ((" * ", " · "), (" >= ", " ≥ "), (" <= ", " ≤ "), (" != ", " ≠ "), ("-inf", "−∞"))
_INFINITY = re.compile(r"\binf\b")


def typeset(text: str) -> str:
    """One equation of `ir.text` with mathematical signs."""
    text = _FOLD.sub(_fold, text)
    for plain, sign in _SIGNS:
        text = text.replace(plain, sign)
    return _close(_INFINITY.sub("∞", text))


def _close(text: str) -> str:
    """No spaces after the commas of indices, nested ones included."""
    out, depth = [], 0
    for k, c in enumerate(text):
        depth += (c == "[") - (c == "]")
        if not (c == " " and depth and text[k - 1] == ","):
            out.append(c)
    return "".join(out)


def _fold(found: re.Match[str]) -> str:
    letters = found[2].replace(", ", "")
    known = all(letter in _LETTERS for letter in letters)
    below = letters.translate(_SUBSCRIPTS) if known else f"({letters})"
    return f"{_FOLDS.get(found[1], found[1])}{below} "


def wrapped(text: str, width: int, indent: int = 4) -> list[str]:
    """Lines of at most `width` where that is possible, the later ones indented."""
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def model_equations(graph: g.Graph) -> tuple[tuple[str, str], ...]:
    """(equation, what its value is and where it comes from), operands first."""
    return tuple((typeset(e.text), _origin_text(e)) for e in equations(graph))


def _origin_text(e: Equation) -> str:
    where = f", line {e.origin.line}" if e.origin.line else ""
    return f"{type_text(e.node)}{where}"
