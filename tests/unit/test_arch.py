"""The table of targets: which of them a GPU gets, and that options know them all."""

import pytest

from fusewright.options import TARGETS
from fusewright.target.arch import ARCHS


@pytest.mark.parametrize(
    ("capability", "name"),
    [((9, 0), "cuda:sm_90a"), ((8, 0), "cuda:sm_80"), ((8, 9), "cuda:sm_80"), ((7, 5), "cuda")],
)
def test_the_best_target_of_a_device_comes_first(capability, name):
    assert next(a.name for a in ARCHS if a.runs_on(capability)) == name


def test_newer_devices_run_the_general_target_and_too_old_ones_none():
    assert [a.name for a in ARCHS if a.runs_on((12, 0))] == ["cuda"]
    assert not [a.name for a in ARCHS if a.runs_on((7, 0))]


def test_every_target_can_be_asked_for():
    assert TARGETS == ("auto", *(a.name for a in ARCHS))
