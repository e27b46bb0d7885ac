"""Options: defaults, validation, and what the environment may set."""

import dataclasses
from typing import Any

import pytest

from fusewright.errors import UsageError
from fusewright.options import TARGETS, Options


def test_defaults() -> None:
    options = Options()
    assert (options.target, options.precision, options.numerics) == ("auto", "match", "finite")
    assert (options.binding, options.tune, options.debug) == ("raw", False, 0)


def test_is_frozen_and_hashable() -> None:
    options = Options(target="cpu")
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.target = "cuda"  # type: ignore[misc]
    assert {options: 1}[Options(target="cpu")] == 1


@pytest.mark.parametrize("target", TARGETS)
def test_known_targets(target: str) -> None:
    assert Options(target=target).target == target


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target", "rocm"),
        ("target", "cuda:sm_42"),
        ("target", ["cpu"]),
        ("precision", "fp8"),
        ("numerics", "fast"),
        ("binding", "pybind"),
        ("tune", "yes"),
        ("debug", -1),
        ("debug", True),
    ],
)
def test_bad_value_names_the_option(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"option {name}: .* is not "):
        Options(**{name: value})


def test_environment_lies_between_defaults_and_given_values() -> None:
    environ = {"FUSEWRIGHT_TARGET": "cuda:sm_80", "FUSEWRIGHT_DEBUG": "2"}
    assert Options.from_env(environ) == Options(target="cuda:sm_80", debug=2)
    assert Options.from_env(environ, target="cpu", tune=True) == Options("cpu", tune=True, debug=2)
    assert Options.from_env(environ, target=None).target == "cuda:sm_80"
    assert Options.from_env({"FUSEWRIGHT_TARGET": "", "FUSEWRIGHT_DEBUG": ""}) == Options()


def test_reads_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEWRIGHT_TARGET", "cpu")
    monkeypatch.delenv("FUSEWRIGHT_DEBUG", raising=False)
    assert Options.from_env() == Options(target="cpu")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("FUSEWRIGHT_TARGET", "tpu"), ("FUSEWRIGHT_DEBUG", "on"), ("FUSEWRIGHT_DEBUG", "-1")],
)
def test_bad_environment_names_the_variable(variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=variable):
        Options.from_env({variable: value})


def test_unknown_option() -> None:
    with pytest.raises(UsageError, match="no such option: speed"):
        Options.from_env({}, speed=11)
