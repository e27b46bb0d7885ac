"""Gives the referee's modules their weights, copying no more than what was written since."""

import torch

from fusewright.run.verify import drawing, hidden, oracle, runner
from fusewright.run.verify.book import Book, Stamps


def set_state(book: Book, slot: str, weights: str) -> None:
    """Give the module the named weights; parameters that still have them are not copied again."""
    module, stamps = book.session.slots[slot], book.stamps.get(slot)
    hidden.forget_late(module, book.session.entries)
    drawn = runner.mapped(drawing.weights(book, weights), book.session.lender)
    wanted, beside = hidden.split(book.session.unsaved, drawn)
    if stamps is None or stamps.weights != weights:
        module.load_state_dict(wanted, strict=True)
    else:
        now = _stamps(module)
        with torch.no_grad():
            for name, tensor in module.state_dict(keep_vars=True).items():
                written = name in book.written or name not in now
                if written or now[name] != stamps.entries[name]:
                    tensor.copy_(wanted[name])
    hidden.reset(module, beside)
    book.stamps[slot] = Stamps(weights, _stamps(module))


def _stamps(module: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Identity and version of every parameter: a write, in place or by replacement, shows.

    Buffers are left out: batch normalisation writes its statistics without a new version. So does
    whatever writes through `.data`, which is why entries seen to change are in `Book.written`.
    """
    parameters = module.named_parameters(remove_duplicate=False)
    return {name: (id(tensor), tensor._version) for name, tensor in parameters}


def wide_module(book: Book, weights: str, train: bool) -> torch.nn.Module:
    """The reference in float64 with the named weights, in a mode."""
    session = book.session
    if "wide" not in session.slots:
        session.slots["wide"] = oracle.widen(session.slots["reference"])
    set_state(book, "wide", weights)
    return runner.set_mode(session, session.slots["wide"], train)
