"""The backward pass of a user's module, as a command of both workers: which gradients flow where.

Nothing is compared here.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fusewright.run.verify import generators, layouts, runner, tensors

Watch = Literal["all", "parameters", "inputs"]


def backward(
    session: runner.Session,
    slot: str,
    inputs: str,
    seed: int,
    prefix: str,
    rows: list[int] | None,
    watch: Watch = "all",
) -> dict[str, Any]:
    """Dump the gradients of a kept input's call; say which outputs have any. See `gradients`."""
    comb = Comb(*rows) if rows else None
    found, outputs = gradients(session.slots[slot], session.inputs[inputs], seed, comb, watch)
    return {"grads": tensors.dump(found, prefix, session.lender), "outputs": outputs}


@dataclass(frozen=True, slots=True)
class Comb:
    """Every `step`-th row of a batch of `total` rows, from `first` on."""

    total: int
    first: int
    step: int

    @property
    def rows(self) -> torch.Tensor:
        return torch.arange(self.first, self.total, self.step)


def gradients(
    module: torch.nn.Module,
    inputs: list[Any],
    seed: int,
    comb: Comb | None = None,
    watch: Watch = "all",
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Gradients of sum(cos(k) * output) for inputs and parameters, and which outputs have any. The
    weights cos(1), cos(2), ... of the outputs' elements are the same in every process.

    comb: only its rows of the outputs count; outputs may hold these rows alone or the whole batch.
    watch: what is to have gradients; the rest is constant, as inputs are in training and weights
    where they are frozen.
    """
    module.zero_grad(set_to_none=True)
    leaves = dict(tensors.tensor_leaves(inputs)) if watch != "parameters" else {}
    real = {k: t for k, t in leaves.items() if t.is_floating_point() or t.is_complex()}
    watched = {k: t.requires_grad_(True) for k, t in real.items()}
    generators.seed(seed)
    # Over the backward pass as well: it may compute parts of the forward again.
    with torch.enable_grad(), _frozen(module) if watch == "inputs" else contextlib.nullcontext():
        output = module(*non_leaf_inputs(inputs))
        ends = {k: _weighted(t, comb) for k, t in tensors.tensor_leaves(output) if t.requires_grad}
        if ends:
            torch.autograd.backward([t for t, _ in ends.values()], [w for _, w in ends.values()])
    found = {f"input{k}": t.grad for k, t in watched.items()}
    found |= {name: p.grad for name, p in module.named_parameters()}
    module.zero_grad(set_to_none=True)
    return {name: grad for name, grad in found.items() if grad is not None}, list(ends)


@contextlib.contextmanager
def _frozen(module: torch.nn.Module) -> Iterator[None]:
    """Inside, no parameter requires a gradient."""
    thawed = [p for p in module.parameters() if p.requires_grad]
    for parameter in thawed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)


def non_leaf_inputs(inputs: list[Any]) -> list[Any]:
    """Copies that are no leaves: an in-place op on a leaf that needs a gradient would raise."""
    return tensors.map_leaves(inputs, lambda t: t.clone() if t.requires_grad else t)


def _weighted(output: torch.Tensor, comb: Comb | None) -> tuple[torch.Tensor, torch.Tensor]:
    """What to go back from, and its gradient: not contiguous, since a caller's need not be."""
    if comb is not None and output.shape[0] == comb.total:
        output = output[comb.first :: comb.step]
    count = torch.arange(1, output.numel() + 1, device=output.device, dtype=torch.float64)
    turning = torch.polar(torch.ones_like(count), count) if output.is_complex() else count.cos()
    weights = turning.to(output.dtype).view(output.shape)
    return output, weights if weights.nbytes > runner.LARGE_BYTES else layouts.strided_copy(weights)


COMMANDS = {"backward": backward}
