"""Makers of lines, and how often each is asked. A maker adds a line to the scope or does nothing.

Pointwise lines, choices, conversions and writes in place are here; the others have their own files.
"""

from .drawer import Drawer, float_of_rank, is_bool, is_float, is_integer
from .lines_contract import CONTRACT
from .lines_gather import GATHER
from .lines_reduce import REDUCE
from .lines_view import VIEW, part_of
from .scope import Scope

# fmt: off
SMOOTH = (
    "torch.sin({x})", "torch.cos({x})", "torch.tanh({x})", "torch.sigmoid({x})", "F.relu({x})",
    "torch.exp({x}.clamp(-5, 5))", "F.gelu({x})", "F.gelu({x}, approximate='tanh')", "F.silu({x})",
    "F.softplus({x})", "F.softplus({x}, beta=2.0, threshold=3.0)", "F.elu({x}, 0.7)",
    "F.selu({x})", "F.celu({x}, 1.3)", "F.mish({x})", "F.hardswish({x})", "F.hardsigmoid({x})",
    "F.leaky_relu({x}, 0.2)", "{x}.abs()", "-{x}", "{x}.square()", "torch.erf({x})",
    "torch.atan({x})", "torch.rsqrt({x}.abs() + 0.5)", "torch.log1p({x}.abs())",
    "torch.sqrt({x}.abs() + 0.25)", "torch.expm1({x}.clamp(max=3))", "F.relu6({x})",
    "F.logsigmoid({x})", "F.softsign({x})", "F.tanhshrink({x})", "1 / ({x}.abs() + 1)",
    "torch.log({x}.abs() + 1)", "{x}.clamp(-1, 1)", "{x}.clamp(min=0.5)", "{x}.clamp(max=0.25)",
    "F.hardtanh({x}, -0.5, 2.0)", "F.softshrink({x}, 0.3)", "{x} ** 2", "{x} ** 3", "{x} * 0.5",
    "{x} + 1", "2 - {x}", "{x} / 3", "{x} * -1", "{x} * 1", "{x} + 0", "{x} - 0.5",
    "torch.asinh({x})", "torch.reciprocal({x}.square() + 0.5)", "torch.erfc({x})",
    "torch.log2({x}.abs() + 2)", "torch.exp2({x}.clamp(-4, 4))", "torch.sinh({x}.clamp(-3, 3))",
    "({x}.abs() + 0.1) ** 0.5", "({x}.abs() + 0.1) ** -1.5", "2.0 ** {x}.clamp(-3, 3)",
    "torch.nan_to_num({x})", "{x}.clamp(0, 0)", "torch.sinc({x})",
    "torch.logit({x}.sigmoid(), 0.1)",
)
STEPS = (
    "{x}.floor()", "{x}.ceil()", "{x}.round()", "{x}.trunc()", "{x}.sign()", "{x}.frac()",
    "F.hardshrink({x}, 0.5)", "F.threshold({x}, 0.25, -1.0)", "{x} % 1.5", "{x} // 0.75",
    "torch.fmod({x}, 1.25)", "{x} > 0", "{x} <= 0.25", "{x} != 0", "{x} == 1", "torch.isnan({x})",
    "torch.isfinite({x})", "torch.signbit({x})", "{x}.bool()", "{x}.long()", "{x}.int()",
    "{x}.clamp(-99, 99).to(torch.int8)", "{x}.to(torch.int16)",
    "torch.heaviside({x}, {x} * 0 + 0.5)", "torch.copysign({x}, {x}.roll(1))", "{x}.logical_not()",
    "torch.round({x}, decimals=1)",
)
WHOLE = (
    "-{x}", "{x}.abs()", "~{x}", "{x} * 3", "{x} // 2", "{x} % 3", "{x} + 1", "{x} - 2", "{x} & 1",
    "{x} | 4", "{x} ^ 3", "{x} << 1", "{x} >> 1", "{x} / 2", "{x} * 0.5", "{x} + 0.25",
    "{x}.clamp(0, 3)", "{x}.float()", "{x}.double()", "{x}.half()", "{x}.bool()", "{x} > 1",
    "{x} == 2", "{x}.sign()", "{x}.square()", "{x} ** 2", "{x}.to(torch.uint8)", "{x}.long()",
    "{x}.int()", "{x}.to(torch.int8)", "{x}.to(torch.int16)", "{x}.to(torch.bfloat16)",
    "F.relu({x})", "torch.div({x}, 2, rounding_mode='trunc')",
    "torch.div({x}, 3, rounding_mode='floor')", "torch.remainder({x}, 4)", "torch.fmod({x}, 3)",
    "{x}.sigmoid()", "torch.exp({x}.clamp(-2, 2))", "{x}.logical_not()", "torch.sqrt({x}.abs())",
    "2 ** {x}.clamp(0, 4)", "{x} // -3", "-7 // {x}.clamp(min=1)",
)
LOGICAL = (
    "~{x}", "{x}.float()", "{x}.int()", "{x} * 2", "{x} + 1", "{x} & True", "{x} * 0.5",
    "{x} ^ True", "{x}.long() - 1", "{x}.logical_not()", "{x}.to(torch.uint8)",
    "{x}.to(torch.float64)", "1 - {x}.float()",
)
PAIRS = (
    "{x} + {y}", "{x} - {y}", "{x} * {y}", "torch.maximum({x}, {y})", "torch.minimum({x}, {y})",
    "{x} / ({y}.abs() + 1)", "torch.hypot({x}, {y})", "torch.add({x}, {y}, alpha=2)",
    "torch.sub({x}, {y}, alpha=0.5)", "torch.lerp({x}, {y}, 0.3)", "torch.logaddexp({x}, {y})",
    "torch.addcmul({x}, {x}, {y}, value=0.5)", "torch.addcdiv({x}, {y}, {y}.abs() + 1)",
    "({x}.abs() + 0.5) ** {y}.clamp(-2, 2)", "torch.rsub({x}, {y})",
    "torch.atan2({x}, {y}.abs() + 0.1)", "F.mse_loss({x}, {y}, reduction='none')",
    "F.smooth_l1_loss({x}, {y})", "F.l1_loss({x}, {y})", "torch.fmax({x}, {y})",
    "{x} * {y}.sigmoid()", "torch.dist({x}, {y})", "torch.clamp({x}, {y} - 1, {y} + 1)",
    "F.cosine_similarity({x}, {y}, dim=-1)", "torch.xlogy({x}, {y}.abs() + 1)",
)
WHOLE_PAIRS = (
    "{x} + {y}", "{x} - {y}", "{x} * {y}", "torch.maximum({x}, {y})", "torch.minimum({x}, {y})",
    "{x} & {y}", "{x} | {y}", "{x} ^ {y}", "{x} // ({y}.abs() + 1)", "{x} % ({y}.abs() + 1)",
    "{x} / ({y}.abs() + 1)", "torch.fmod({x}, {y}.abs() + 1)", "torch.logical_and({x}, {y})",
    "torch.logical_xor({x}, {y})", "torch.add({x}, {y}, alpha=2)", "torch.gcd({x}, {y})",
)
COMPARED = (
    "{x} > {y}", "{x} >= {y}", "{x} < {y}", "{x} <= {y}", "{x} == {y}", "{x} != {y}",
    "torch.isclose({x}, {y})", "torch.fmod({x}, {y}.abs() + 1)",
    "torch.remainder({x}, {y}.abs() + 1)", "torch.div({x}, {y}.abs() + 1, rounding_mode='floor')",
    "torch.logical_or({x}, {y})",
)
CHOSEN = (
    "torch.where({m}, {x}, {y})", "torch.where({m}, {x}, 0.0)", "torch.where({m}, 1, {x})",
    "{x}.masked_fill({m}, -1.0)", "{x}.masked_fill({m}, float('-inf')).softmax(-1)", "{x} * {m}",
    "{x} + {m}", "torch.where({m}, {x}, -{x})", "{x}.masked_fill(~{m}, 0)",
    "torch.where({m}, {x}.exp(), 1)",
)
IN_PLACE = (
    "{t}.add_({y})", "{t}.mul_(0.5)", "{t}.mul_({y})", "{t}.sub_({y})", "{t}.copy_({y})",
    "{t}.zero_()", "{t}.fill_(0.75)", "{t}.relu_()", "{t}.clamp_(-1, 1)", "{t}.neg_()",
    "{t}.tanh_()", "{t}.add_(1)", "{t}.sigmoid_()", "{t}.add_({y}, alpha=0.1)",
    "{t}.lerp_({y}, 0.25)", "{t}.maximum({y})", "{t}.div_({y}.abs() + 1)", "{t}.square_()",
    "{t}.abs_()", "{t}.masked_fill_({t} > 0.5, 0.0)",
)
# fmt: on
_STEPPING = ("fill_", "masked_fill_")


