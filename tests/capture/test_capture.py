"""What capture records around the computation: inputs, structure, mutations, order, errors."""

import collections
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusewright.capture import capture
from fusewright.context import Context
from fusewright.errors import CaptureError
from fusewright.ir import graph as g
from fusewright.problem import load_problem, problem_from_module

from .harness import (
    assert_close,
    bound,
    calls,
    captured,
    check_function,
    check_module,
    run_graph,
)


class Tied(nn.Module):
    """One weight under two names, an unused parameter, plain and contained tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.unused = nn.Parameter(torch.ones(3))
        self.plain = torch.randn(4)
        self.held = [torch.randn(4), {"scale": torch.randn(1)}]
        self.register_buffer("hidden", torch.randn(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x)) * self.plain * 2.0 + self.hidden
        return y + self.held[0] * 3.0 * self.held[1]["scale"]


def test_inputs_are_named_by_their_first_path() -> None:
    graph = check_module(Tied(), torch.randn(2, 4))
    roles = {s.name: (s.node.role, s.path) for s in graph.inputs}
    assert roles == {
        "x": ("input", (0,)),
        "a.weight": ("param", ("a", "weight")),
        "a.bias": ("param", ("a", "bias")),
        "b.bias": ("param", ("b", "bias")),
        "hidden": ("buffer", ("hidden",)),
        "plain": ("constant", ("plain",)),
        "held.0": ("constant", ("held", 0)),
        "held.1.scale": ("constant", ("held", 1, "scale")),
    }


class Counting(nn.Module):
    """Writes to buffers and to an argument, and returns one of each."""

    count: Tensor
    history: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("history", torch.zeros(4))

    def forward(self, x: Tensor, cache: Tensor) -> Any:
        self.count += 1
        self.history.mul_(0.5).add_(x.sum(0))
        cache[:, 1:3] = x[:, 1:3] * 2
        return x + self.history, cache, self.history, cache


def test_mutations_and_aliases() -> None:
    graph = check_module(Counting(), torch.randn(2, 4), torch.randn(2, 4))
    assert {m.target for m in graph.mutations} == {"count", "history", "cache"}
    assert graph.aliases == ((1, "cache"), (2, "history"))
    assert graph.result == g.Tree("tuple", ("",) * 4, (g.Leaf(0), g.Leaf(1), g.Leaf(2), g.Leaf(1)))


def test_an_argument_returned_as_it_is() -> None:
    graph = check_function(lambda x, y: (x, y * 2), torch.randn(3), torch.randn(3))
    assert graph.aliases == ((0, "args_0"),)


class Pair(NamedTuple):
    first: Tensor
    second: Any


@dataclasses.dataclass
class Record:
    value: Tensor
    nothing: Any
    inner: dict[str, Tensor]


def test_structure_of_the_result() -> None:
    def build(x: Tensor) -> Any:
        inner = {"b": x + 1, "a": [x * 2, None]}
        return {
            "pair": Pair(x + 3, 7),
            "record": Record(x - 1, None, {"k": x / 2}),
            "inner": inner,
            3: (True, "text", 2.5, float("inf")),
        }

    x = torch.randn(3)
    graph = captured(_module(build), x)
    result, _ = run_graph(graph, nn.Module(), [x])
    assert result["pair"] == ("Pair", {"first": result["pair"][1]["first"], "second": 7})
    assert_close(result["pair"][1]["first"], x + 3)
    name, fields = result["record"]
    assert name == "Record" and list(fields) == ["value", "nothing", "inner"]
    assert fields["nothing"] is None
    assert_close(fields["inner"]["k"], x / 2)
    assert list(result["inner"]) == ["b", "a"] and result["inner"]["a"][1] is None
    assert result[3] == (True, "text", 2.5, float("inf"))


def _module(function: Any) -> nn.Module:
    from .harness import Call

    return Call(function)


def test_arguments_in_containers_and_baked_values() -> None:
    def forward(pair: Any, options: Any, scale: float, nothing: None, flag: bool) -> Tensor:
        assert nothing is None
        y = pair[0] + pair[1] * scale
        return y * options["gain"] if flag else y

    inputs = ((torch.randn(3), torch.randn(3)), {"gain": torch.randn(1), "n": 4}, 2.5, None, True)
    graph = check_module(_module(forward), *inputs)
    assert [s.path for s in graph.inputs] == [(0, 0), (0, 1), (1, "gain")]


def test_strides_of_inputs_and_outputs() -> None:
    def forward(x: Tensor) -> Any:
        return x * 2, x.transpose(0, 1), x.reshape(-1), x[:, ::2], x.expand(2, 3, 4)

    graph = check_function(forward, torch.randn(4, 3).t())
    assert graph.inputs[0].strides == (1, 3)
    assert graph.output_strides[:2] == ((1, 3), (3, 1))


class Dropping(nn.Module):
    """Every kind of dropout, with a layout that decides which number goes where."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.4)
        self.inplace = nn.Dropout(0.3, inplace=True)
        self.channels = nn.Dropout2d(0.5)
        self.alpha = nn.AlphaDropout(0.2)
        self.feature = nn.FeatureAlphaDropout(0.2)

    def forward(self, x: Tensor) -> Any:
        first = self.drop(x.transpose(0, 1) + 0)
        second = self.drop(x)
        third = self.inplace(x * 2)
        noise = torch.rand_like(x) + torch.randn(3, 4, 5, device=x.device)
        noise = noise + torch.bernoulli(x.sigmoid()) + torch.normal(x, 1.0)
        return self.alpha(second), first, third, self.channels(x), noise, self.feature(x)


