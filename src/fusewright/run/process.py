"""Fresh Python processes under watch: a time limit, progress, a crash told from an error.

Knows nothing of what runs in them. The parent's environment is passed on as it is.
"""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STDERR_LINES = 25
_FIND_PACKAGE = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); "
# Status of a shell whose child was ended by signal N is 128 + N.
SHELL_SIGNAL_BASE = 128


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: status (None: stopped after its time limit), stdout, stderr's end."""

    status: int | None
    stdout: str
    stderr_tail: str
    timeout: float

    def describe(self) -> str:
        """What happened, in words that follow "the process ..."."""
        if self.status is None:
            return f"did not end within {self.timeout:g} s and was stopped"
        if self.status < 0:
            return f"crashed (signal {-self.status})"
        if self.status > SHELL_SIGNAL_BASE:
            return f"crashed (signal {self.status - SHELL_SIGNAL_BASE})"
        return f"ended with status {self.status}"


def python_command(
    module: str, arguments: Sequence[str], variables: Mapping[str, str] | None = None
) -> list[str]:
    """Command that runs `module.main(arguments)` in a fresh interpreter.

    The package is found where it was found here, installed or not. `variables` are set for the
    child alone, by `env`: this process's environment stays as it is.
    """
    # A user's file that runs there does not find the arguments lying about.
    code = (
        f"{_FIND_PACKAGE}from {module} import main; "
        "given = sys.argv[1:]; del sys.argv[1:]; sys.exit(main(given))"
    )
    setting = [f"{name}={value}" for name, value in (variables or {}).items()]
    prefix = ["env", *setting] if setting else []
    return [*prefix, sys.executable, "-c", code, *arguments]


def fusewright_command(arguments: Sequence[str]) -> list[str]:
    """The package's command line as `python -m fusewright` runs it, in a fresh process."""
    code = f"{_FIND_PACKAGE}import runpy; runpy.run_module('fusewright', run_name='__main__')"
    return [sys.executable, "-c", code, *arguments]


def watch(
    command: Sequence[str], timeout: float, each_line: Callable[[str], None] | None = None
) -> Ended:
    """Runs a command for at most `timeout` s; hands each line of its stdout to `each_line`.

    An exception here, Ctrl-C included, ends the child too.
    """
    lines: list[str] = []
    late = threading.Event()
    with tempfile.TemporaryFile(mode="w+", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
        )

        def stop() -> None:
            late.set()
            process.kill()

        watchdog = threading.Timer(timeout, stop)
        watchdog.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if each_line:
                    each_line(line)
            status = process.wait()
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
        errors.seek(0)
        tail = "\n".join(errors.read().splitlines()[-STDERR_LINES:])
    return Ended(None if late.is_set() else status, "".join(lines), tail, timeout)
