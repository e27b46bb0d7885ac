"""The one table from ATen operator to lowering, merged from the families, and what stays a call.

To add an operator: write a function of its ATen arguments to nodes in the family's module and enter
it in that module's TABLE under `aten.<name>.<overload>`. A call it cannot do raises NotLowered and
becomes an Extern call. No lowering is written here.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fusewright.ir.graph import Node

from . import (
    aten_activation,
    aten_choice,
    aten_contract,
    aten_gather,
    aten_misc,
    aten_norm,
    aten_pad,
    aten_pointwise,
    aten_pool,
    aten_reduce,
    aten_resample,
    aten_scan,
    aten_view,
)

Lowering = Callable[..., Node | tuple[Node | None, ...]]

_FAMILIES = (
    aten_pointwise.TABLE,
    aten_choice.TABLE,
    aten_activation.TABLE,
    aten_reduce.TABLE,
    aten_scan.TABLE,
    aten_view.TABLE,
    aten_pad.TABLE,
    aten_contract.TABLE,
    aten_norm.TABLE,
    aten_pool.TABLE,
    aten_gather.TABLE,
    aten_resample.TABLE,
    aten_misc.TABLE,
)

LOWERINGS: Mapping[str, Lowering] = MappingProxyType(
    {name: lowering for family in _FAMILIES for name, lowering in family.items()}
)

# Operators that take a number known at run time only; the others need it when they are captured.
TAKE_NUMBERS = frozenset(
    (
        *aten_pointwise.TABLE,
        *aten_choice.TABLE,
        *(f"aten.{op}.default" for op in ("full", "full_like", "new_full", "scalar_tensor")),
        "aten.fill.Scalar",
        "aten.select.int",
        "aten.select_scatter.default",
    )
)

# Operators that neither decompose nor lower: ATen's own kernels are the better call, because the
# parts would be slower (attention, recurrent layers, resampling) or draw other random numbers, or
# torch's parts are wrong (multilabel_margin_loss counts what follows the first -1, torch 2.13) or
# less accurate (index_add as index_put rounds to 16 bits at every addition).
KEPT_CALLS: tuple[str, ...] = (
    "aten.dropout.default",
    "aten.native_dropout.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
    "aten.feature_alpha_dropout.default",
    "aten.rrelu_with_noise.default",
    "aten.rrelu_with_noise_functional.default",
    "aten.scaled_dot_product_attention.default",
    "aten.lstm.input",
    "aten.gru.input",
    "aten.rnn_tanh.input",
    "aten.rnn_relu.input",
    "aten.grid_sampler_2d.default",
    "aten.grid_sampler_3d.default",
    "aten.upsample_bicubic2d.default",
    "aten.upsample_bicubic2d.vec",
    "aten._upsample_bilinear2d_aa.vec",
    "aten._upsample_bicubic2d_aa.vec",
    "aten.col2im.default",
    "aten.index_add.default",
    "aten.ctc_loss.IntList",
    "aten.ctc_loss.Tensor",
    "aten.cdist.default",
    "aten._cdist_forward.default",
    "aten._pdist_forward.default",
    "aten.max_unpool2d.default",
    "aten.max_unpool3d.default",
    "aten.multilabel_margin_loss_forward.default",
    "aten.renorm.default",
    "aten.istft.default",
    "aten.stft.default",
    "aten.stft.center",
    "aten.linalg_matrix_exp.default",
    "aten.matrix_exp.default",
    "aten.quantile.default",
    "aten.quantile.scalar",
    "aten.nanquantile.default",
    "aten.nanquantile.scalar",
    "aten.isin.Tensor_Tensor",
)
