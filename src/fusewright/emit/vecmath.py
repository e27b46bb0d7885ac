"""Select the elementary functions a CPU kernel uses from `skeletons/vecmath.hpp`.

Holds the reader of that file's block markers, nothing else: no C++ text is written here, and what
the functions compute is documented beside them in the header.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fusewright.errors import IRError

HEADER = Path(__file__).parent / "skeletons" / "vecmath.hpp"
_BEGIN = "\n//@function "
_END = "\n//@end"


@dataclass(frozen=True, slots=True)
class Block:
    """The text of one logical function (all its overloads) and the blocks it calls."""

    name: str
    needs: tuple[str, ...]
    text: str


def parse_blocks(text: str) -> tuple[Block, ...]:
    """The blocks of a marked header in file order.

    Raises IRError when a block is not closed, is defined twice or needs one that does not precede
    it (file order is then a valid order of definition for any selection).
    """
    blocks: dict[str, Block] = {}
    for chunk in f"\n{text}".split(_BEGIN)[1:]:
        head, _, _ = chunk.partition("\n")
        body, end, _ = chunk.removeprefix(head).partition(_END)
        name, _, needs = head.partition(" needs ")
        block = Block(name.strip(), tuple(needs.split()), body.strip("\n"))
        if not end or block.name in blocks:
            raise IRError(
                f"vecmath block {block.name!r} is not closed by {_END.strip()} or defined twice"
            )
        late = [need for need in block.needs if need not in blocks]
        if late:
            raise IRError(f"vecmath block {block.name!r} needs {', '.join(late)}, not yet defined")
        blocks[block.name] = block
    return tuple(blocks.values())


def vecmath_source(names: Iterable[str]) -> str:
    """C++ text that defines `fw_NAME` for each of `names` (`"exp"`, not `"fw_exp"`).

    The text holds the named blocks and all they need, once each, in file order, whatever the order
    of `names`; it is empty when `names` is. Raises IRError for a name the header does not define.
    """
    blocks = parse_blocks(HEADER.read_text(encoding="utf-8"))
    wanted = set(names)
    unknown = sorted(wanted - {block.name for block in blocks})
    if unknown:
        known = ", ".join(block.name for block in blocks)
        raise IRError(f"vecmath.hpp has no function {', '.join(unknown)}; it has {known}")
    for block in reversed(blocks):
        if block.name in wanted:
            wanted.update(block.needs)
    return "".join(f"{block.text}\n\n" for block in blocks if block.name in wanted)
