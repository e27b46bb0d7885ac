"""What was measured of products on a device: choices that may stand in place of the model's.

A choice is found by a key that names what its times depend on. Nothing is timed or stored here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

LIBRARY = "library"


@dataclass(frozen=True, slots=True)
class Choice:
    """Seconds of each way to compute a product, by name; `LIBRARY` is the library's."""

    seconds: Mapping[str, float]

    @property
    def best(self) -> str:
        """The fastest; of equals the first in alphabetical order."""
        return min(sorted(self.seconds), key=lambda name: self.seconds[name])

    @property
    def text(self) -> str:
        times = sorted(self.seconds.items(), key=lambda item: (item[1], item[0]))
        return ", ".join(f"{name} {seconds * 1e6:.1f} us" for name, seconds in times)


@dataclass(frozen=True, slots=True)
class Tuning:
    """The choices of one device by their keys; none where nothing was asked to be measured."""

    device: str = ""
    choices: Mapping[str, Choice] = field(default_factory=dict)
