"""Other arithmetic for an unchanged module: float64 throughout, rounded operands, an op left out.

All three are TorchDispatchModes around a call of the user's own forward, below autograd and below
every composite op, so they need to know nothing about the model.
"""

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from fusewright.run.verify.metrics import pieces

Rounding = Callable[[torch.Tensor], torch.Tensor]
# Elements that are hashed at a time: little memory, and too few for torch to start threads for.
_PIECE = 1 << 15
# Odd, as large as 64 bits allow: every bit of a product's upper half depends on all below it.
_MIXER = 0x9E3779B97F4A7C15 - (1 << 64)
# The floor is 8.4 units of float32; two rounded operands, the factor of 1.25 and chance take some.
_MOST_UNITS = 5.0

_WIDER = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}
# Ops whose operands a tensor core would round; the value says which arguments those are.
_CONTRACTIONS: dict[str, tuple[int, ...]] = {
    "mm": (0, 1),
    "bmm": (0, 1),
    "mv": (0, 1),
    "dot": (0, 1),
    "addmm": (1, 2),
    "baddbmm": (1, 2),
    "addbmm": (1, 2),
    "addmv": (1, 2),
    "linear": (0, 1),
    "convolution": (0, 1),
    "_convolution": (0, 1),
    "_scaled_dot_product_flash_attention": (0, 1, 2),
    "_scaled_dot_product_flash_attention_for_cpu": (0, 1, 2),
    "_scaled_dot_product_efficient_attention": (0, 1, 2),
    "_scaled_dot_product_cudnn_attention": (0, 1, 2),
}
_REDUCTIONS = frozenset(
    {"sum", "mean", "var", "var_mean", "std", "std_mean", "linalg_vector_norm", "logsumexp"}
)
# Narrower types are summed in float32, and rounded once.
_ACCUMULATING = (torch.float32, torch.float64)
CONVOLUTIONS = frozenset({"convolution", "_convolution"})
ALL_CONTRACTIONS = frozenset(_CONTRACTIONS)
# Ops whose result is one of their operands' values or a small integer: they round nothing.
# fmt: off
_EXACT = frozenset(
    {
        "_to_copy", "abs", "alias", "amax", "amin", "bernoulli", "cat", "ceil", "clamp",
        "clamp_max", "clamp_min", "clone", "constant_pad_nd", "copy", "detach", "embedding", "fill",
        "flip", "floor", "gather", "hardtanh", "im2col", "index", "index_put", "index_select",
        "lift_fresh", "masked_fill", "masked_scatter", "max", "max_pool2d_with_indices",
        "max_pool3d_with_indices", "maximum", "min", "minimum", "neg", "relu", "roll", "round",
        "scatter", "select_scatter", "sign", "slice_scatter", "sort", "stack", "threshold", "topk",
        "tril", "triu", "trunc", "upsample_nearest2d", "where", "zero",
    }
)
# fmt: on
# Ops of several roundings, which jitter takes in the parts that torch decomposes them into: a mean
# that is rounded moves a whole row, and no rounding of the result would show that.
_COMPOSITE = frozenset(
    {
        "_log_softmax",
        "_native_batch_norm_legit",
        "_softmax",
        "native_batch_norm",
        "native_group_norm",
        "native_layer_norm",
    }
)
# Tagged as random although they draw nothing unless their dropout probability is above 0.
_ATTENTION = "scaled_dot_product"


def op_name(func: Any) -> str:
    """`addmm` for aten.addmm.default."""
    return func._schema.name.split("::")[-1]


def round_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """To TF32's 10 explicit mantissa bits, ties away from zero, as the tensor cores' cvt.rna."""
    if not tensor.is_floating_point():
        return tensor
    bits = tensor.to(torch.float32).contiguous().view(torch.int32)
    rounded = ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
    return torch.where(tensor.isfinite(), rounded, tensor.to(torch.float32)).to(tensor.dtype)


def round_bf16(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.bfloat16).to(tensor.dtype) if tensor.is_floating_point() else tensor


def round_in_place(rounding: Rounding, tensor: torch.Tensor) -> None:
    """Round a tensor where it lies, in pieces along axis 0: since it takes five times as much."""
    rows = tensor.reshape(1) if tensor.ndim == 0 else tensor
    if tensor.is_floating_point():
        for start, stop in pieces(rows):
            rows[start:stop].copy_(rounding(rows[start:stop]))


