"""What the user may choose, as one frozen record; the only user of environment variables.

No defaults of single stages and nothing about a machine or a problem lives here.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from fusewright.errors import UsageError
from fusewright.target.arch import ARCHS

Precision = Literal["match", "ieee", "tf32", "bf16"]
Numerics = Literal["exact", "reassociate", "finite"]
Binding = Literal["raw", "torch"]

TARGETS = ("auto", *(a.name for a in ARCHS))
PRECISIONS: tuple[str, ...] = get_args(Precision)
NUMERICS: tuple[str, ...] = get_args(Numerics)
BINDINGS: tuple[str, ...] = get_args(Binding)


@dataclass(frozen=True, slots=True)
class Options:
    """One compilation's options. Raises UsageError for a value that has no meaning.

    target: `auto` is the GPU where there is one, else `cpu`.
    precision: arithmetic of contractions; `match` allows what eager may use under torch's flags.
    numerics: which rewrites are allowed: same bits, sums in another order, equal for finite values.
    binding: `raw` launches through ctypes, `torch` is the classical `load_inline` form.
    tune: measure schemes and tiles of products on the device where the user's table lacks them.
    tuned: take what that table has instead of the modelled best (`tune` does so too).
    debug: 0 is silent; 1 logs each stage with its time; 2 also prints each stage's result.
    """

    target: str = "auto"
    precision: Precision = "match"
    numerics: Numerics = "finite"
    binding: Binding = "raw"
    tune: bool = False
    tuned: bool = False
    debug: int = 0

    def __post_init__(self) -> None:
        _check_choice("target", self.target, TARGETS)
        _check_choice("precision", self.precision, PRECISIONS)
        _check_choice("numerics", self.numerics, NUMERICS)
        _check_choice("binding", self.binding, BINDINGS)
        for name in ("tune", "tuned"):
            if not isinstance(value := getattr(self, name), bool):
                raise UsageError(f"option {name}: {value!r} is not a bool")
        if isinstance(self.debug, bool) or not isinstance(self.debug, int) or self.debug < 0:
            raise UsageError(f"option debug: {self.debug!r} is not an integer of at least 0")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> "Options":
        """Options from `given`, then the environment, then the defaults, in this order.

        A given value of None counts as not given, so that a command line can pass its arguments
        through. Reads FUSEWRIGHT_TARGET (as `target`) and FUSEWRIGHT_DEBUG (as `debug`); an empty
        variable counts as unset. Raises UsageError for an unknown option or a bad value.
        """
        environment = os.environ if environ is None else environ
        unknown = sorted(set(given) - {field.name for field in fields(cls)})
        if unknown:
            raise UsageError(f"no such option: {', '.join(unknown)}")
        chosen = {name: value for name, value in given.items() if value is not None}
        return cls(**(_read_environment(environment) | chosen))


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"option {name}: {value!r} is not one of {', '.join(choices)}")


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The options that the environment sets, by field name."""
    found: dict[str, Any] = {}
    if target := environ.get("FUSEWRIGHT_TARGET"):
        _check_choice("target (from FUSEWRIGHT_TARGET)", target, TARGETS)
        found["target"] = target
    if debug := environ.get("FUSEWRIGHT_DEBUG"):
        found["debug"] = _debug_level(debug)
    return found


def _debug_level(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"FUSEWRIGHT_DEBUG: {text!r} is not an integer of at least 0")
    return int(text)


def add_interpreter_to_path() -> None:
    """Let this process and its children find what is installed beside the interpreter: ninja."""
    folders = os.get_exec_path()
    own = str(Path(sys.executable).parent)
    if own not in folders:
        os.environ["PATH"] = os.pathsep.join([*folders, own])
