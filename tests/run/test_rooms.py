"""Work is let in where its bytes fit, and turned away after closing."""

import threading
import time

import pytest

from fusewright.run.rooms import Closed, Rooms, side_by_side


def test_never_more_is_held_than_there_is():
    rooms, sizes = Rooms([10, 20]), (10, 20)
    held, most, lock = [0, 0], [0, 0], threading.Lock()

    def work(need: int) -> None:
        with rooms.enter(need) as place:
            with lock:
                held[place] += need
                most[place] = max(most[place], held[place])
            time.sleep(0.005)
            with lock:
                held[place] -= need

    side_by_side([lambda n=n: work(n) for n in (9, 4, 18, 5, 7, 2, 11, 3) * 3], 8, _ignore, _never)
    assert all(0 < m <= size for m, size in zip(most, sizes, strict=True))


def test_who_needs_too_much_gets_a_whole_device():
    rooms = Rooms([100, 97])
    with rooms.enter(10**6) as first, rooms.enter(10**6) as second:
        assert {first, second} == {0, 1}


def test_closing_turns_away_who_waits():
    rooms, turned_away = Rooms([10]), threading.Event()

    def wait() -> None:
        with pytest.raises(Closed), rooms.enter(10):
            pass
        turned_away.set()

    with rooms.enter(10):
        thread = threading.Thread(target=wait)
        thread.start()
        rooms.close()
        assert turned_away.wait(10)
        thread.join()


def test_a_failure_drops_what_has_not_begun():
    begun: list[int] = []
    stopped: list[bool] = []

    def work(k: int) -> None:
        begun.append(k)
        if k == 1:
            raise ZeroDivisionError
        time.sleep(0.01)

    with pytest.raises(ZeroDivisionError):
        side_by_side(
            [lambda k=k: work(k) for k in range(50)], 1, _ignore, lambda: stopped.append(True)
        )
    assert stopped == [True] and len(begun) < 50


def _ignore(_: int, __: None) -> None:
    return None


def _never() -> None:
    raise AssertionError("nothing failed")
