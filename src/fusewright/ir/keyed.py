"""Content-addressed values: equality, hash and order of IR objects come from one structural key.

A plain frozen dataclass hashes and compares by walking its fields, which is exponential on a shared
DAG. An intern table would cure that but is mutable state that every constructor must be handed.
Here each object computes a 128-bit BLAKE2 digest of its class, its own fields and the *keys* of its
children once, when it is built; two objects are equal when their digests are. The digest does not
depend on the process, so it also gives a stable order. Nothing about tensors lives here.
"""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any


def _encode(value: Any) -> bytes:
    if isinstance(value, Keyed):
        return value.key
    if isinstance(value, tuple):
        return b"(" + b",".join(map(_encode, value)) + b")"
    return f"{type(value).__name__}:{value!r}".encode()


@dataclass(frozen=True, slots=True, eq=False)
class Keyed:
    """Base of all IR objects. `key` is the structural digest (16 bytes)."""

    key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # `__match_args__` names the fields that the constructor takes.
        held = (_encode(getattr(self, name)) for name in self.__match_args__)
        content = b";".join((type(self).__name__.encode(), *held))
        object.__setattr__(self, "key", blake2b(content, digest_size=16).digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keyed) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)
