"""Where output goes: results on stdout, progress on stderr. No command's content is here."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.text import Text

# Width for a file or a pipe, where there is no terminal to ask.
PLAIN_WIDTH = 110
LEAST_WIDTH = 72


class Progress(Protocol):
    """What long work tells: a few words, and how much is done (0 to 1) where that is known."""

    def __call__(self, text: str, fraction: float = 0.0) -> None: ...


def show(*parts: RenderableType) -> None:
    """Print for people on stdout."""
    console = _stdout()
    for part in parts:
        console.print(part)


def width() -> int:
    """Columns of a line on stdout; on a narrower terminal the lines break once more."""
    return max(LEAST_WIDTH, _stdout().width)


class _Stdout(Console):
    """Leaves a closed pipe to `main`; rich would end the process with the code of a rejection."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _stdout() -> Console:
    wide = None if sys.stdout.isatty() else PLAIN_WIDTH
    return _Stdout(file=sys.stdout, width=wide, highlight=False)


def show_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value, indent=2))


def note(message: str) -> None:
    """One remark on stderr, which `--json` leaves free."""
    Console(file=sys.stderr, highlight=False, soft_wrap=True).print(Text(message, "yellow"))


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A line on stderr that changes as work goes on; one plain line per step without a terminal."""
    console = Console(file=sys.stderr, highlight=False)
    if not console.is_terminal:
        yield _PlainProgress(title)
        return
    with console.status(title) as status:

        def tell(text: str, fraction: float = 0.0) -> None:
            share = f" {fraction:.0%}" if fraction else ""
            status.update(Text(f"{title}: {text}{share}"))

        yield tell


class _PlainProgress:
    """Lines for a log: each step once, and of numbered ones (`round 7`) only the first."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.last = ""

    def __call__(self, text: str, fraction: float = 0.0) -> None:
        step = re.sub(r" \d+$", "", text)
        if step != self.last:
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)
            self.last = step