class Float64(TorchDispatchMode):
    """Every floating-point operation in float64, whatever dtype the forward asks for.

    Random ops draw in `base` (the dtype that the module really runs in) and are widened afterwards,
    so that they give the numbers that the module would have drawn. `rounding` is applied to the
    operands of the contractions named in `rounded`, `jitter` to the result of every op that rounds.
    """

    def __init__(
        self,
        base: torch.dtype,
        rounding: Rounding | None = None,
        rounded: frozenset[str] = ALL_CONTRACTIONS,
        jitter: "Jitter | None" = None,
    ) -> None:
        super().__init__()
        self.base, self.rounding, self.rounded, self.jitter = base, rounding, rounded, jitter
        # Taken before the run makes float64 the default: what `torch.rand(n)` draws in.
        self.default = torch.get_default_dtype()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if _draws(func, args, kwargs):
            return self._draw(func, args, kwargs)
        args, kwargs = tree_map(_widen_dtype, (args, kwargs))
        if not func._schema.is_mutable:
            args, kwargs = tree_map(_widen_tensor, (args, kwargs))
        name = op_name(func)
        if name == "_softmax" or name == "_log_softmax":
            args = (*args[:2], False)
        if name.removesuffix("_") == "nan_to_num":
            args, kwargs = args[:1], self._bounds(*args[1:], **kwargs)
        if self.rounding is not None and name in self.rounded:
            args = _rounded_at(self.rounding, args, _CONTRACTIONS.get(name, ()))
        if self.jitter is not None and name in _COMPOSITE and func in decomposition_table:
            with self:
                return decomposition_table[func](*args, **kwargs)
        result = func(*args, **kwargs)
        if self.jitter is not None and _rounds(func, name, args):
            summed = self.jitter.sums and self.base in _ACCUMULATING
            units = accumulation(name, args, result) if summed else 1.0
            tree_map(partial(self.jitter.move, units=units), result)
        return result

    def _draw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a random op in the base dtype; widen what it returns, write back what it changes."""
        if op_name(func) == "native_dropout":
            scaled, mask = func(torch.ones_like(args[0], dtype=self.base), *args[1:], **kwargs)
            return args[0] * scaled.to(args[0].dtype), mask
        narrow = tree_map(self._narrow, (args, kwargs))
        wide_default = torch.get_default_dtype()
        torch.set_default_dtype(self.default)
        try:
            result = func(*narrow[0], **narrow[1])
        finally:
            torch.set_default_dtype(wide_default)
        if func._schema.is_mutable and isinstance(args[0], torch.Tensor):
            return args[0].copy_(narrow[0][0])
        return tree_map(_widen_tensor, result)

    def _bounds(
        self, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
    ) -> dict[str, float | None]:
        """nan_to_num's arguments; infinities left open become the largest of the base dtype."""
        limits = torch.finfo(self.base)
        return {
            "nan": nan,
            "posinf": limits.max if posinf is None else posinf,
            "neginf": limits.min if neginf is None else neginf,
        }

    def _narrow(self, value: Any) -> Any:
        wide = isinstance(value, torch.Tensor) and value.dtype == torch.float64
        return value.to(self.base) if wide else value


def _rounds(func: Any, name: str, args: tuple[Any, ...]) -> bool:
    """Whether an op computes new real numbers: no view, no copy or choice, no constant."""
    if func.is_view or name.removesuffix("_") in _EXACT:
        return False
    return any(isinstance(a, torch.Tensor) for a in args)


