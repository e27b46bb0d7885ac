"""Context: the stage log times stages, prints lazily, and keeps warnings once."""

import pytest

from fusewright.context import Context, StageEntry
from fusewright.options import Options


def test_timed_logs_and_returns() -> None:
    context = Context(Options(target="cpu"))
    assert context.timed("double", lambda x: 2 * x, 21) == 42
    (entry,) = context.log.entries
    assert (entry.name, entry.result, entry.text()) == ("double", 42, "42")
    assert 0 <= entry.seconds == context.log.seconds


def test_a_stage_that_raises_leaves_no_entry() -> None:
    context = Context()
    with pytest.raises(ZeroDivisionError):
        context.timed("divide", lambda x: 1 / x, 0)
    assert context.log.entries == []


def test_result_is_printed_only_on_demand() -> None:
    printed: list[int] = []

    def show(value: int) -> str:
        printed.append(value)
        return f"<{value}>"

    entry = StageEntry("capture", 0.0, 7, show)
    assert printed == []
    assert entry.text() == "<7>"


def test_entry_by_name_is_the_last_one() -> None:
    context = Context()
    context.timed("rewrite", lambda: "first")
    context.timed("rewrite", lambda: "second")
    assert context.log.entry("rewrite").result == "second"
    with pytest.raises(KeyError, match="no stage 'emit'; ran: rewrite"):
        context.log.entry("emit")


def test_warnings_keep_order_and_are_kept_once() -> None:
    context = Context()
    for message in ("b", "a", "b"):
        context.warn(message)
    assert context.warnings == ("b", "a")


def test_contexts_share_nothing() -> None:
    first, second = Context(), Context()
    first.warn("x")
    first.timed("s", int)
    assert second.warnings == () and second.log.entries == []