def test_random_numbers_are_those_of_eager() -> None:
    graph = check_module(Dropping(), torch.randn(3, 4, 5), externs=None)
    nodes = [n for n in graph.nodes() if isinstance(n, g.Extern)]
    drawing = {n.call for n in nodes if n.call.order is not None}
    assert sorted(c.order or 0 for c in drawing) == list(range(10))


def test_dropout_outside_training_is_the_identity() -> None:
    graph = check_module(Dropping().eval(), torch.randn(3, 4, 5), externs=None)
    assert "aten.dropout.default" not in calls(graph)


def test_equal_random_calls_are_not_merged() -> None:
    graph = check_function(
        lambda x: F.dropout(x, 0.5) - F.dropout(x, 0.5), torch.randn(50), externs=2
    )
    assert len(graph.nodes()) == 4


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13),
    reason="older torch derives a wrong shape for the state of an LSTM, which capture refuses",
)
def test_recurrent_layers_are_one_call() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 3, 2, dropout=0.5, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            return self.lstm(x)

    check_module(Last(), torch.randn(2, 5, 4), externs=1)


def test_complex_values_pass_between_calls() -> None:
    def forward(x: Tensor) -> Any:
        spectrum = torch.fft.rfft(x)
        return torch.fft.irfft(spectrum * 2, n=8), spectrum.abs(), x + 1

    check_function(forward, torch.randn(3, 8), externs=None)


def test_numbers_computed_at_run_time() -> None:
    def forward(x: Tensor, k: Tensor) -> Any:
        a, b = x.max().item(), k.sum().item()
        return x * a + (a * 2 + 1) / 3, x + b // 2, x.clamp(max=a), torch.full((3,), b + 1)

    check_function(forward, torch.randn(3, 5), torch.arange(3))


def test_positions_computed_at_run_time() -> None:
    def forward(x: Tensor, k: Tensor) -> Any:
        y = x.clone()
        y[k] = 1.0
        y[..., k] = y[0, :, 1:2].T
        y[1, ..., k.item()] = torch.arange(6.0)[None]
        y[k, None, 1:3] = y[0, 1:3].sum(0)
        row = y[1, k]
        row += 1
        return y, x[k], x[:, k - 4], x[1, k, None]

    x = torch.randn(4, 6, 5)
    for k in (2, -1):
        check_function(forward, x, torch.tensor(k))