def smooth(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, is_float):
        s.add(d.pick(SMOOTH).format(x=x[0]), rounds=True)


def step(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, is_float, exact=True):
        s.add(d.pick(STEPS).format(x=x[0]), rounds=False)


def whole(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, is_integer):
        s.add_either(d.pick(WHOLE).format(x=x[0]))


def logical(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, is_bool):
        s.add(d.pick(LOGICAL).format(x=x[0]), rounds=False)


def pair(d: Drawer, s: Scope) -> None:
    x = d.operand(s, is_float)
    y = x and d.operand(s, lambda v: _joins(x[1].shape, v.shape))
    if x and y:
        s.add(d.pick(PAIRS).format(x=x[0], y=y[0]), rounds=True)


def whole_pair(d: Drawer, s: Scope) -> None:
    x = d.operand(s, lambda v: not is_float(v))
    y = x and d.operand(s, lambda v: not is_float(v) and _joins(x[1].shape, v.shape))
    if x and y:
        s.add_either(d.pick(WHOLE_PAIRS).format(x=x[0], y=y[0]))


def compared(d: Drawer, s: Scope) -> None:
    x = d.operand(s, exact=True)
    y = x and d.operand(s, lambda v: _joins(x[1].shape, v.shape), exact=True)
    if x and y:
        s.add(d.pick(COMPARED).format(x=x[0], y=y[0]), rounds=False)


