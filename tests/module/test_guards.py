"""What the guards do not admit runs the reference forward, correctly, with one warning."""

import warnings

import pytest
import torch
from torch import nn

from module.problems import emitted, quiet

BODY = """
class Model(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.0), nn.LayerNorm(3))
        self.register_buffer("shift", torch.ones(3))
    def forward(self, x, scale=1.0):
        return (self.net(x) * self.factor + self.shift) * scale
def get_inputs(): return [torch.rand(5, 4)]
def get_init_inputs(): return [2.0]
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return emitted(tmp_path_factory.mktemp("guards"), BODY)


@pytest.fixture
def model(module):
    module._warned.clear()
    return module.ModelNew(*module.get_init_inputs())


def refused(model, match, *args, **kwargs):
    """The result, which must be the reference's, after a warning that matches and none later."""
    with pytest.warns(UserWarning, match=match):
        out = model(*args, **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = model(*args, **kwargs)
    want = super(type(model), model).forward(*args, **kwargs)
    for got in (out, again):
        torch.testing.assert_close(got, want)
    return out


def test_gradients(model, module):
    out = refused(model, "net.0.weight needs gradients", *module.get_inputs())
    out.sum().backward()
    assert model.net[0].weight.grad is not None


def test_gradients_of_the_input(model, module):
    model.requires_grad_(False)
    x = module.get_inputs()[0].requires_grad_()
    refused(model, "x needs gradients", x).sum().backward()
    assert x.grad is not None


def test_frozen_models_run_the_kernels_with_gradients_enabled(model, module):
    model.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model(*module.get_inputs())


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (torch.rand(6, 4), r"x is torch\.float32 \(6, 4\), not torch\.float32 \(5, 4\)"),
        (torch.rand(4, 5).t(), r"x has strides \(1, 5\)"),
        (torch.rand(5, 4).as_subclass(type("Sub", (torch.Tensor,), {})), "x is a Sub"),
    ],
)
def test_other_tensors(model, x, match):
    with torch.no_grad():
        refused(model, match, x)


def test_strides_of_single_elements_do_not_matter(tmp_path):
    new = emitted(
        tmp_path,
        """
        class Model(nn.Module):
            def forward(self, x): return x.exp()
        def get_inputs(): return [torch.rand(1, 4)]
        """,
    ).ModelNew()
    x = torch.rand(4, 3).t()[:1].contiguous().as_strided((1, 4), (77, 1))
    torch.testing.assert_close(quiet(new, x), x.exp())


CHANGES = {
    "mode": (lambda m: m.eval(), "net.1: .'training'. differ"),
    "constant": (lambda m: setattr(m, "factor", 3.0), "the model: .'factor'. differ"),
    "constant of a submodule": (lambda m: setattr(m.net[2], "eps", 0.5), "net.2: .'eps'. differ"),
    "another module": (lambda m: m.net.__setitem__(1, nn.ReLU()), "net.1 is a ReLU, not a Dropout"),
    "more modules": (lambda m: m.net.append(nn.ReLU()), "the model has 6 modules, not 5"),
    "hook": (lambda m: m.net[0].register_forward_hook(lambda *a: a[2] + 1), "net.0 has forward"),
    "pre-hook": (lambda m: m.net[0].register_forward_pre_hook(lambda *a: None), "net.0 has for"),
    "parametrization": (
        lambda m: nn.utils.parametrize.register_parametrization(m.net[0], "weight", nn.Identity()),
        "the model has 8 modules",
    ),
    "buffer shape": (lambda m: setattr(m, "shift", torch.ones(1)), r"shift is .* \(1,\), not"),
    "buffer type": (lambda m: setattr(m, "shift", torch.ones(3).double()), "shift is .*float64"),
    "lost bias": (
        lambda m: m.net[0].register_parameter("bias", None),
        "net.0.bias is a NoneType",
    ),
    "double": (lambda m: m.double(), "x is torch|net.0.weight is torch.float64"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_models(model, module, name):
    change, match = CHANGES[name]
    change(model)
    (x,) = module.get_inputs()
    x = x.to(model.net[0].bias.dtype) if name == "double" else x
    with torch.no_grad():
        refused(model, match, x)


def test_hooks_of_the_model_itself_run_as_ever(model, module):
    model.register_forward_hook(lambda m, args, out: out + 100)
    assert quiet(model, *module.get_inputs()).min() > 50


def test_another_constant_given_to_the_constructor(module):
    module._warned.clear()
    with torch.no_grad():
        refused(module.ModelNew(5.0), "the model: .'factor'. differ", *module.get_inputs())


def test_other_constants_among_the_arguments(model, module):
    with torch.no_grad():
        refused(model, r"scale is not 1\.0", *module.get_inputs(), scale=2.0)
        module._warned.clear()
        refused(model, r"scale is not 1\.0", *module.get_inputs(), torch.tensor(1.0))


def test_autocast(model, module):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        out = refused(model, "autocast is on", *module.get_inputs())
    assert out.shape == (5, 3)


def test_meta_and_fake_tensors(model, module):
    meta = module.ModelNew(2.0).to("meta")
    with torch.no_grad(), pytest.warns(UserWarning, match="the tensors are on meta"):
        assert meta(torch.empty(5, 4, device="meta")).is_meta
    mode = torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), mode, pytest.warns(UserWarning, match="x is a FakeTensor"):
        model(torch.rand(5, 4))


def test_tied_parameters_that_were_untied(tmp_path):
    new = emitted(
        tmp_path,
        """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
                self.b.weight = self.a.weight
            def forward(self, x): return self.b(self.a(x).relu())
        def get_inputs(): return [torch.rand(2, 3)]
        """,
    ).ModelNew()
    new.b.weight = nn.Parameter(torch.zeros(3, 3))
    with torch.no_grad():
        refused(new, "a.weight and b.weight are no longer one tensor", torch.rand(2, 3))


def test_written_tensors_that_share_memory(tmp_path):
    module = emitted(
        tmp_path,
        """
        class Model(nn.Module):
            def forward(self, x, y):
                x.add_(1)
                return x * y
        def get_inputs(): return [torch.rand(3), torch.rand(3)]
        """,
    )
    x = torch.rand(3)
    with torch.no_grad(), pytest.warns(UserWarning, match="x is written and shares memory"):
        out = module.ModelNew()(x, x)
    torch.testing.assert_close(out, x * x)
