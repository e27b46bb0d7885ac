"""Loading problems: every error with its line, fake tensors, fallbacks, determinism, no traces."""

import inspect
import os
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from fusewright.errors import ProblemError
from fusewright.problem import (
    Problem,
    build_inputs,
    build_module,
    execute_file,
    load_problem,
    problem_from_module,
    split_init_args,
)

ROOT = Path(__file__).resolve().parents[2]
HEAD = "import torch\nfrom torch import nn\n"
MODEL = (
    "class Model(nn.Module):\n"
    "    def __init__(self, size=3):\n"
    "        super().__init__()\n"
    "        self.linear = nn.Linear(size, 2)\n"
    "    def forward(self, x):\n"
    "        return self.linear(x)\n"
)
INPUTS = "def get_inputs():\n    return [torch.randn(4, 3)]\n"


def write(folder: Path, text: str, name: str = "case.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def model(body: str) -> str:
    """A problem whose constructor runs `body` (one statement per line) after super().__init__()."""
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    return (
        f"{HEAD}class Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        f"{lines}    def forward(self, x):\n        return x\n{INPUTS}"
    )


def is_fake(problem: Problem) -> bool:
    tensors = [*problem.module.state_dict().values(), *problem.inputs]
    return all(isinstance(tensor, FakeTensor) for tensor in tensors)


# --- errors ------------------------------------------------------------------------------------

BAD_FILES = {
    "syntax error": (f"{HEAD}def f(:\n    pass\n", r"case\.py:3: not Python: "),
    "null byte": ("x = 1\0", r"case\.py(:\d+)?: not Python: .*null bytes"),
    "bad encoding": ("# coding: no-such-codec\n", r"case\.py: not Python: .*no-such-codec"),
    "raises at import": (f"{HEAD}x = 1 / 0\n", r"case\.py:3: the file raised ZeroDivisionError"),
    "exits at import": ("import sys\nsys.exit(7)\n", r"case\.py:2: the file raised SystemExit: 7"),
    "missing import": ("import no_such_package\n", r"case\.py:1: .*No module named"),
    "no Model": (HEAD + INPUTS, r"case\.py: no class `Model`; a problem file defines"),
    "Model is a function": (
        f"{HEAD}def Model():\n    return nn.Linear(3, 2)\n{INPUTS}",
        r"case\.py:3: `Model` is not a torch\.nn\.Module subclass",
    ),
    "Model is another class": (
        f"{HEAD}\nclass Model:\n    pass\n{INPUTS}",
        r"case\.py:4: `Model` is not a torch\.nn\.Module subclass",
    ),
    "Model is an instance": (
        f"{HEAD}Model = nn.Linear(3, 2)\n{INPUTS}",
        r"case\.py:3: `Model` is not a torch\.nn\.Module subclass",
    ),
    "constructor raises": (
        model("self.scale = 1\nraise ValueError('size is odd')"),
        r"case\.py:7: the constructor of Model raised ValueError: size is odd",
    ),
    "constructor raises in torch": (
        model("self.linear = nn.Linear(3, -2)"),
        r"case\.py:6: the constructor of Model raised RuntimeError: .*negative dimension",
    ),
    "no super().__init__()": (
        f"{HEAD}class Model(nn.Module):\n    def __init__(self):\n        self.l = nn.ReLU()\n"
        + INPUTS,
        r"case\.py:5: the constructor of Model raised AttributeError",
    ),
    "wrong arguments": (
        f"{HEAD}{MODEL}{INPUTS}def get_init_inputs():\n    return [1, 2, 3]\n",
        r"case\.py: the constructor of Model raised TypeError: .*positional argument",
    ),
    "no get_inputs": (HEAD + MODEL, r"case\.py: no function `get_inputs`; a problem file defines"),
    "get_inputs is a list": (
        f"{HEAD}{MODEL}get_inputs = [1]\n",
        r"case\.py:9: `get_inputs` is not a function",
    ),
    "get_inputs raises": (
        f"{HEAD}{MODEL}def get_inputs():\n    return [torch.randn(2) @ torch.randn(3)]\n",
        r"case\.py:10: get_inputs raised RuntimeError",
    ),
    "get_inputs returns a tensor": (
        f"{HEAD}{MODEL}def get_inputs():\n    return torch.randn(4, 3)\n",
        r"case\.py:9: get_inputs returned a Tensor, not a list",
    ),
    "get_inputs returns None": (
        f"{HEAD}{MODEL}def get_inputs():\n    torch.randn(4, 3)\n",
        r"case\.py:9: get_inputs returned a NoneType, not a list",
    ),
    "get_init_inputs raises": (
        f"{HEAD}{MODEL}{INPUTS}def get_init_inputs():\n    return {{}}['size']\n",
        r"case\.py:12: get_init_inputs raised KeyError: 'size'",
    ),
    "get_init_inputs returns a dict": (
        f"{HEAD}{MODEL}{INPUTS}def get_init_inputs():\n    return {{'size': 3}}\n",
        r"case\.py:11: get_init_inputs returned a dict, not a list",
    ),
}


@pytest.mark.parametrize("fake", [True, False], ids=["fake", "real"])
@pytest.mark.parametrize("case", BAD_FILES)
def test_error_names_file_line_and_cause(tmp_path: Path, case: str, fake: bool) -> None:
    text, message = BAD_FILES[case]
    with pytest.raises(ProblemError, match=message):
        load_problem(write(tmp_path, text), fake=fake)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match=r"none\.py: cannot be read: No such file"):
        load_problem(tmp_path / "none.py", fake=True)
    with pytest.raises(ProblemError, match="cannot be read: Is a directory"):
        load_problem(tmp_path, fake=True)


