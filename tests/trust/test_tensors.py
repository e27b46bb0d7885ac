"""Values that travel through files come back as they were."""

from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from fusewright.errors import ProblemError
from fusewright.run.verify import specs, tensors

CPU = torch.device("cpu")


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return (
        first.dtype == second.dtype
        and first.shape == second.shape
        and first.stride() == second.stride()
        and torch.equal(first.contiguous().view(torch.uint8), second.contiguous().view(torch.uint8))
    )


LAYOUTS = {
    "contiguous": torch.randn(3, 4, 5),
    "transposed": torch.randn(4, 3).t(),
    "sliced": torch.randn(8, 9)[::2, 1::3],
    "expanded": torch.randn(5, 1).expand(5, 6),
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "nan and inf": torch.tensor([float("nan"), float("inf"), -0.0]),
    "bfloat16": torch.randn(7).bfloat16(),
    "booleans": torch.rand(3, 3) > 0.5,
    "complex": torch.randn(4, dtype=torch.complex64),
    "empty": torch.empty(0, 3),
}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_tensor_comes_back_with_its_strides(name: str, tmp_path: Path) -> None:
    given = LAYOUTS[name]
    assert same(tensors.load(tensors.dump(given, str(tmp_path / "x")), CPU), given)


def test_a_scalar_comes_back(tmp_path: Path) -> None:
    given = torch.tensor(2.5, dtype=torch.float64)
    assert torch.equal(tensors.load(tensors.dump(given, str(tmp_path / "x")), CPU), given)


def test_nested_values_come_back(tmp_path: Path) -> None:
    given: list[Any] = [1, 2.5, "a", None, True, torch.float16, (torch.ones(2), {"k": [3]})]
    back = tensors.load(tensors.dump(given, str(tmp_path / "x")), CPU)
    assert back[:6] == given[:6]
    assert torch.equal(back[6][0], torch.ones(2)) and back[6][1] == {"k": [3]}


def test_overlapping_strides_become_contiguous() -> None:
    windows = torch.arange(10.0).as_strided((4, 3), (2, 1))
    copied = tensors.relaid(windows, windows.stride())
    assert torch.equal(copied, windows) and copied.is_contiguous()


def test_a_borrowed_tensor_does_not_write_to_its_file(tmp_path: Path) -> None:
    spec = tensors.dump(torch.zeros(4), str(tmp_path / "x"))
    tensors.load(spec, CPU, copy=False).add_(1)
    assert torch.equal(tensors.load(spec, CPU), torch.zeros(4))


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    spec = tensors.dump(torch.zeros(4), str(tmp_path / "x"))
    Path(spec["file"]).write_bytes(b"123")
    with pytest.raises(ProblemError, match="3 bytes where the spec says 16"):
        tensors.load(spec, CPU)


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(a=torch.ones(2), b=[torch.zeros(3), None]),
        {"a": (torch.ones(2), 1.5)},
        Pair(torch.ones(2), torch.zeros(3)),
    ],
)
def test_containers_keep_their_types(value: Any, tmp_path: Path) -> None:
    spec = tensors.dump(value, str(tmp_path / "x"))
    loaded = tensors.load(spec, CPU, names={"Pair": Pair})
    for other in (loaded, tensors.map_leaves(value, torch.clone)):
        assert type(other) is type(value)
        assert specs.structure_differences(spec, tensors.dump(other, None)) == []


class Outcome(OrderedDict):
    """As transformers' ModelOutput: keys are attributes, the constructor wants arguments."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__(logits=logits)


def test_a_mapping_of_the_users_own_keeps_its_type() -> None:
    value = Outcome(torch.ones(2))
    other = tensors.map_leaves(value, torch.zeros_like)
    assert type(other) is Outcome and torch.equal(other["logits"], torch.zeros(2))
    assert specs.structure_differences(tensors.dump(value, None), tensors.dump(other, None)) == []


@pytest.mark.parametrize(
    ("mine", "theirs", "message"),
    [
        ([torch.ones(2)], (torch.ones(2),), "output is a tuple, not a list"),
        (Pair(torch.ones(2), torch.ones(2)), (torch.ones(2), torch.ones(2)), "not a Pair"),
        ({"a": torch.ones(2)}, {"b": torch.ones(2)}, "has the items"),
        (torch.ones(2), torch.ones(3), r"shape \[3\], not \[2\]"),
        (torch.ones(2), torch.ones(2).double(), "dtype float64, not float32"),
        (torch.ones(2), 1.0, "output is 1.0, not a float32 tensor"),
        ([1, 2], [1, 3], "is 3, not 2"),
        (torch.ones(2), torch.nn.Parameter(torch.ones(2)), "type Parameter, not Tensor"),
    ],
)
def test_differences_of_structure_are_named(mine: Any, theirs: Any, message: str) -> None:
    import re

    found = specs.structure_differences(tensors.dump(mine, None), tensors.dump(theirs, None))
    assert len(found) == 1 and re.search(message, found[0]), found
    same_kind = specs.structure_differences(tensors.dump(mine, None), tensors.dump(mine, None))
    assert same_kind == []
