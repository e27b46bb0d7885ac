"""The Python API: optimised modules share everything with the module they stand for."""

import copy
import pickle
from typing import NamedTuple

import pytest
import torch
from torch import nn

import fusewright
from fusewright.errors import CaptureError, UsageError
from module.problems import quiet


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 8), nn.GELU(), nn.LayerNorm(8)).eval()


def test_parameters_are_shared_not_copied(model):
    x = torch.rand(5, 12)
    new = fusewright.optimize(model, [x])
    with torch.no_grad():
        torch.testing.assert_close(quiet(new, x), model(x))
        model[0].weight.mul_(2)
        torch.testing.assert_close(quiet(new, x), model(x))
        new[0].bias = nn.Parameter(torch.ones(8))
        torch.testing.assert_close(quiet(new, x), model(x))
    assert isinstance(new, nn.Sequential)
    assert list(new.state_dict()) == list(model.state_dict())
    assert new[0].weight is model[0].weight


def test_training_through_the_optimised_module_reaches_the_original(model):
    x = torch.rand(5, 12)
    new = fusewright.optimize(model, [x])
    with pytest.warns(UserWarning, match="needs gradients"):
        new(x).sum().backward()
    assert model[0].weight.grad is not None


def test_copies_and_pickles(model):
    x = torch.rand(5, 12)
    new = fusewright.optimize(model, [x])
    for other in (copy.deepcopy(new), pickle.loads(pickle.dumps(new))):
        torch.testing.assert_close(quiet(other, x), quiet(new, x))
        assert other[0].weight is not new[0].weight


def test_a_class_defined_in_a_function():
    class Local(nn.Module):
        def forward(self, x, n):
            return x * n, {"n": n}

    new = fusewright.optimize(Local(), [torch.rand(3), 2])
    out, other = quiet(new, torch.ones(3), 2)
    assert out.tolist() == [2, 2, 2]
    assert other == {"n": 2}


def test_explain_takes_modules_problems_and_files(model, tmp_path):
    x = torch.rand(5, 12)
    data = fusewright.explain(model, [x])
    assert data["problem"] == "Sequential"
    assert data["target"] == "cpu"
    path = tmp_path / "p.py"
    path.write_text(
        "import torch\n"
        "class Model(torch.nn.Module):\n"
        "    def forward(self, x): return x.exp()\n"
        "def get_inputs(): return [torch.rand(3)]\n"
    )
    assert fusewright.explain(path, target="cuda:sm_80")["target"] == "cuda:sm_80"
    with pytest.raises(UsageError, match="example_inputs belong to a module"):
        fusewright.explain(path, [x])


def test_bad_arguments_are_named(model):
    with pytest.raises(UsageError, match="no such option: speed"):
        fusewright.optimize(model, [torch.rand(5, 12)], speed="high")
    with pytest.raises(CaptureError):
        fusewright.optimize(model, [torch.rand(5, 13)])
    with pytest.raises(UsageError, match="a module needs example_inputs"):
        fusewright.explain(model)


def test_only_public_names_are_exported():
    assert sorted(fusewright.__all__) == [
        "Problem", "__version__", "bench", "explain", "optimize", "verify",
    ]  # fmt: skip
    assert all(hasattr(fusewright, name) for name in fusewright.__all__)
    with pytest.raises(AttributeError, match="no attribute 'compile'"):
        _ = fusewright.compile


def test_named_tuples_that_forward_returns():
    new = fusewright.optimize(ReturnsPair(), [torch.rand(3)])
    out = quiet(new, torch.ones(3))
    assert type(out) is Pair
    assert out.second.tolist() == [2, 2, 2]


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class ReturnsPair(nn.Module):
    def forward(self, x):
        return Pair(x.exp(), x * 2)
