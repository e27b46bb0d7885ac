"""Emitted products on a GPU: depths, magnitudes and special values against float64 and eager."""

import pytest
import torch

from fusewright.options import Options
from fusewright.pipeline import compile_problem
from fusewright.problem import load_problem
from fusewright.run.load import import_text

pytestmark = pytest.mark.gpu

DEPTHS = (1, 7, 64, 1000, 8192, 32768)
ROWS, COLUMNS = 1536, 4096
TEXT = """
import torch
import torch.nn as nn


class Model(nn.Module):
    def forward(self, x, w, bias):
        h = x @ w.t() + bias
        return h, torch.logsumexp(h, dim=1), h.amax(dim=0)


def get_inputs():
    return [torch.randn({rows}, {depth}), torch.randn({columns}, {depth}), torch.randn({columns})]


def get_init_inputs():
    return []
"""
COMPUTED = """
import torch
import torch.nn as nn


class Model(nn.Module):
    def forward(self, x, w, gain):
        return torch.sigmoid((torch.relu(x) * gain + 0.1) @ torch.tanh(w).t())


def get_inputs():
    return [torch.randn({rows}, {depth}), torch.randn({columns}, {depth}), torch.randn({depth})]


def get_init_inputs():
    return []
"""
# Rows, depth and columns: the product computes both operands, the smaller one, both over slices.
COMPUTED_SHAPES = ((4100, 2052, 1030), (1030, 2052, 4100), (256, 40000, 520))
# Factors of x and of w, whose product stays within float32: beyond it, where an infinity meets one
# of the other sign depends on the order of the sum.
MAGNITUDES = ((1.0, 1.0), (1e-30, 1.0), (1e30, 1e-3), (1e-30, 1e30), (1e-20, 1e-20), (1e18, 1e15))


@pytest.fixture(scope="module", params=DEPTHS)
def emitted(request, tmp_path_factory):
    return emitted_for(request.param, tmp_path_factory.mktemp("products"))


def emitted_for(depth, folder):
    """The emitted module of a depth."""
    path = folder / f"depth_{depth}.py"
    path.write_text(TEXT.format(rows=ROWS, depth=depth, columns=COLUMNS))
    return import_emitted(path)


def import_emitted(path):
    c = compile_problem(load_problem(path, fake=True), Options(target="cuda:sm_90a"))
    return import_text(c.module_text, c.title, c.given)


def inputs_of(module, scale=(1.0, 1.0)):
    torch.manual_seed(3)
    with torch.device("cuda"):
        x, w, bias = module.get_inputs()
    return [x * scale[0], w * scale[1], bias * scale[0] * scale[1]]


def same_special(got, eager):
    """Infinite and NaN where eager is."""
    assert torch.equal(got.isnan(), eager.isnan())
    assert torch.equal(got.isinf(), eager.isinf())


def close(got, eager, exact):
    """As near to float64 as eager, or 5e-7, where eager is finite."""
    finite = eager.isfinite() & exact.isfinite()
    if not finite.any() or not exact[finite].norm():
        return
    size = exact[finite].norm()
    errors = [((t[finite].double() - exact[finite]).norm() / size).item() for t in (got, eager)]
    assert errors[0] <= max(1.25 * errors[1], 5e-7), errors


def compare(module, inputs):
    """The product, its row logsumexp and its column maximum. Rewrites of the default class may give
    other infinities in the logsumexp, as they hold for finite values."""
    model, new = module.Model(), module.ModelNew()
    with torch.no_grad():
        got, eager, again = new(*inputs), model(*inputs), new(*inputs)
        exact = model(*(t.double() for t in inputs))
    for k in range(3):
        assert torch.equal(got[k].nan_to_num(), again[k].nan_to_num())
        close(got[k], eager[k], exact[k])
        if k != 1:
            same_special(got[k], eager[k])


@pytest.mark.parametrize("scale", MAGNITUDES)
def test_magnitudes(emitted, scale):
    compare(emitted, inputs_of(emitted, scale))


def test_denormals(emitted):
    x, w, bias = inputs_of(emitted, (1e-39, 1.0))
    compare(emitted, [x, w, bias])


def test_infinities_and_nan(emitted):
    x, w, bias = inputs_of(emitted)
    x[3, 0], x[5, -1], w[7, 0] = float("inf"), float("nan"), float("-inf")
    compare(emitted, [x, w, bias])


@pytest.mark.parametrize("shape", COMPUTED_SHAPES)
def test_computed_operands_and_slices(shape, tmp_path):
    path = tmp_path / "computed.py"
    path.write_text(COMPUTED.format(rows=shape[0], depth=shape[1], columns=shape[2]))
    module = import_emitted(path)
    torch.manual_seed(3)
    with torch.device("cuda"):
        x, w, gain = module.get_inputs()
    model, new = module.Model(), module.ModelNew()
    for inputs in ([x, w / 100, gain], [x * 1e-20, w / 100, gain * 1e18]):
        with torch.no_grad():
            got, eager, again = new(*inputs), model(*inputs), new(*inputs)
            close(got, eager, model(*(t.double() for t in inputs)))
        assert torch.equal(got, again)
