"""Emitted files computed on the CPU: results, structure, state and side effects as in eager."""

import copy
import inspect
import pickle
import warnings

import pytest
import torch
from torch.utils import _pytree as pytree

from module.problems import emitted

pytestmark = pytest.mark.timeout(120)


def pair(module, seed=0):
    """(Model, ModelNew) with the same parameters, and the random state after each."""
    init = module.get_init_inputs() if hasattr(module, "get_init_inputs") else []
    models, states = [], []
    for cls in (module.Model, module.ModelNew):
        torch.manual_seed(seed)
        models.append(cls(*init))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    return models


def both(module, inputs=None, seed=1):
    """Results of eager and of the kernels on equal inputs; fails if the reference ran instead."""
    old, new = pair(module)
    torch.manual_seed(seed)
    inputs = module.get_inputs() if inputs is None else inputs
    theirs, ours = copy.deepcopy(inputs), copy.deepcopy(inputs)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        torch.manual_seed(seed)
        want = old(*theirs)
        torch.manual_seed(seed)
        got = new(*ours)
    assert_same(want, got)
    assert_same(theirs, ours)
    assert_same(dict(old.state_dict()), dict(new.state_dict()))
    return want, got, theirs, ours


def assert_same(want, got):
    left, structure = pytree.tree_flatten(want)
    right, other = pytree.tree_flatten(got)
    assert str(structure) == str(other)
    for a, b in zip(left, right, strict=True):
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(b, a, equal_nan=True)
            assert b.stride() == a.stride()
            assert b.dtype == a.dtype
        else:
            assert type(a) is type(b)
            assert a == b


