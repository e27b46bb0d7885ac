"""Buffers that no state_dict holds (`register_buffer(..., persistent=False)`): what a forward may
remember in them is state all the same.

Where forward leaves them alone, they keep the values that the constructor gave them.
"""

from collections.abc import Iterable, Mapping

import torch

Hidden = Mapping[str, torch.Tensor | None]


def names(module: torch.nn.Module) -> list[str]:
    """Dotted names of the module's buffers that are not in its state_dict."""
    return [
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        for name in sorted(part._non_persistent_buffers_set)
    ]


def _table(module: torch.nn.Module, name: str) -> tuple[dict[str, torch.Tensor | None], str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path)._buffers, leaf


def has(module: torch.nn.Module, name: str) -> bool:
    """Whether the module has a buffer of that name."""
    try:
        table, leaf = _table(module, name)
    except AttributeError:
        return False
    return leaf in table


def remembered(module: torch.nn.Module, wanted: Iterable[str]) -> dict[str, torch.Tensor | None]:
    """Copies of the named buffers, of those that the module has; None for an empty one."""
    found = {name: _value(module, name) for name in wanted if has(module, name)}
    return {n: None if t is None else t.detach().clone() for n, t in found.items()}


def _value(module: torch.nn.Module, name: str) -> torch.Tensor | None:
    table, leaf = _table(module, name)
    return table[leaf]


def full_state(
    module: torch.nn.Module, wanted: Iterable[str] | None = None
) -> dict[str, torch.Tensor]:
    """The state_dict, and the named buffers beside it (None: all that there are)."""
    chosen = names(module) if wanted is None else [n for n in wanted if has(module, n)]
    values = {name: _value(module, name) for name in chosen}
    return dict(module.state_dict()) | {n: t for n, t in values.items() if t is not None}


def forget_late(module: torch.nn.Module, entries: Iterable[str]) -> None:
    """Remove what calls have added to the state_dict since construction, whose `entries` these
    are: the next call makes it anew, as the first one did."""
    for name in [name for name in module.state_dict() if name not in set(entries)]:
        path, _, leaf = name.rpartition(".")
        part = module.get_submodule(path)
        part._buffers.pop(leaf, None)
        part._parameters.pop(leaf, None)


def split(
    hidden: Hidden, values: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor | None]]:
    """What of a full state's `values` load_state_dict takes, and what `reset` does."""
    beside = {name: values.get(name, first) for name, first in hidden.items()}
    return {name: t for name, t in values.items() if name not in hidden}, beside


def reset(module: torch.nn.Module, hidden: Hidden) -> None:
    """Give the buffers these values: in place, where that leaves no trace of a graph or of
    inference mode."""
    for name, value in hidden.items():
        table, leaf = _table(module, name)
        now = table[leaf]
        if value is None or now is None:
            table[leaf] = None if value is None else value.clone()
        elif now.shape != value.shape or now.requires_grad or now.is_inference():
            table[leaf] = value.to(now.dtype, copy=True)
        else:
            now.copy_(value)
