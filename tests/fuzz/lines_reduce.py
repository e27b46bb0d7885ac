"""Makers of lines that fold axes: sums, extrema, norms, scans, pooling, positions."""

from .drawer import Drawer, float_of_rank, has_rank, is_float
from .scope import Scope

# fmt: off
FOLDS = (
    "{x}.sum({a})", "{x}.mean({a})", "{x}.amax({a})", "{x}.amin({a})",
    "{x}.sum({a}, keepdim=True)", "{x}.mean({a}, keepdim=True)", "{x}.amax({a}, keepdim=True)",
    "{x}.std({a})", "{x}.var({a}, unbiased=False)", "{x}.var({a}, keepdim=True)",
    "torch.logsumexp({x}, {a})", "{x}.norm(dim={a})", "{x}.sum()", "{x}.mean()",
    "{x}.abs().sum({a})", "torch.linalg.vector_norm({x}, 1, {a})",
    "{x} - {x}.mean({a}, keepdim=True)", "{x} / ({x}.abs().amax({a}, keepdim=True) + 1)",
    "{x}.sum({a}, dtype=torch.float64)", "{x}.square().mean({a})", "torch.var_mean({x}, {a})[0]",
    "torch.std_mean({x}, {a})[1]", "{x}.nansum({a})", "{x}.max()",
    "torch.linalg.vector_norm({x}, float('inf'), {a})", "{x}.count_nonzero() * {x}",
)
ALONG = (
    "{x}.softmax({k})", "F.log_softmax({x}, {k})", "{x}.cumsum({k})", "{x}.max({k}).values",
    "F.softmin({x}, {k})", "{x}.min({k}).values", "{x}.prod({k})", "F.normalize({x}, dim={k})",
    "{x}.cumsum({k})[..., -1]", "({x} * 0.5).cumprod({k})", "{x}.logcumsumexp({k})",
    "{x}.cummax({k}).values", "{x}.diff(dim={k})", "{x}.sort({k}).values",
    "{x}.topk(1, {k}).values", "{x}.median({k}).values", "F.gumbel_softmax({x} * 0, dim={k}) * 0",
    "{x}.softmax({k}).sum({k})", "{x}.sum({k}).unsqueeze({k}).expand_as({x})",
    "{x}.aminmax(dim={k})[1]", "torch.cat(({x}.narrow({k}, 0, 1) * 0, {x}.cumsum({k})), {k})",
    "F.pad({x}.cumsum(-1), (1, 0))[..., :-1]", "F.pad({x}, (1, -1)).cumsum(-1).flip({k})",
)
ROWS = (
    "F.layer_norm({x}, ({n},))", "F.rms_norm({x}, ({n},))", "F.layer_norm({x}, ({n},), eps=1e-3)",
    "F.layer_norm({x}, tuple({x}.shape[-2:]))", "F.group_norm({x}, 1)", "F.group_norm({x}, 2)",
    "F.instance_norm({x})", "F.batch_norm({x}, None, None, training=True)",
    "F.local_response_norm({x}, 2)",
)
POSITIONS = (
    "{x}.argmax({k})", "{x}.argmin({k})", "{x}.argmax()", "{x}.max({k}).indices",
    "{x}.min({k}).indices", "{x}.argmax({k}, keepdim=True)", "({x} > 0).sum({k})",
    "({x} > 0).any({k})", "({x} < 1).all({k})", "{x}.sort({k}, stable=True).indices",
    "({x} > 0).float().mean({k})", "{x}.count_nonzero({k})", "{x}.bool().any()",
    "({x} != 0).all()", "{x}.cummax({k}).values", "({x} > 0).cumsum({k})",
    "{x}.amax({k}) == {x}.amin({k})",
)
WHOLE_FOLDS = (
    "{x}.sum({k})", "{x}.amax({k})", "{x}.prod({k})", "{x}.max({k}).values", "{x}.any({k})",
    "{x}.sum()", "{x}.cumsum({k})", "{x}.all({k})", "{x}.sum({k}, dtype=torch.int32)",
    "{x}.min({k}).indices", "{x}.argmax({k})", "{x}.float().mean({k})",
)
POOLS = {
    1: (
        "F.max_pool1d({x}, 2)", "F.avg_pool1d({x}, 3, 1, 1)", "F.adaptive_avg_pool1d({x}, 2)",
        "F.max_pool1d({x}, 3, 2, 1)",
    ),
    2: (
        "F.max_pool2d({x}, 2)", "F.avg_pool2d({x}, 2)", "F.adaptive_avg_pool2d({x}, (1, 2))",
        "F.max_pool2d({x}, 3, 2, 1)", "F.avg_pool2d({x}, 3, 2, 1, count_include_pad=False)",
        "F.avg_pool2d({x}, 3, 2, 1, ceil_mode=True)", "F.max_pool2d({x}, 2, stride=1, dilation=2)",
        "F.lp_pool2d({x}.abs() + 1, 2, 2)", "F.adaptive_max_pool2d({x}, 2)",
        "F.max_pool2d({x}, (1, 2), ceil_mode=True)", "F.adaptive_avg_pool2d({x}, 3)",
    ),
    3: ("F.max_pool3d({x}, 2)", "F.avg_pool3d({x}, 2, 1)", "F.adaptive_avg_pool3d({x}, 1)"),
}
# fmt: on


def folded(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, float_of_rank(1, 5)):
        axes = d.axes(x[1])
        shown = str(axes[0]) if len(axes) == 1 else f"({', '.join(map(str, axes))})"
        s.add(d.pick(FOLDS).format(x=x[0], a=shown), rounds=True)


def along(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, float_of_rank(1, 5)):
        text = d.pick(ALONG)
        if "gumbel" not in text:
            s.add(text.format(x=x[0], k=d.axis(x[1])), rounds=True)


def rows(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, float_of_rank(2, 5)):
        s.add(d.pick(ROWS).format(x=x[0], n=x[1].shape[-1]), rounds=True)


def position(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, has_rank(1, 5), exact=True):
        s.add(d.pick(POSITIONS).format(x=x[0], k=d.axis(x[1])), rounds=False)


def whole_fold(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, lambda v: not is_float(v) and v.ndim > 0):
        s.add_either(d.pick(WHOLE_FOLDS).format(x=x[0], k=d.axis(x[1])))


def pooled(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, float_of_rank(3, 5)):
        s.add(d.pick(POOLS[d.pick((x[1].ndim - 2, max(x[1].ndim - 3, 1)))]).format(x=x[0]), True)


def batch_normed(d: Drawer, s: Scope) -> None:
    """A submodule whose running statistics each call updates."""
    if x := d.operand(s, float_of_rank(2, 4)):
        k, n = x[1].ndim, x[1].shape[1]
        form = d.pick(("BatchNorm{k}d({n})", "BatchNorm{k}d({n}, momentum=0.3, affine=False)"))
        name = s.add_state("m", "nn." + form.format(k=max(k - 2, 1), n=n))
        if name and not s.add(f"{name}({x[0]})", rounds=True):
            s.drop_state(name)


REDUCE = (*(folded,) * 7, *(along,) * 5, *(rows,) * 2, *(position,) * 3, whole_fold, pooled, pooled)
REDUCE += (batch_normed,)