def test_a_file_that_raises_leaves_no_module(tmp_path: Path) -> None:
    before = set(sys.modules)
    with pytest.raises(ProblemError):
        execute_file(write(tmp_path, "1 / 0\n", "leaves_nothing.py"))
    assert not [name for name in set(sys.modules) - before if "leaves_nothing" in name]


# --- the file as a module ----------------------------------------------------------------------


def test_module_can_be_pickled_inspected_and_found(tmp_path: Path) -> None:
    text = (
        f"from __future__ import annotations\nfrom dataclasses import dataclass\n{HEAD}"
        f"@dataclass\nclass Config:\n    size: int = 3\n{MODEL}{INPUTS}"
    )
    namespace = load_problem(write(tmp_path, text, "odd name-1.py"), fake=True).namespace
    config = namespace["Config"]
    assert pickle.loads(pickle.dumps(config(5))) == config(5)
    assert inspect.getsource(namespace["Model"]) == MODEL
    assert not list(tmp_path.rglob("*.pyc"))


def test_the_same_file_twice_gives_two_modules_and_the_new_text(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + MODEL + INPUTS)
    first = load_problem(path, fake=True)
    write(tmp_path, HEAD + "\n" + MODEL.replace("2)", "5)") + INPUTS)
    second = load_problem(path, fake=True)
    assert first.namespace["Model"] is not second.namespace["Model"]
    assert "nn.Linear(size, 5)" in inspect.getsource(second.namespace["Model"])
    assert second.module.linear.out_features == 5
    assert second.source == path.read_text(encoding="utf-8") != first.source


def test_relative_path_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, HEAD + MODEL + INPUTS)
    monkeypatch.chdir(tmp_path)
    problem = load_problem("case.py", fake=True)
    assert problem.path == tmp_path / "case.py"


# --- constructor arguments ---------------------------------------------------------------------


class _Plain(nn.Module):
    def __init__(self, first: Any, second: Any = None, scale: float = 1.0) -> None:
        super().__init__()


class _Open(nn.Module):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("model_class", "returned", "expected"),
    [
        (_Plain, [], ([], {})),
        (_Plain, [1, 2], ([1, 2], {})),
        (_Plain, [[1], {"scale": 2.0}], ([1], {"scale": 2.0})),
        (_Plain, [[1, 2], {}], ([1, 2], {})),
        (_Plain, [(1,), {"second": 3}], ([1], {"second": 3})),
        (_Plain, [[1], {"width": 3}], ([[1], {"width": 3}], {})),
        (_Plain, [[1], {4: 3}], ([[1], {4: 3}], {})),
        (_Plain, [{"a": 1}, [2]], ([{"a": 1}, [2]], {})),
        (_Plain, [[1, 2]], ([[1, 2]], {})),
        (_Open, [[1], {"width": 3}], ([1], {"width": 3})),
        (_Open, [[1], {4: 3}], ([[1], {4: 3}], {})),
    ],
)
def test_init_args(
    model_class: type[nn.Module], returned: list[Any], expected: tuple[list[Any], dict[str, Any]]
) -> None:
    assert split_init_args(model_class, returned) == expected


