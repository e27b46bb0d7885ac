"""What the benchmark takes for the same result: containers of any kind, discrete outputs."""

from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace

import torch

from fusewright.run.bench import check


def output_type(name="Output"):
    """A dataclass as each of two imports of one file defines it."""

    @dataclass
    class Output:
        logits: torch.Tensor
        hidden: dict[str, torch.Tensor]

    Output.__name__ = name
    return Output


def test_dataclasses_of_two_imports_are_compared_field_by_field():
    logits, first = torch.randn(3, 4), torch.randn(5)
    ours, theirs = (output_type()(logits.clone(), {"first": first.clone()}) for _ in "ab")
    assert check.compare(ours, theirs).problem is None
    ours.hidden["first"][2] += 1
    found = check.compare(ours, theirs)
    assert found.problem is not None and found.problem.startswith("output[hidden][first]")
    assert set(found.wrong) == {"[hidden][first]"} and set(found.outputs) > set(found.wrong)


def test_other_containers_are_other_structures():
    x = torch.ones(2)
    for a, b in (
        ((x,), [x]),
        (output_type("A")(x, {}), output_type("B")(x, {})),
        ({"a": x}, {"b": x}),
        (x, (x,)),
    ):
        assert "structure" in str(check.compare(a, b).problem)
    assert check.compare(OrderedDict(a=x), {"a": x}).problem is None


def test_discrete_values_are_compared_by_the_share_that_differs():
    given = torch.arange(100)
    nearly, wrong = given.clone(), given.clone()
    nearly[3] = 0
    wrong[3:8] = 0
    found = check.compare((nearly, given), (given, given))
    assert found.problem is None and found.coarse and found.outputs == {"[0]": 0.01, "[1]": 0.0}
    found = check.compare((wrong, given), (given, given))
    assert found.wrong == {"[0]": 0.05} and "5 of 100 values differ" in str(found.problem)
    assert check.compare(given, given).coarse is False


def test_of_other_objects_the_kind_is_compared_and_a_long_value_is_cut_short():
    made = SimpleNamespace(x=torch.zeros(400)), SimpleNamespace(x=torch.ones(400))
    assert check.compare(*made).problem is None
    assert "instead of" in str(check.compare(made[0], 3).problem)
    assert len(str(check.compare("a" * 400, "b" * 400).problem)) < 200


def test_tensors_inside_dataclasses_are_mapped_and_fingerprinted():
    value = (output_type()(torch.ones(3), {"a": torch.ones(2)}), OrderedDict(b=torch.ones(1)))
    doubled = check.mapped(value, lambda t: t * 2)
    assert type(doubled[0]) is type(value[0]) and isinstance(doubled[1], OrderedDict)
    assert doubled[0].hidden["a"].tolist() == [2, 2] and value[0].logits.tolist() == [1, 1, 1]
    assert check.fingerprint(value) != check.fingerprint(doubled)
    assert check.overlaps(value, value[0]) and not check.overlaps(value, doubled)
