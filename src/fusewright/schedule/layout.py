"""Which convolutions keep their channels as neighbours in memory.

cuDNN computes in that layout: for tensors with the channels outside it copies operand and result
there and back. The scheduler writes the operand in it and lets the kernels that read the result
turn it around on the way, so that neither copy is a pass of its own. oneDNN blocks the channels by
itself, but scatters a strided transposed convolution into them more slowly.
"""

from collections.abc import Mapping

from fusewright.ir import graph as g
from fusewright.ir.convolution import recognise
from fusewright.target.arch import Arch
from fusewright.target.cost import node_flops

# A reader that folds this many elements to one stores little: it may do so across its loads.
FOLDED = 16
# Share of the arithmetic's time that the copies must exceed: where arithmetic rules, the fastest
# kernel counts, and for long sums over many taps it is sometimes one with channels outside.
WORTHWHILE = 0.1

Users = Mapping[g.Node, tuple[g.Node, ...]]


def channels_last(graph: g.Graph, users: Users, arch: Arch) -> frozenset[g.Contract]:
    """The convolutions of the graph that run in channels-last memory."""
    pays = _pays if arch.kind == "cuda" else _pays_on_cpu
    found = (n for n in graph.nodes() if isinstance(n, g.Contract) and pays(n, arch))
    return frozenset(n for n in found if n not in graph.roots and _turns_for_free(n, users))


def _pays(c: g.Contract, arch: Arch) -> bool:
    p = recognise(c)
    if p is None or p.groups > 1 or len(c.shape) < 4 or not c.a.dtype.is_float:
        return False
    copies = 2 * (c.a.nbytes + c.nbytes) / arch.copy_rate
    rate = arch.product_rate or arch.float_rate
    return c.a.dtype.bits <= 32 and copies >= WORTHWHILE * node_flops(c) / rate


def _pays_on_cpu(c: g.Contract, arch: Arch) -> bool:
    """A transposed convolution of images, with strides: 10 to 35 % faster (oneDNN 3.11, Zen 5),
    unless its weights, which oneDNN then reorders at every call, are larger than the images."""
    p = recognise(c)
    if p is None or p.groups > 1 or len(c.shape) != 4 or not c.a.dtype.is_float:
        return False
    return p.transposed and max(p.stride) > 1 and c.b.nbytes < c.a.nbytes + c.nbytes


def _turns_for_free(c: g.Contract, users: Users) -> bool:
    """Whether those who read the result either only reduce it or only go through it once.

    A kernel that folds rows of the result and then stores values for every point of it walks it
    one way: such a nest is left as it is.
    """
    reduced = stored = False
    stack, seen = list(users.get(c, ())), set()
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        if isinstance(n, g.Reduce | g.ArgReduce):
            reduced = True
            if n.size * FOLDED > c.size:
                return False
        elif isinstance(n, g.Contract | g.Extern | g.Gather | g.Scan) or not users.get(n):
            stored = True
        else:
            stack.extend(users[n])
    return not (reduced and stored)
