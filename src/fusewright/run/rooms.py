"""Memory of several devices, shared out to work that runs at the same time. Knows no device."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
# What is left of a device when nobody works there: like devices differ a little in what is free.
_WHOLE = 0.9


class Closed(Exception):
    """No more work is let in."""


class Rooms:
    """Devices by their free bytes. Work waits until one has room; threads share an instance."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes, self._free = tuple(sizes), list(sizes)
        self._change = threading.Condition()
        self._closed = False

    @contextmanager
    def enter(self, need: int) -> Iterator[int]:
        """Holds `need` bytes of the device with most room, whose index is yielded.

        Who needs more than there is gets all that a device has. Raises Closed after `close`.
        """
        with self._change:
            self._change.wait_for(lambda: self._closed or self._fitting(need) is not None)
            if self._closed or (chosen := self._fitting(need)) is None:
                raise Closed
            held = min(need, self._free[chosen])
            self._free[chosen] -= held
        try:
            yield chosen
        finally:
            with self._change:
                self._free[chosen] += held
                self._change.notify_all()

    def close(self) -> None:
        """Turns away whoever waits and whoever comes."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def _fitting(self, need: int) -> int | None:
        asked = min(need, int(_WHOLE * max(self._sizes)))
        fitting = [k for k, free in enumerate(self._free) if free >= asked]
        return max(fitting, key=lambda k: self._free[k], default=None)


def side_by_side(
    work: Sequence[Callable[[], T]],
    at_once: int,
    each: Callable[[int, T], None],
    stop: Callable[[], None],
) -> None:
    """Calls all of `work`, `at_once` at a time and in order; `each(k, result)` here as they end.

    An exception, Ctrl-C included, drops what has not begun, calls `stop` and waits for the rest.
    """
    pool = ThreadPoolExecutor(at_once)
    futures: dict[Future[T], int] = {pool.submit(w): k for k, w in enumerate(work)}
    try:
        for future in as_completed(futures):
            each(futures[future], future.result())
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        stop()
        raise
    finally:
        pool.shutdown(wait=True)