def test_keyword_arguments_reach_the_constructor(tmp_path: Path) -> None:
    text = f"{HEAD}{MODEL}{INPUTS}def get_init_inputs():\n    return [[], {{'size': 7}}]\n"
    problem = load_problem(write(tmp_path, text), fake=True)
    assert (problem.init_args, problem.init_kwargs) == ([], {"size": 7})
    assert problem.module.linear.in_features == 7


def test_a_tuple_of_inputs_is_taken_as_a_list(tmp_path: Path) -> None:
    text = f"{HEAD}{MODEL}def get_inputs():\n    return torch.randn(4, 3), 2, None\n"
    inputs = load_problem(write(tmp_path, text), fake=False).inputs
    assert isinstance(inputs, list) and inputs[1:] == [2, None]


# --- fake tensors ------------------------------------------------------------------------------

WORKS_UNDER_FAKE = {
    "layers": "self.a = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Embedding(9, 2))",
    "attention": "self.a = nn.TransformerEncoderLayer(8, 2)",
    "recurrent": "self.a = nn.LSTM(3, 4, num_layers=2)",
    "random": "self.a = nn.Parameter(torch.rand(3) + torch.randn(3) + torch.randint(0, 9, (3,)))",
    "arange": "self.register_buffer('a', torch.arange(6.0).view(2, 3).sin())",
    "values": "self.register_buffer('a', torch.tensor([1.0, 2.0]).to(torch.float64))",
    "triangle": "self.register_buffer('a', torch.tril(torch.ones(5, 5)).bool())",
    "slices": "a = torch.zeros(4, 6)\na[:, 0::2] = torch.arange(3.0)\nself.register_buffer('a', a)",
    "numpy in": "import numpy\nself.register_buffer('a', torch.from_numpy(numpy.ones(3)))",
    "constant item": "self.a = nn.Linear(torch.tensor(3).item() + 1, 2)",
    "data": "self.a = nn.Linear(3, 2)\nself.a.weight.data = torch.randn(2, 3)",
    "half": "self.a = nn.Linear(3, 2).half()",
    "to": "self.a = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(torch.bfloat16).double()",
    "weight norm": "self.a = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))",
    "orthogonal": "self.a = nn.Linear(3, 2)\nnn.init.orthogonal_(self.a.weight)",
    "deepcopy": "import copy\nself.a = copy.deepcopy(nn.Linear(3, 2))",
    "state dict": "self.a = nn.Linear(3, 2)\nself.a.load_state_dict(nn.Linear(3, 2).state_dict())",
}
NEEDS_REAL = {
    "numpy out": "self.a = nn.Linear(3, int(torch.ones(4).numpy().sum()))",
    "item": "self.a = nn.Linear(3, int(torch.linspace(0, 4, 2)[1].item()))",
    "branch": "if torch.rand(1) < 2:\n    self.a = nn.Linear(3, 4)",
    "nonzero": "self.register_buffer('a', torch.ones(4).nonzero())",
}


@pytest.mark.parametrize("case", WORKS_UNDER_FAKE)
def test_built_under_fake_tensors_without_fallback(tmp_path: Path, case: str) -> None:
    path = write(tmp_path, model(WORKS_UNDER_FAKE[case]))
    fake, real = load_problem(path, fake=True), load_problem(path, fake=False)
    assert fake.warnings == () and is_fake(fake) and not is_fake(real)
    assert {k: (v.shape, v.dtype) for k, v in fake.module.state_dict().items()} == {
        k: (v.shape, v.dtype) for k, v in real.module.state_dict().items()
    }
    parameters = dict(fake.module.named_parameters())
    assert list(parameters) == [name for name, _ in real.module.named_parameters()]
    assert all(isinstance(parameter, nn.Parameter) for parameter in parameters.values())


