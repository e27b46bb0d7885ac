"""What one compilation carries along: its options, its stage log and its warnings.

There are no intern tables: IR nodes are content-addressed (`ir.keyed`). Nothing here outlives the
compilation that made it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from fusewright.options import Options
from fusewright.target.tuning import Tuning

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class StageEntry:
    """One stage that ran: its name, its wall time in seconds, its result, and how to print it."""

    name: str
    seconds: float
    result: object
    show: Callable[[Any], str] = str

    def text(self) -> str:
        """The result as text, made only now: printing a large graph can cost more than a stage."""
        return self.show(self.result)


@dataclass(slots=True, eq=False)
class StageLog:
    """Grows while a compilation runs: `entries` and `warnings`, both in the order of arrival."""

    entries: list[StageEntry] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def entry(self, name: str) -> StageEntry:
        """The last entry of that name. Raises KeyError, naming the stages that ran."""
        for entry in reversed(self.entries):
            if entry.name == name:
                return entry
        raise KeyError(f"no stage {name!r}; ran: {', '.join(e.name for e in self.entries)}")

    def warn(self, message: str) -> None:
        """Keep a warning for the user; the same message is kept once."""
        if message not in self.warnings:
            self.warnings.append(message)

    @property
    def seconds(self) -> float:
        """Wall time of all stages, in seconds."""
        return sum(entry.seconds for entry in self.entries)


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """Options, log and tuned choices of one compilation; stages take it as their last argument."""

    options: Options = field(default_factory=Options)
    log: StageLog = field(default_factory=StageLog)
    tuning: Tuning = field(default_factory=Tuning)

    def timed(self, name: str, stage: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `stage`, log its time and result under `name`, and return the result.

        A stage that raises leaves no entry.
        """
        start = time.perf_counter()
        result = stage(*args, **kwargs)
        self.log.entries.append(StageEntry(name, time.perf_counter() - start, result))
        return result

    def warn(self, message: str) -> None:
        self.log.warn(message)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self.log.warnings)
