"""Hears what a user's file asks of the interpreter that no kernel needs: frames, objects, memory.

Python's audit events (PEP 578) tell of such requests and cannot be switched off again. A request is
the file's if the innermost frame beside those of a few standard modules runs its code.
"""

import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

# Asking for frames or for all objects: the way to the caller's data, or to learn who the caller is.
_SEARCHES = (
    "sys._getframe",
    "sys._current_frames",
    "sys._current_exceptions",
    "gc.get_objects",
    "gc.get_referrers",
    "gc.get_referents",
)
_OTHERS = {
    "sys.addaudithook": "listens to audit events",
    "sys.setprofile": "profiles the process",
    "sys.settrace": "traces the process",
    "os.kill": "sends signals",
    "os.killpg": "sends signals",
    "signal.pthread_kill": "sends signals",
}
_FOREIGN_MEMORY = ("ptrace", "process_vm_readv", "process_vm_writev", "mallopt")
_PROCESS_FILES = re.compile(r"/proc/(self|\d+)/(mem|maps|environ|cmdline|fd|task)\b")
_BETWEEN = re.compile(
    r"(^|/)(inspect|traceback|ctypes/__init__|pathlib(/\w+)?|contextlib|os|io)\.py$"
)


def listen(path: str) -> Callable[[], list[str]]:
    """From now on note the requests of the file `path`; returns what was noted so far, as a
    function. Every hook stays for the life of the process."""
    noted: dict[str, None] = {}
    listening = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        text = described(event, arguments) if listening else ""
        if text:
            # Looking for the frame is itself such an event.
            listening.clear()
            if is_of(path, sys._getframe(1)):
                noted[text] = None
            listening.append(True)

    sys.addaudithook(hook)
    return lambda: list(noted)


def described(event: str, arguments: tuple[Any, ...]) -> str:
    """What an event means, empty where any file may cause it."""
    if event in _SEARCHES:
        return f"looks into the program that calls it ({event})"
    if event == "open" and _PROCESS_FILES.match(str(arguments[0])):
        return f"reads {arguments[0]}"
    if event == "ctypes.dlsym" and arguments[1] in _FOREIGN_MEMORY:
        return f"calls {arguments[1]}"
    return _OTHERS.get(event, "")


def is_of(path: str, frame: FrameType | None) -> bool:
    """Whether the frame, or the first that is not of a module in between, runs the file's code."""
    while frame is not None and _BETWEEN.search(frame.f_code.co_filename):
        frame = frame.f_back
    return frame is not None and path in (frame.f_code.co_filename, frame.f_globals.get("__file__"))