def test_literals() -> None:
    def forward(x: Tensor) -> Tensor:
        return x * torch.tensor([[1.0, 2.5, float("inf")]]) + torch.tensor(2.0)

    graph = check_function(forward, torch.randn(2, 3))
    (literal,) = [s for s in graph.inputs if s.literal is not None]
    assert literal.literal == (1.0, 2.5, float("inf")) and literal.node.shape == (1, 3)


def test_as_strided() -> None:
    check_function(lambda x: torch.as_strided(x, (2, 3), (1, 2), 1), torch.randn(3, 4))


def test_autocast_and_no_grad() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                y = self.linear(x)
            return y.float() + x

    check_module(Mixed(), torch.randn(3, 4), slack=500)


def test_origins_name_module_and_line(tmp_path: Path) -> None:
    path = tmp_path / "problem.py"
    path.write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Model(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(3, 2)\n"
        "    def forward(self, x):\n"
        "        y = self.head(x)\n"
        "        return y.relu()\n"
        "def get_inputs():\n"
        "    return [torch.rand(4, 3)]\n"
    )
    graph = capture(load_problem(path, fake=True), Context())
    (out,) = graph.outputs
    contract = next(n for n in graph.nodes() if isinstance(n, g.Contract))
    assert graph.origins[out] == g.Origin("", 9, "return y.relu()")
    assert graph.origins[contract] == g.Origin("head", 8, "y = self.head(x)")
    assert set(graph.origins) <= set(graph.nodes())


REFUSED: dict[str, tuple[str, int]] = {
    "if x.sum() > 0:\n            return x\n        return -x": ("values of a tensor", 6),
    "return x[x > 0]": ("depends on the values", 6),
    "return x.nonzero()": ("depends on the values", 6),
    "return x * float(x.max())": ("float() or int()", 6),
    "return torch.from_numpy(x.numpy())": ("handed to NumPy", 6),
    "return torch.zeros(x.argmax())": ("values of a tensor", 6),
    "return x.new_zeros(int(x.sum()))": ("values of a tensor", 6),
    "return torch.linalg.lu_factor(x)[3]": ("cannot be captured", 6),
    "y = x + 1\n        return y @ torch.ones(7)": ("cannot be captured", 7),
}


@pytest.mark.parametrize("body", REFUSED)
def test_refusals_name_the_line(body: str, tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "refused.py"
    path.write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Model(nn.Module):\n"
        "    last = None\n"
        "    def forward(self, x):\n"
        f"        {body}\n"
        "def get_inputs():\n"
        "    return [torch.rand(4, 3)]\n"
    )
    problem = load_problem(path, fake=True)
    with pytest.raises(CaptureError) as refusal:
        capture(problem, Context())
    message, line = REFUSED[body]
    assert message in str(refusal.value)
    assert f"{path}:{line}: `" in str(refusal.value)
    assert refusal.value.exit_code == 3
    assert capfd.readouterr() == ("", "")


def test_nothing_is_allocated(tmp_path: Path) -> None:
    """A weight and an input of a terabyte each."""
    path = tmp_path / "large.py"
    path.write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Model(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(1 << 19, 1 << 19)\n"
        "    def forward(self, x):\n"
        "        return self.linear(x).sum(1)\n"
        "def get_inputs():\n"
        "    return [torch.rand(1 << 19, 1 << 19)]\n"
    )
    graph = capture(load_problem(path, fake=True), Context())
    assert graph.outputs[0].shape == (1 << 19,)


