"""What a rule is, what it may see, and the record that its use leaves behind.

No rule and no search lives here: rules are in the modules named after their family, the search is
`engine`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from fusewright.ir import graph as g

from .samples import Draw

Numerics = Literal["exact", "reassociate", "finite"]
CLASSES: tuple[Numerics, ...] = ("exact", "reassociate", "finite")


Fact = TypeVar("Fact")


class Env(Protocol):
    """What a rule may know beyond the node itself: nothing about values."""

    def fact(self, analysis: Callable[[g.Node, Sequence[Fact]], Fact], node: g.Node) -> Fact:
        """What `analysis` says of `node`, given what it says of the operands; kept per node."""
        ...

    def uses(self, node: g.Node) -> int:
        """How often `node` is an operand or leaves the graph: known at once, unlike by whom."""
        ...

    def users(self, node: g.Node) -> tuple[g.Node | None, ...]:
        """The nodes that `node` is an operand of; None where it leaves the graph itself."""
        ...


@dataclass(frozen=True, slots=True)
class Rule:
    """A directed identity between graphs.

    `identity` states it in one line, `precondition` what must hold beside the shape of the left
    side. `numerics`: "exact" gives the same bits up to the order of operations, "reassociate"
    rounds in another order, "finite" is equal where all values are finite. `apply` gets a node of
    one of the classes `roots` and returns a candidate, or None; the engine takes it if the measure
    falls. `instances` draws a node the rule must rewrite, `near_misses` yields nodes it must not.
    """

    name: str
    identity: str
    numerics: Numerics
    roots: tuple[type[g.Node], ...]
    apply: Callable[[g.Node, Env], g.Node | None]
    precondition: str
    instances: Callable[[Draw], g.Node]
    near_misses: Callable[[Draw], Iterator[g.Node]]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One application of a rule: its certificate.

    `where` is the user's code it applies to. `before` and `after` print the two sides.
    `flops_delta` and `bytes_delta` count every node alone, sharing included.
    """

    rule: str
    numerics: Numerics
    where: str
    identity: str
    precondition: str
    flops_delta: int
    bytes_delta: int
    before: str
    after: str