PROBLEMS = {
    "linear": """
        class Model(nn.Module):
            def __init__(self, n):
                super().__init__()
                self.linear = nn.Linear(n, 7)
            def forward(self, x):
                return torch.sigmoid(self.linear(x)).sum(1, keepdim=True)
        def get_inputs(): return [torch.rand(5, 9)]
        def get_init_inputs(): return [9]
    """,
    "structure": """
        class Model(nn.Module):
            def forward(self, x, pair):
                y, z = pair["y"], pair["rest"][0]
                return {"a": x + y, "b": [(x - y, 3), None], "c": (x * z,)}
        def get_inputs():
            return [torch.rand(4), {"y": torch.rand(4), "rest": [torch.rand(4), 2]}]
    """,
    "train_batch_norm": """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
            def forward(self, x):
                return self.net(x)
        def get_inputs(): return [torch.rand(2, 3, 8, 8)]
    """,
    "dropout_in_training": """
        class Model(nn.Module):
            def forward(self, x):
                return F.dropout(x.exp(), 0.5, training=self.training) * 2
        def get_inputs(): return [torch.rand(64, 64)]
    """,
    "mutated_input": """
        class Model(nn.Module):
            def forward(self, x, y):
                x.add_(y)
                y.mul_(2)
                return x, (x + y).exp()
        def get_inputs(): return [torch.rand(6), torch.rand(6)]
    """,
    "swapped_inputs": """
        class Model(nn.Module):
            def forward(self, x, y):
                old = x.clone()
                x.copy_(y)
                y.copy_(old)
                return old
        def get_inputs(): return [torch.rand(6), torch.rand(6)]
    """,
    "buffers": """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("count", torch.zeros((), dtype=torch.int64))
                self.register_buffer("mean", torch.zeros(6))
            def forward(self, x):
                self.count += 1
                self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
                return x - self.mean
        def get_inputs(): return [torch.rand(3, 6)]
    """,
    "same_tensor_twice": """
        class Model(nn.Module):
            def forward(self, x):
                y = x.sin()
                return y, x, y
        def get_inputs(): return [torch.rand(6)]
    """,
    "copies_of_inputs": """
        class Model(nn.Module):
            def forward(self, x):
                return x.clone()
        def get_inputs(): return [torch.rand(6)]
    """,
    "ordered_results": """
        from collections import OrderedDict
        class Model(nn.Module):
            def forward(self, x):
                return OrderedDict(out=x.sin(), rest=OrderedDict([("0", x.cos()), ("n", 2)]))
        def get_inputs(): return [torch.rand(6)]
    """,
    "strided_inputs": """
        class Model(nn.Module):
            def forward(self, x, y):
                return x.relu(), y.cos()
        def get_inputs(): return [torch.rand(6, 4).t(), torch.rand(4).expand(3, 4)]
    """,
    "foreign_operator": """
        class Model(nn.Module):
            def forward(self, x):
                values, order = torch.sort(x.exp(), dim=1)
                return torch.cumsum(values, 1) + 1, order
        def get_inputs(): return [torch.rand(5, 6)]
    """,
    "cumulative": """
        class Model(nn.Module):
            def forward(self, x, mask, z):
                zero = torch.zeros_like(x[:, :1])
                masked = (x * mask).flip(1).cumsum(1).flip(1)
                exclusive = torch.cat((zero, x.cumsum(1)[:, :-1]), 1)
                shifted = torch.cumsum(torch.cat((zero, x), 1)[:-1], 1)
                return masked, exclusive, shifted, x.softmax(1).cumprod(0), *z.cummax(1)
        def get_inputs():
            return [torch.rand(9, 50), torch.rand(9, 50) > 0.5, torch.randn(1, 70000)]
    """,
    "literal_tensor": """
        class Model(nn.Module):
            def forward(self, x):
                return x * torch.tensor([1.0, float("inf"), -2.5])
        def get_inputs(): return [torch.rand(4, 3)]
    """,
    "tensor_attribute": """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.tables = [torch.arange(3.0), torch.ones(3)]
                self.layers = nn.ModuleDict({"a b": nn.Linear(3, 3)})
            def forward(self, x):
                return self.layers["a b"](x) * self.tables[0] + self.tables[1]
        def get_inputs(): return [torch.rand(4, 3)]
    """,
    "empty_and_scalar": """
        class Model(nn.Module):
            def forward(self, x, s):
                return x.exp(), s * 2, x.sum(0)
        def get_inputs(): return [torch.rand(0, 3), torch.tensor(2.0)]
    """,
    "nothing_to_compute": """
        class Model(nn.Module):
            def forward(self, x):
                return x
        def get_inputs(): return [torch.rand(3)]
    """,
    "no_tensors": """
        class Model(nn.Module):
            def forward(self, n):
                return torch.arange(n) * 2
        def get_inputs(): return [5]
    """,
    "var_arguments": """
        class Model(nn.Module):
            def forward(self, *xs):
                return xs[0] + xs[1] * 2
        def get_inputs(): return [torch.rand(3), torch.rand(3)]
    """,
    "names_that_collide": """
        class Model(nn.Module):
            def forward(self, out, device, tensors=None):
                return (out + device).exp(), out.sum()
        def get_inputs(): return [torch.rand(3), torch.rand(3)]
    """,
    "batched_products": """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.w = nn.Parameter(torch.rand(4, 5))
            def forward(self, x, y):
                return (x @ self.w).relu(), torch.einsum("bij,bkj->bki", x, y)
        def get_inputs(): return [torch.rand(2, 3, 4), torch.rand(2, 3, 4)]
    """,
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_results_structure_and_side_effects(name, tmp_path):
    both(emitted(tmp_path, PROBLEMS[name]))


@pytest.mark.slow
@pytest.mark.timeout(600)  # torch's headers take half a minute on an idle machine
def test_the_classical_binding(tmp_path):
    body = """
        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("mean", torch.zeros(6))
            def forward(self, x, at):
                self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
                sums = torch.cumsum(x.exp(), 1)
                return (sums - self.mean).gather(0, at)
        def get_inputs(): return [torch.rand(3, 6), torch.randint(0, 3, (2, 6))]
    """
    module = emitted(tmp_path, body, binding="torch")
    assert "std::vector<torch::Tensor> fused_0(torch::Tensor" in module.CPP_SOURCE
    both(module)
    x, at = module.get_inputs()
    with torch.no_grad(), pytest.raises(IndexError, match="out of range"):
        pair(module)[1](x, at + 3)


def test_an_input_returned_is_that_very_tensor_and_a_copy_is_not(tmp_path):
    _, got, _, ours = both(emitted(tmp_path, PROBLEMS["same_tensor_twice"]))
    assert got[1] is ours[0]
    assert got[0] is got[2]
    (tmp_path / "copies").mkdir()
    _, got, _, ours = both(emitted(tmp_path / "copies", PROBLEMS["copies_of_inputs"]))
    assert got.data_ptr() != ours[0].data_ptr()


def test_equal_results_have_memory_of_their_own_as_in_eager(tmp_path):
    body = """
        class Model(nn.Module):
            def forward(self, x):
                y = x.sin()
                return y, x.sin(), y + 0, y[0].clone()
        def get_inputs(): return [torch.rand(3, 6)]
    """
    _, got, _, _ = both(emitted(tmp_path, body))
    assert len({x.untyped_storage().data_ptr() for x in got}) == len(got)


def test_version_counters_of_written_tensors_rise(tmp_path):
    module = emitted(tmp_path, PROBLEMS["mutated_input"])
    _, new = pair(module)
    x, y = module.get_inputs()
    before = x._version, y._version
    with torch.no_grad():
        out, _ = new(x, y)
    assert out is x
    assert x._version > before[0]
    assert y._version > before[1]


def test_a_weight_changed_after_construction_counts(tmp_path):
    module = emitted(tmp_path, PROBLEMS["linear"])
    old, new = pair(module)
    (x,) = module.get_inputs()
    with torch.no_grad():
        for model in (old, new):
            model.linear.weight.mul_(3)
            model.linear.bias = torch.nn.Parameter(torch.ones(7))
        torch.testing.assert_close(new(x), old(x))


def test_models_can_be_copied_and_pickled(tmp_path):
    module = emitted(tmp_path, PROBLEMS["linear"])
    _, new = pair(module)
    (x,) = module.get_inputs()
    with torch.no_grad():
        want = new(x)
        for other in (copy.deepcopy(new), pickle.loads(pickle.dumps(new))):
            assert torch.equal(other(x), want)
            assert other.linear.weight is not new.linear.weight


def test_an_index_out_of_range_raises(tmp_path):
    module = emitted(
        tmp_path,
        """
        class Model(nn.Module):
            def forward(self, x, at):
                return x.exp().gather(0, at) + 1
        def get_inputs(): return [torch.rand(5, 3), torch.randint(0, 5, (4, 3))]
        """,
    )
    both(module)
    _, new = pair(module)
    x, at = module.get_inputs()
    at[0, 0] = 5
    with torch.no_grad(), pytest.raises(IndexError, match="out of range"):
        new(x, at)


def test_the_signature_is_the_users(tmp_path):
    module = emitted(
        tmp_path,
        """
        class Model(nn.Module):
            def forward(self, x, scale=2.0, mode="a b", other=None):
                return x * scale if mode == "a b" else x
        def get_inputs(): return [torch.rand(3)]
        """,
    )
    new, old = (inspect.signature(c.forward) for c in (module.ModelNew, module.Model))
    assert str(new) == str(old)
    _, model = pair(module)
    x = torch.rand(3)
    with torch.no_grad():
        assert torch.equal(model(x, scale=2.0), x * 2)
        with pytest.warns(UserWarning, match=r"scale is not 2\.0"):
            assert torch.equal(model(x, 3.0), x * 3)


def test_inference_mode(tmp_path):
    module = emitted(tmp_path, PROBLEMS["buffers"])
    old, new = pair(module)
    (x,) = module.get_inputs()
    with torch.inference_mode():
        torch.testing.assert_close(new(x), old(x))


LIBRARY_ONLY = """
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, (3, 3), bias=False)

    def forward(self, x):
        return self.conv(x)@AFTER@


def get_inputs(): return [torch.rand(2, 1, 20, 18)]
def get_init_inputs(): return []
"""


def test_a_model_of_library_calls_keeps_its_forward(tmp_path):
    module = emitted(tmp_path, LIBRARY_ONLY.replace("@AFTER@", ""))
    assert "forward" not in vars(module.ModelNew)
    both(module)


def test_operands_of_library_calls_are_passed_as_they_are(tmp_path):
    """Odd strides along axes of extent 1 make libraries take another layout for granted."""
    module = emitted(tmp_path, LIBRARY_ONLY.replace("@AFTER@", ".tanh()"))
    assert "as_strided" not in inspect.getsource(module.ModelNew)
    both(module)