@pytest.mark.parametrize("case", NEEDS_REAL)
def test_fallback_to_real_tensors_warns_and_keeps_no_data(tmp_path: Path, case: str) -> None:
    problem = load_problem(write(tmp_path, model(NEEDS_REAL[case])), fake=True)
    (warning,) = problem.warnings
    assert "the model had to be built with real tensors" in warning and "under fake" in warning
    assert is_fake(problem)
    assert next(iter(problem.module.state_dict().values())).shape[0] == 4


def test_inputs_fall_back_alone(tmp_path: Path) -> None:
    body = "    x = torch.randn(4, 3)\n    return [x / x.max().item()]\n"
    text = f"{HEAD}{MODEL}def get_inputs():\n{body}"
    problem = load_problem(write(tmp_path, text), fake=True)
    (warning,) = problem.warnings
    assert "the inputs had to be built with real tensors" in warning
    assert is_fake(problem) and problem.inputs[0].shape == (4, 3)


def test_module_level_tensors_become_fake_in_the_model(tmp_path: Path) -> None:
    text = (
        f"{HEAD}TABLE = torch.arange(3.0)\n"
        f"{MODEL.replace('self.linear', 'self.register_buffer(chr(116), TABLE); self.linear')}"
        "def get_inputs():\n    return [TABLE, TABLE.clone()]\n"
    )
    problem = load_problem(write(tmp_path, text), fake=True)
    assert is_fake(problem) and problem.warnings == ()
    assert not isinstance(problem.namespace["TABLE"], FakeTensor)


def test_torch_export_accepts_a_fake_problem(tmp_path: Path) -> None:
    problem = load_problem(write(tmp_path, HEAD + MODEL + INPUTS), fake=True)
    assert problem.fake_mode is not None
    with problem.fake_mode:
        exported = torch.export.export(problem.module, tuple(problem.inputs), strict=False)
    (output,) = exported.graph.output_node().args[0]  # type: ignore[misc]
    assert tuple(output.meta["val"].shape) == (4, 2)  # type: ignore[union-attr]


def test_largest_example_needs_no_memory() -> None:
    """4.3 GB of weights, and 6.4 GB of input: the peak, torch included, stays below 2 GB."""
    program = (
        "import resource, sys\n"
        "from fusewright.problem import load_problem\n"
        "for name in ('matmul_sigmoid_sum', 'sigmoid'):\n"
        "    problem = load_problem(f'examples/{name}.py', fake=True)\n"
        "    assert problem.warnings == (), problem.warnings\n"
        "    assert problem.inputs[0].numel() >= 2**22\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "FUSEWRIGHT_EXAMPLE_SCALE"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    finished = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) * 1024 < 2e9


# --- determinism and global state --------------------------------------------------------------

RANDOM = (
    "import random\nimport numpy\n"
    f"{HEAD}NOISE = torch.randn(1)\n{MODEL}"
    "def get_inputs():\n"
    "    return [torch.randn(4, 3), random.random(), numpy.random.rand()]\n"
)


def test_loading_is_deterministic_and_restores_the_generators(tmp_path: Path) -> None:
    path = write(tmp_path, RANDOM)

    def draws() -> list[float]:
        return [torch.rand(()).item(), random.random(), np.random.rand()]

    def seed_all() -> None:
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)

    seed_all()
    expected = draws()
    for fake in (False, True):
        seed_all()
        load_problem(path, fake=fake)
        assert draws() == expected
    first, second = load_problem(path, fake=False), load_problem(path, fake=False)
    assert torch.equal(first.module.linear.weight, second.module.linear.weight)
    assert torch.equal(first.inputs[0], second.inputs[0]) and first.inputs[1:] == second.inputs[1:]
    fake = load_problem(path, fake=True)
    assert fake.inputs[1:] == first.inputs[1:]


def test_build_again_with_real_tensors(tmp_path: Path) -> None:
    path = write(tmp_path, RANDOM)
    fake, real = load_problem(path, fake=True), load_problem(path, fake=False)
    assert torch.equal(build_module(fake).linear.weight, real.module.linear.weight)
    assert torch.equal(build_inputs(fake)[0], real.inputs[0])
    assert not torch.equal(build_inputs(fake, seed=1)[0], real.inputs[0])
    assert not torch.equal(build_module(fake, seed=1).linear.weight, real.module.linear.weight)


