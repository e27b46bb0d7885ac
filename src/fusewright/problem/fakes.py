"""Images of models and inputs without memory: fake tensors, which have all but the values.

Code that needs real values (`.item()`, `.numpy()`, a branch on a tensor) is run again with real
tensors, whose fake images are kept.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from fusewright.errors import ProblemError

from .file import summary
from .state import SEED, seeded

T = TypeVar("T")


def make_fake_mode() -> FakeTensorMode:
    """A fake mode that torch.export accepts: it has a shape environment, though shapes are static.

    Reading a fake tensor's value raises instead of making a symbol, so that a model that depends
    on values is noticed. Real tensors (the user's module-level constants) may be mixed in.
    """
    shape_env = ShapeEnv(
        tracked_fakes=[], allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False
    )
    return FakeTensorMode(shape_env=shape_env, static_shapes=True, allow_non_fake_inputs=True)


class _ForgetConversions(TorchFunctionMode):
    """Drops the fake mode's weak references to tensors after each torch call.

    `nn.Module.to`, `half` and the like swap a fake parameter in place with its converted image,
    which torch refuses while a weak reference to it exists; the mode's memo holds one.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.memo = mode.fake_tensor_converter.meta_converter.tensor_memo

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.memo.clear()
        return result


def built_as(
    build: Callable[[], T], to_fake: Callable[[T, FakeTensorMode], T], mode: FakeTensorMode | None
) -> tuple[T, str | None]:
    """(what `build` makes, why real tensors were needed or None); fake where there is a mode.

    Fake tensors fail where a value is read, in ways that no list covers, so any failure is tried
    again with real tensors; if those fail too, the user's code is at fault and that error counts.
    """
    if mode is None:
        with seeded(SEED):
            return build(), None
    try:
        with seeded(SEED), mode, _ForgetConversions(mode), warnings.catch_warnings():
            # Tensor.__deepcopy__ looks at the data pointer; under a fake mode that is harmless.
            warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
            made = build()
        return to_fake(made, mode), None
    except ProblemError as error:
        reason = _reason(error)
    with seeded(SEED):
        made = build()
    return to_fake(made, mode), reason


def _reason(error: ProblemError) -> str:
    cause = error.__cause__
    return str(error) if cause is None else summary(cause)


def fake_model(
    made: tuple[nn.Module, list[Any], dict[str, Any]], mode: FakeTensorMode
) -> tuple[nn.Module, list[Any], dict[str, Any]]:
    module, args, kwargs = made
    image = module if _is_fake(module) else fake_image(module, mode)
    return image, fake_tree(args, mode), fake_tree(kwargs, mode)


def fake_tree(tree: T, mode: FakeTensorMode) -> T:
    return pytree.tree_map_only(torch.Tensor, lambda tensor: fake_tensor(tensor, mode), tree)


def fake_tensor(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    """The tensor's image without memory; views of one storage stay views of one storage."""
    if isinstance(tensor, FakeTensor):
        return tensor
    return mode.from_tensor(tensor, static_shapes=True)


def fake_image(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy of the module whose tensors are fake; ties and aliases are kept, no data is copied.

    Raises ProblemError when the module holds something that cannot be deep-copied.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ProblemError(
                f"{name} of {type(module).__name__} has no shape before the first call: give sizes "
                "instead of a lazy module, or call the model once in its constructor"
            )
    # deepcopy takes an object's copy from `memo` where it finds one, so no tensor is ever copied.
    memo: dict[int, Any] = {id(t): fake_tensor(t, mode) for t in _tensors_of(module)}
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise ProblemError(
            f"the module {type(module).__name__} cannot be deep-copied, which reading it without "
            f"touching it needs: {summary(error)}"
        ) from error


def _tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """Parameters, buffers and plain tensor attributes, those inside containers included."""
    leaves = [leaf for part in module.modules() for leaf in pytree.tree_leaves(vars(part))]
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _is_fake(module: nn.Module) -> bool:
    return all(isinstance(tensor, FakeTensor) for tensor in _tensors_of(module))
