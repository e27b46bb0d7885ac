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
DOUBLE = ".double"


@dataclass(frozen=True, slots=True)
class Block:
    """The text of one logical function (all its overloads) and the blocks it calls.

    `text` is whole; `single` leaves out the overloads for double, which stand between `//@double`
    and `//@float` or the end; only they call the blocks in `wide`. A need called `NAME.double`
    includes the double overloads of NAME.
    """

    name: str
    needs: tuple[str, ...]
    wide: tuple[str, ...]
    text: str
    single: str


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
        needs, _, wide = needs.partition(" and for double ")
        texts = _overloads(body.strip("\n"))
        block = Block(name.strip(), tuple(needs.split()), tuple(wide.split()), *texts)
        if not end or block.name in blocks:
            raise IRError(
                f"vecmath block {block.name!r} is not closed by {_END.strip()} or defined twice"
            )
        called = (*block.needs, *block.wide)
        late = [need for need in called if need.removesuffix(DOUBLE) not in blocks]
        if late:
            raise IRError(f"vecmath block {block.name!r} needs {', '.join(late)}, not yet defined")
        blocks[block.name] = block
    return tuple(blocks.values())


def _overloads(body: str) -> tuple[str, str]:
    """The text without its markers, and the same without the overloads for double."""
    whole: list[str] = []
    single: list[str] = []
    double = False
    for line in body.split("\n"):
        if line in ("//@double", "//@float"):
            double = line == "//@double"
            continue
        whole.append(line)
        if not double:
            single.append(line)
    return "\n".join(whole), "\n".join(single)


def select(blocks: tuple[Block, ...], names: Iterable[str], *, double: bool) -> str:
    """The named blocks and all they need, once each, in file order; overloads for double if asked.

    Raises IRError for a name that no block has.
    """
    wanted = set(names)
    unknown = sorted(wanted - {block.name for block in blocks})
    if unknown:
        known = ", ".join(block.name for block in blocks)
        raise IRError(f"no skeleton defines the helper fw_{', fw_'.join(unknown)}; known: {known}")
    doubled: set[str] = {block.name for block in blocks} if double else set()
    for block in reversed(blocks):
        if block.name in wanted:
            wanted.update(need.removesuffix(DOUBLE) for need in block.needs)
            doubled.update(n.removesuffix(DOUBLE) for n in block.needs if n.endswith(DOUBLE))
            wanted.update(block.wide if block.name in doubled else ())
    texts = (b.text if b.name in doubled else b.single for b in blocks if b.name in wanted)
    return "".join(f"{text}\n\n" for text in texts if text)


def vecmath_source(names: Iterable[str]) -> str:
    """C++ text that defines `fw_NAME` for each of `names` (`"exp"`, not `"fw_exp"`).

    The text holds the named blocks and all they need, once each, in file order, whatever the order
    of `names`; it is empty when `names` is. Raises IRError for a name the header does not define.
    """
    return select(parse_blocks(HEADER.read_text(encoding="utf-8")), names, double=True)