@pytest.mark.parametrize("fake", [True, False])
def test_default_dtype_set_by_the_file_is_its_own(tmp_path: Path, fake: bool) -> None:
    text = f"{HEAD}torch.set_default_dtype(torch.float64)\n{MODEL}{INPUTS}"
    problem = load_problem(write(tmp_path, text), fake=fake)
    assert torch.get_default_dtype() == torch.float32
    assert problem.module.linear.weight.dtype == problem.inputs[0].dtype == torch.float64
    assert build_inputs(problem)[0].dtype == torch.float64
    with problem.as_the_file_left_torch():
        assert torch.get_default_dtype() == torch.float64
    assert torch.get_default_dtype() == torch.float32


def test_default_device_set_by_the_file_is_its_own(tmp_path: Path) -> None:
    text = f"{HEAD}torch.set_default_device('meta')\n{MODEL}{INPUTS}"
    problem = load_problem(write(tmp_path, text), fake=False)
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.ones(1).device.type == "cpu"
    assert problem.module.linear.weight.device.type == "meta"
    with problem.as_the_file_left_torch():
        assert torch.ones(1).device.type == "meta"
    assert torch.ones(1).device.type == "cpu"


# --- live modules ------------------------------------------------------------------------------


class Live(nn.Module):
    """Ties, a view of a parameter's storage, plain tensors, and something that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)
        self.tied = self.linear.weight
        self.register_buffer("row", self.linear.weight.detach()[1])
        self.plain = [torch.ones(5), {"zero": torch.zeros(5, 5).t()}]
        self.names = {"a": 1}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def test_live_module_gets_a_fake_image_and_stays_untouched() -> None:
    live, x = Live().eval(), torch.randn(5, 4).t().requires_grad_()
    before = {name: (id(tensor), tensor.clone()) for name, tensor in live.state_dict().items()}
    problem = problem_from_module(live, (x, 3, None))
    image = problem.module
    assert problem.original is live and type(image) is Live and image is not live
    assert is_fake_tree(image) and image.tied is image.linear.weight and not image.training
    row, weight = image.row, image.linear.weight
    assert row.untyped_storage()._cdata == weight.untyped_storage()._cdata
    assert image.plain[1]["zero"].stride() == (1, 5)
    assert image.names == {"a": 1} and image.names is not live.names
    (fake_x, *rest) = problem.inputs
    assert isinstance(fake_x, FakeTensor) and fake_x.stride() == (1, 4) and fake_x.requires_grad
    assert rest == [3, None]
    for name, tensor in live.state_dict().items():
        assert torch.equal(tensor, before[name][1]) and not isinstance(tensor, FakeTensor)


def is_fake_tree(module: nn.Module) -> bool:
    plain = [module.plain[0], module.plain[1]["zero"]]
    tensors = [*module.parameters(), *module.buffers(), *plain]
    return all(isinstance(tensor, FakeTensor) for tensor in tensors)


def test_live_module_keeps_its_source_where_there_is_one() -> None:
    problem = problem_from_module(Live(), [torch.ones(2, 5)])
    assert problem.path == Path(__file__).absolute()
    assert problem.source is not None and "class Live(nn.Module)" in problem.source
    assert problem.namespace["Live"] is Live
    namespace: dict[str, Any] = {}
    exec("from torch import nn\nclass Made(nn.ReLU): ...", namespace)
    made = problem_from_module(namespace["Made"](), [torch.ones(2)])
    assert made.path is None and made.source is None


def test_live_module_errors() -> None:
    with pytest.raises(ProblemError, match=r"the model is a int, not a torch\.nn\.Module"):
        problem_from_module(3, [])  # type: ignore[arg-type]
    with pytest.raises(ProblemError, match="example_inputs is a Tensor; pass the positional"):
        problem_from_module(Live(), torch.ones(2, 5))  # type: ignore[arg-type]
    stubborn = Live()
    stubborn.lock = threading.Lock()
    with pytest.raises(ProblemError, match=r"Live cannot be deep-copied.*lock"):
        problem_from_module(stubborn, [torch.ones(2, 5)])
    with pytest.raises(ProblemError, match=r"^0\.weight of Sequential has no shape"):
        problem_from_module(nn.Sequential(nn.LazyLinear(4)), [torch.ones(2, 5)])
    with pytest.raises(ProblemError, match="it has no file to build from"):
        build_inputs(problem_from_module(Live(), [torch.ones(2, 5)]))