class Jitter:
    """Random rounding: moves each element, in place, by a relative `unit` (root mean square).

    With the unit roundoff of a dtype this is Monte Carlo arithmetic (D. S. Parker, 1997): the
    spread of results is the error that an evaluation in that dtype may show. How far a value goes
    is a hash of its bits, so that equal values stay equal: what ties stays tied.

    sums: the results of sums and contractions move by as much as those may err (`accumulation`).
    """

    def __init__(self, unit: float, seed: int, sums: bool = False) -> None:
        self.unit, self.salt, self.sums = unit, random.Random(seed).getrandbits(62), sums

    def move(self, value: Any, units: float = 1.0) -> Any:
        """Jitter a float64 tensor in place, by so many units; anything else, and what cannot be
        written, stays."""
        if isinstance(value, torch.Tensor) and value.dtype == torch.complex128:
            self.move(torch.view_as_real(value.detach().resolve_conj()), units)
        wide = isinstance(value, torch.Tensor) and value.dtype == torch.float64
        wide = wide and value.layout == torch.strided
        if wide and value.numel() and value.is_contiguous() and not value._is_zerotensor():
            for piece in value.detach().view(-1).split(_PIECE):
                piece.mul_(self.factors(piece, units * self.unit))
        return value

    def factors(self, values: torch.Tensor, unit: float) -> torch.Tensor:
        """Uniform around 1, for each of float64 `values`, which lie in a row without gaps."""
        bits = values.view(torch.int64)
        mixed = (bits >> 29).bitwise_xor_(bits).bitwise_xor_(self.salt).mul_(_MIXER)
        return mixed.double().mul_(unit * 3**0.5 * 2.0**-63).add_(1)

    def moved(self, tensor: torch.Tensor) -> torch.Tensor:
        """A jittered copy: random rounding as a `Rounding`."""
        return self.move(tensor.clone(memory_format=torch.contiguous_format))

    def edit(self, _: str, tensor: torch.Tensor) -> None:
        """Jitter an input or a weight of any layout in place."""
        if tensor.is_contiguous():
            self.move(tensor)
        else:
            tensor.copy_(self.move(tensor.contiguous()))


def accumulation(name: str, args: tuple[Any, ...], result: Any) -> float:
    """By how many units of roundoff a sum may be off when its terms are added one after the other,
    each time with a rounding: sqrt(1 + 0.08 k) for k terms of either sign, and no more than leaves
    a single sum within the floor of its dtype. 1 for what is no sum."""
    return min(math.sqrt(1 + 0.08 * _terms(name, args, result)), _MOST_UNITS)


def _terms(name: str, args: tuple[Any, ...], result: Any) -> int:
    """How many terms each element of a contraction or reduction is a sum of."""
    if name in _REDUCTIONS:
        first = result[0] if isinstance(result, tuple) else result
        return args[0].numel() // max(first.numel(), 1)
    if name not in _CONTRACTIONS or _ATTENTION in name:
        return 0
    first, second = (args[i] for i in _CONTRACTIONS[name])
    if name in CONVOLUTIONS:
        return second.numel() // max(second.shape[1 if args[6] else 0], 1)
    return first.shape[-1]


def _draws(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    if _ATTENTION not in op_name(func):
        return True
    given = dict(zip((a.name for a in func._schema.arguments), args)) | kwargs
    return bool(given.get("dropout_p", 0.0))


def _widen_dtype(value: Any) -> Any:
    return _WIDER.get(value, value) if isinstance(value, torch.dtype) else value


def _widen_tensor(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype in _WIDER:
        return value.to(_WIDER[value.dtype])
    return value


def _rounded_at(
    rounding: Rounding, args: tuple[Any, ...], where: tuple[int, ...]
) -> tuple[Any, ...]:
    return tuple(_rounded(rounding, a) if i in where else a for i, a in enumerate(args))


def _rounded(rounding: Rounding, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    copy = value.clone()
    round_in_place(rounding, copy)
    return copy


_LAYOUT_OPS = frozenset(
    {"clone", "contiguous", "_to_copy", "detach", "alias", "copy", "copy_", "lift_fresh", "fill_"}
)


class OpSkipper(TorchDispatchMode):
    """Counts the ops that could be left out and leaves out number `skip` (None: only counts).

    An op can be left out when it returns one floating-point tensor of its first argument's shape:
    the first argument takes its place. Views, copies and fills are not counted.
    """

    def __init__(self, skip: int | None = None) -> None:
        super().__init__()
        self.skip = skip
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = op_name(func)
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if first is None or name in _LAYOUT_OPS or func.is_view:
            return func(*args, **(kwargs or {}))
        before = first.clone() if func._schema.is_mutable else first
        result = func(*args, **(kwargs or {}))
        if not _replaces(result, first):
            return result
        self.seen.append(name)
        if len(self.seen) - 1 != self.skip:
            return result
        return first.copy_(before) if func._schema.is_mutable else first.clone()


def _replaces(result: Any, first: torch.Tensor) -> bool:
    return (
        isinstance(result, torch.Tensor)
        and result.shape == first.shape
        and result.dtype == first.dtype
        and result.is_floating_point()
    )
