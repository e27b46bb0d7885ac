"""How forward is called and what its result silently depends on: data for the emitted guards.

Made by `capture.interface` from the live module, written as Python by `emit`. No torch here.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of forward; `default` is Python text, None where there is no default."""

    name: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that held at capture: Python text over forward's parameters and `self`.

    `refusal` says, for people, what is the case when it does not hold.
    """

    text: str
    refusal: str


@dataclass(frozen=True, slots=True)
class ModuleFact:
    """A submodule as captured: its class and the plain values among its attributes.

    `attributes` are (name, Python text of the value), `training` among them only where the class
    looks at it.
    """

    path: str
    class_name: str
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A registered tensor: where it is found in the module with that number in `modules`."""

    module: int
    registry: Literal["_parameters", "_buffers"]
    name: str


@dataclass(frozen=True, slots=True)
class Interface:
    """The calling convention and the guards that do not concern tensors.

    `parameters` of forward after self; None when it takes `*args` or the like, then `count`
    positional arguments are expected in `args`. For each input of the graph, by name, `tensors`
    gives the Python text that reads it from the arguments or from `self`, or `held` the registry
    that holds it (attribute look-up in a module is slow); literals have neither.
    """

    parameters: tuple[Parameter, ...] | None
    count: int
    tensors: tuple[tuple[str, str], ...]
    held: tuple[tuple[str, Held], ...] = ()
    conditions: tuple[Condition, ...] = ()
    modules: tuple[ModuleFact, ...] = ()
