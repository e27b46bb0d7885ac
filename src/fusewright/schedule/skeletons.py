"""Which products run as kernels of their own: the one pass over a program that takes them.

The choice is the model's, or, where the user asked for that, one that was measured on the device;
what would be measured is listed here, too. How such a kernel is made is in `contraction`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fusewright.ir.kernel import Kernel, LibraryCall, Program, Scheme, Step, WhyNot
from fusewright.ir.onepass import partials_of
from fusewright.options import Options
from fusewright.target.arch import Arch
from fusewright.target.tuning import LIBRARY, Choice, Tuning

from . import contraction, product_kernel
from .gate import CHUNK
from .hosting import Hosted
from .library import CONV_PRODUCT, EXACT_CONV_PRODUCT

_MEANS: dict[Scheme, str] = {
    **dict.fromkeys(("split", "six", "native", "bf16", "tf32"), "on the tensor cores"),
    **dict.fromkeys(("conv", "conv_split"), "on the tensor cores"),
    "fma": "by multiply-adds",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to compute a library product as a kernel; `told`: why its operands are as they are."""

    product: contraction.Product
    hosted: Hosted
    told: tuple[WhyNot, ...]

    @property
    def name(self) -> str:
        """In a table of what was measured."""
        p = self.product
        if p.tile is not None:
            return f"{p.scheme}/{p.tile.items}x{p.tile.lanes}"
        return f"split/{p.slices}" if p.scheme == "split" else p.scheme

    def in_place(self, program: Program) -> Program:
        """The program with this kernel instead of the library's product."""
        return product_kernel.replaced(program, self.product, self.hosted)


def use_skeletons(program: Program, arch: Arch, options: Options, tuning: Tuning) -> Program:
    """The program with its products as contraction kernels, where that pays: as measured, where
    `tuning` has the product, else as modelled."""
    why_not: list[WhyNot] = []
    for call in [s for s in program.steps if isinstance(s, LibraryCall)]:
        found = list(candidates(call, program, arch, options))
        choice = tuning.choices.get(key_of(found[0], arch, options)) if found else None
        taken, told = _modelled(found, arch) if choice is None else _measured(found, choice, tuning)
        why_not += told
        if taken is not None:
            program = taken.in_place(program)
            why_not += taken.told
    return replace(program, why_not=(*program.why_not, *why_not))


def _modelled(found: Sequence[Candidate], arch: Arch) -> tuple[Candidate | None, list[WhyNot]]:
    """The first scheme that pays, and why the others, or the library, do not."""
    why_not: list[WhyNot] = []
    for candidate in found:
        p, covers = candidate.product, candidate.product.call.covers[0]
        if (reason := contraction.refusal(p, candidate.hosted, arch)) is None:
            if p.scheme == "split":
                times = contraction.times_of(p, candidate.hosted, arch)
                why_not.append(WhyNot(f"library call for {covers}", times.text))
            return candidate, why_not
        why_not.append(WhyNot(f"{covers} {_MEANS[p.scheme]}", reason))
    return None, why_not


def _measured(
    found: Sequence[Candidate], choice: Choice, tuning: Tuning
) -> tuple[Candidate | None, list[WhyNot]]:
    """What was fastest on the device."""
    every = {x.name: x for candidate in found for x in variants(candidate)}
    covers = found[0].product.call.covers[0]
    told = WhyNot(f"other ways to compute {covers}", f"measured on {tuning.device}: {choice.text}")
    return every.get(choice.best), [told]


def candidates(
    call: LibraryCall, program: Program, arch: Arch, options: Options
) -> Iterator[Candidate]:
    """A product by each scheme that may compute it, the best first, as modelled."""
    for product in contraction.products_of(call, program, arch, options):
        p, told = contraction.with_prologues(product, program, arch)
        hosted = product_kernel.hosted_by(program, p, product_kernel.element_of(p), arch)
        if p.scheme == "split":
            p = replace(p, slices=contraction.times_of(p, hosted, arch).slices)
        if p.conv is not None:
            p = contraction.with_conv_tile(p, hosted, arch)
        elif contraction.is_tiled(p, arch):
            p = replace(p, tile=contraction.best_tile(p, arch)[1])
        yield Candidate(p, hosted, told)


def variants(candidate: Candidate) -> Iterator[Candidate]:
    """The candidate, and others of its scheme that are worth a measurement."""
    p = candidate.product
    if p.scheme != "split":
        yield candidate
        return
    if contraction.is_discontiguous(p):
        return
    chunks = -(-p.k // CHUNK)
    around = (p.slices, 1, p.slices - 1, p.slices + 1, p.slices // 2, p.slices * 2)
    wanted = (-(-chunks // -(-chunks // s)) for s in around if 1 <= s <= chunks)
    for slices in dict.fromkeys(wanted):
        yield replace(candidate, product=replace(p, slices=slices))


def key_of(candidate: Candidate, arch: Arch, options: Options) -> str:
    """What the times of a product's candidates depend on, beside the device and this version."""
    p, hosted = candidate.product, candidate.hosted
    layouts = "".join("kr"[x.strides[-1 if x is p.left else -2] != 1] for x in (p.left, p.right))
    words = sum(x.words for x in partials_of(hosted.folding) or ())
    follows = f"{hosted.over or 'elements'}:{len(hosted.stores)}:{words}:{len(hosted.rest)}"
    before = "/".join(str(x.operations if x else 0) for x in p.computed)
    size = f"{p.batch}x{p.m}x{p.n}x{p.k}"
    return " ".join((arch.name, p.dtype.name, size, layouts, follows, before, options.precision))


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Programs that compute the same: a product and what surrounds it, by the name of the way."""

    key: str
    what: str
    programs: Mapping[str, Program]


def alternatives(program: Program, arch: Arch, options: Options) -> Iterator[Alternatives]:
    """Of each product of a program without skeletons, all that are worth a measurement."""
    for call in [s for s in program.steps if isinstance(s, LibraryCall)]:
        found = list(candidates(call, program, arch, options))
        every = {x.name: x for candidate in found for x in variants(candidate)}
        if not every or call.function in (CONV_PRODUCT, EXACT_CONV_PRODUCT):  # no library's
            continue
        around = {call.name} | {n for x in every.values() for n in _served(x)}
        programs = {LIBRARY: _part(program, lambda s, names=around: s.name in names)}
        for name, candidate in every.items():
            new = candidate.in_place(program)
            old = {s.name: s for s in program.steps}
            programs[name] = _part(
                new, lambda s, old=old, names=around: old.get(s.name) != s or s.name in names
            )
        yield Alternatives(key_of(found[0], arch, options), call.covers[0], programs)


def _served(candidate: Candidate) -> tuple[str, ...]:
    """Kernels that the product takes over, before and behind it."""
    before = (x.kernel.name for x in candidate.product.computed if x is not None)
    return (*before, *candidate.hosted.rest)


def _part(program: Program, wanted: Callable[[Step], bool]) -> Program:
    """Some steps of a program and the buffers they touch."""
    steps = tuple(s for s in program.steps if wanted(s))
    used = {name for s in steps for name in (*s.reads, *s.writes)}
    used |= {s.workspace for s in steps if isinstance(s, Kernel)}
    return Program(tuple(x for x in program.buffers if x.name in used), steps, ())