class Assigning(nn.Module):
    """Assigns a registered buffer and plain attributes."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.mean = self.mean * 0.9 + x.mean(0) * 0.1
        self.last = x
        self.steps += 1
        return x - self.mean


class Recurrent(nn.Module):
    """Carries its state in a plain tensor attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(5, 3)
        self.state = torch.randn(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.state = torch.tanh(self.cell(torch.cat((x, self.state.to(x.device)), 1)))
        return self.state * 2


def test_state_in_a_plain_attribute_is_a_mutation() -> None:
    module = Recurrent()
    graph = check_module(module, torch.randn(2, 2))
    assert [m.target for m in graph.mutations] == ["state"]
    assert {s.name: s.node.role for s in graph.inputs}["state"] == "constant"
    assert "state" in vars(module)


def test_checks_inside_calls_are_left_out() -> None:
    check_function(lambda x: torch.linalg.inv(x + 4 * torch.eye(3)), torch.rand(3, 3), externs=1)


def test_distributions_do_not_check_their_arguments() -> None:
    def forward(logits: Tensor, actions: Tensor) -> Tensor:
        chosen = torch.distributions.Categorical(logits=logits)
        return chosen.log_prob(actions) + chosen.entropy()

    before = torch.distributions.Distribution._validate_args
    check_function(forward, torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0]))
    assert torch.distributions.Distribution._validate_args is before


def test_parametrised_weights() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
    check_module(layer, torch.randn(3, 4))
    check_module(nn.utils.spectral_norm(nn.Linear(4, 5)), torch.randn(3, 4))


def test_unused_random_numbers_are_told() -> None:
    def forward(x: Tensor) -> Tensor:
        F.dropout(x)
        return x + 1

    context = Context()
    capture(problem_from_module(_module(forward), [torch.randn(3)]), context)
    assert any("random numbers that nothing uses" in w for w in context.warnings)


@dataclasses.dataclass
class Settings:
    gain: Tensor
    bias: Any
    steps: int


def test_dataclass_arguments() -> None:
    def forward(x: Tensor, settings: Settings) -> Tensor:
        assert settings.bias is None
        return x * settings.gain + settings.steps

    settings = Settings(torch.randn(1), None, 3)
    graph = check_module(_module(forward), torch.randn(3), settings)
    assert [s.path for s in graph.inputs] == [(0,), (1, "gain")]


def test_assigned_attributes() -> None:
    problem = problem_from_module(Assigning(), [torch.randn(2, 3)])
    context = Context()
    graph = capture(problem, context)
    assert [m.target for m in graph.mutations] == ["mean"]
    assert sorted(w.split(":")[0] for w in context.warnings) == [
        "forward assigns self.last",
        "forward assigns self.steps",
    ]
    assert vars(problem.module)["steps"] == 0 and not hasattr(problem.module, "last")


class WritingData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.data.mul_(0.9).add_(x.mean(0), alpha=0.1)
        self.scale.data = self.weight.data.norm(dim=1)
        return (x - self.mean) @ self.weight.data.t() / self.scale


def test_the_data_attribute_is_read_and_written() -> None:
    graph = check_module(WritingData(), torch.randn(5, 3))
    assert sorted(m.target for m in graph.mutations) == ["mean", "scale"]
    with pytest.raises(CaptureError, match="another shape"):
        captured(_module(lambda x: setattr(x, "data", x[:1])), torch.randn(2))


def test_capture_is_deterministic() -> None:
    torch.manual_seed(0)
    module = Dropping()
    first, second = (captured(module, torch.randn(3, 4, 5)) for _ in range(2))
    assert [n.key for n in first.nodes()] == [n.key for n in second.nodes()]
    assert first.inputs == second.inputs


def test_results_of_unknown_classes_are_refused_by_name() -> None:
    with pytest.raises(CaptureError, match=r"collections\.defaultdict"):
        captured(_module(lambda x: collections.defaultdict(int, a=x + 1)), torch.randn(2))


def test_unknown_argument_types_are_refused() -> None:
    with pytest.raises(CaptureError):
        captured(_module(lambda x, o: x), torch.randn(2), object())


def test_bound_values_have_the_recorded_strides() -> None:
    module = _module(lambda x: x.sum())
    x = torch.randn(6, 4)[::2].t()
    graph = captured(module, x)
    assert bound(graph, module, [x])["args_0"].stride() == (1, 8)