def chosen(d: Drawer, s: Scope) -> None:
    m = d.operand(s, is_bool)
    if not m:
        x = d.operand(s, exact=True)
        name = x and s.add(f"{x[0]} > 0", rounds=False)
        m = (name, s.values[name]) if name else None
    x = m and d.operand(s, lambda v: is_float(v) and _joins(m[1].shape, v.shape))
    y = x and d.operand(s, lambda v: _joins(x[1].shape, v.shape))
    if m and x and y:
        s.add(d.pick(CHOSEN).format(m=m[0], x=x[0], y=y[0]), rounds=True)


def converted(d: Drawer, s: Scope) -> None:
    if x := d.operand(s):
        kind = d.pick(("float32", "float64", "bfloat16", "float16"))
        text = d.pick(("{x}.to(torch.{k})", "{x}.to(torch.{k}) * 2", "{x}.to(torch.{k}).float()"))
        s.add(text.format(x=x[0], k=kind), rounds=True)


def created(d: Drawer, s: Scope) -> None:
    if x := d.operand(s, lambda v: v.ndim > 0):
        n = x[1].shape[-1]
        # fmt: off
        texts = (
            "torch.arange({n})", "torch.arange({n}, dtype=torch.float32) * 0.25",
            "torch.zeros_like({x})", "torch.ones({n}, {n}).tril()", "torch.full_like({x}, 0.5)",
            "torch.eye({n})", "{x}.new_zeros({n})", "torch.tensor([1.0, -2.0, 0.5])",
            "torch.full(({n},), 3)", "torch.linspace(0, 1, {n})", "torch.arange({n}, 0, -1)",
            "torch.tensor(0.3)", "torch.ones({n}, dtype=torch.bool)",
            "torch.arange(0, {n}, 2) * 1.5",
        )
        # fmt: on
        s.add(d.pick(texts).format(n=n, x=x[0]), rounds=False)


def written(d: Drawer, s: Scope) -> None:
    """A write into a value, an input, a buffer, or a view of one."""
    writable = {n for n in s.values if not n.startswith("self.p")}
    target = d.operand(s, lambda v: is_float(v) or is_integer(v))
    if not target or target[0] not in writable or not target[1].numel():
        return
    name, value = target
    text = name
    if d.flag():
        text, value = part_of(d, name, value)
    y = d.operand(s, lambda v: _joins(value.shape, v.shape))
    form = d.pick(IN_PLACE) if d.whole(0, 3) else "{t}[...] = {y}"
    if y and ".maximum(" not in form and not (form == "{t}[...] = {y}" and text != name):
        s.write(name, form.format(t=text, y=y[0]), rounds=is_float(value))
    elif y and text.endswith("]"):
        s.write(name, f"{text} = {y[0]}", rounds=is_float(value))


def remembered(d: Drawer, s: Scope) -> None:
    """A buffer that a value is written to, as running statistics are."""
    if x := d.operand(s, float_of_rank(0, 3)):
        shape = ", ".join(map(str, x[1].shape))
        buffer = s.add_state("b", f"torch.zeros({shape or '()'})")
        forms = ("{b}.mul_(0.9).add_({x}, alpha=0.1)", "{b}.copy_({x})", "{b} += {x}")
        if buffer and not s.write(buffer, d.pick(forms).format(b=buffer, x=x[0]), rounds=True):
            s.drop_state(buffer)


def _joins(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes broadcast."""
    return all(m == n or m == 1 or n == 1 for m, n in zip(a[::-1], b[::-1]))


LINES = (
    *(smooth,) * 8,
    *(pair,) * 8,
    *(step,) * 2,
    *(whole,) * 2,
    logical,
    *(whole_pair,) * 2,
    *(compared,) * 2,
    *(chosen,) * 3,
    converted,
    created,
    *(written,) * 4,
    remembered,
    *VIEW,
    *REDUCE,
    *CONTRACT,
    *GATHER,
)
