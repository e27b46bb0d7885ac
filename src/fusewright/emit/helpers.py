"""Selects the helper functions a piece of emitted text calls from the skeleton headers.

Helpers are recognised by their names in the text (`fw_exp` is block `exp`), so printing stays a
pure function and a file embeds exactly what it uses. What the helpers do is documented beside them
in `skeletons/`; the format of those files is described in `vecmath`.
"""

import re
from pathlib import Path

from . import vecmath
from .vecmath import Block

SKELETONS = Path(__file__).parent / "skeletons"
_CALL = re.compile(r"\bfw_(\w+)\b")
# A buffer of doubles or a conversion to double: how double values come into a kernel.
_DOUBLE = re.compile(r"\bdouble\*|\(double\)")


def cpu_helpers(text: str) -> str:
    """C++ definitions of all helpers that `text` names, with the includes they need."""
    return _select(vecmath.parse_blocks(_read("vecmath.hpp") + _read("scalar.hpp")), text)


def cuda_helpers(text: str) -> str:
    """CUDA C++ definitions of all device helpers that `text` names; they need no header."""
    return _select(vecmath.parse_blocks(_read("device.cuh")), text)


def _read(name: str) -> str:
    return (SKELETONS / name).read_text(encoding="utf-8")


def _select(blocks: tuple[Block, ...], text: str) -> str:
    """The blocks that `text` calls and those they need, `base` always, in file order.

    Overloads for double only where a kernel computes in double: plain accumulators need none.
    """
    called = {*_CALL.findall(text), "base"}
    return vecmath.select(blocks, called, double=_DOUBLE.search(text) is not None)
