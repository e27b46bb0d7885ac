"""A candidate's freshly constructed state_dict against the reference's, as a referee's command."""

import itertools

import torch

from fusewright.run.verify import tensors
from fusewright.run.verify.book import Book
from fusewright.run.verify.handover import Lender
from fusewright.run.verify.specs import Spec


def compare_state(book: Book, spec: Spec) -> list[str]:
    """Differences of a candidate's freshly constructed state_dict from the reference's."""
    ours = book.session.slots["reference"]
    wanted = ours.state_dict(keep_vars=True)
    got = dict(zip(spec["keys"], spec["items"]))
    parameters = dict(ours.named_parameters(remove_duplicate=False))
    found = [f"{name} is missing" for name in wanted if name not in got]
    found += [f"{name} is not an entry of the reference" for name in got if name not in wanted]
    for name, entry in got.items():
        if name in wanted:
            lender = book.session.lender
            found += _entry_differences(name, wanted[name], entry, name in parameters, lender)
    found += _tie_differences(wanted, got)
    if not found and list(wanted) != list(got):
        found.append("the entries are in another order")
    return found


def _tie_differences(wanted: dict[str, torch.Tensor], got: dict[str, Spec]) -> list[str]:
    """Entries that share memory in one of the two modules only."""
    ours = {name: tensor.untyped_storage().data_ptr() for name, tensor in wanted.items()}
    theirs = {name: entry["storage"] for name, entry in got.items()}
    common = [name for name in ours if name in theirs and wanted[name].numel()]
    return [
        f"{first} and {second} {'share' if ours[first] == ours[second] else 'do not share'} memory "
        "in the reference only"
        for first, second in itertools.combinations(common, 2)
        if (ours[first] == ours[second]) != (theirs[first] == theirs[second])
    ]


def _entry_differences(
    name: str, wanted: torch.Tensor, entry: Spec, is_parameter: bool, lender: Lender
) -> list[str]:
    dtype, shape = str(wanted.dtype).removeprefix("torch."), list(wanted.shape)
    if (entry["dtype"], entry["shape"]) != (dtype, shape):
        return [f"{name} is {entry['dtype']}{entry['shape']}, not {dtype}{shape}"]
    role = "parameter" if is_parameter else "buffer"
    if entry["role"] != role:
        return [f"{name} is a {entry['role']}, not a {role}"]
    if entry["grad"] != wanted.requires_grad:
        return [f"{name} has requires_grad={entry['grad']}, not {wanted.requires_grad}"]
    values = tensors.read(entry, lender)
    if not tensors.same_bits(values, wanted.detach().to(values.device)):
        return [f"{name} has other values after the same seed"]
    return []


COMMANDS = {"compare_state": compare_state}
