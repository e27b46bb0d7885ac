"""Lending between processes: what travels, what is kept, when files are used instead."""

import json

import pytest
import torch

from fusewright.run.verify import handover, tensors
from fusewright.run.verify.handover import Lender

HANDLE = (0, b"\x00handle", 4096, 64, b"counter", 8, b"event", True)


def lender() -> Lender:
    """One whose memory handles are made up, and which maps zeros."""

    def open_storage(
        handle: tuple[object, ...], offset: int, dtype: torch.dtype, shape: list[int]
    ) -> torch.Tensor:
        assert handle == HANDLE
        return torch.zeros(shape, dtype=dtype)

    return Lender(True, lambda _: HANDLE, open_storage)


def test_a_loan_travels_as_json_and_is_kept_until_it_is_given_back() -> None:
    owner = lender()
    tensor = torch.arange(6.0).view(2, 3).t()
    loan = json.loads(json.dumps(owner.lend(tensor)))
    spec = {"dtype": "float32", "shape": [3, 2], "lent": loan}
    assert torch.equal(owner.borrow(spec), tensor)
    assert owner.borrow(spec).is_contiguous()
    elsewhere = spec | {"lent": loan | {"owner": -1}}
    assert torch.equal(tensors.read(elsewhere, lender()), torch.zeros(3, 2))
    owner.take_back([loan["key"]])
    assert not owner.lent


def test_only_large_tensors_of_a_device_are_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "LEAST_BYTES", 8)
    large, small = torch.empty(9, device="meta"), torch.empty(1, device="meta")
    assert lender().takes(large) and not lender().takes(small)
    assert not lender().takes(torch.empty(9)) and not Lender().takes(large)


def test_lending_stays_off_where_memory_cannot_be_shared() -> None:
    assert handover.offer(lender(), "cpu") is None
    probe = torch.arange(1024.0)

    def refuse(*_: object) -> torch.Tensor:
        raise RuntimeError("no peer access\ndetails")

    spec = {"dtype": "float32", "shape": [1024], "lent": lender().lend(probe) | {"owner": -1}}
    for borrower, why in (
        (Lender(open=refuse), "no peer access"),
        (Lender(open=lambda *_: torch.zeros(1024)), "the borrowed tensor has other values"),
        (Lender(open=lambda *_: probe), ""),
    ):
        assert handover.accept(borrower, spec) == why
        assert borrower.active == (not why)
