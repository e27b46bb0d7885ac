"""Worker processes: started, watched, killed, and their ends explained.

One *nursery* process imports torch once; every worker is a fork of it, taken before any user file
or device was touched. So workers start in milliseconds, yet share no memory with each other or with
the verifier. This module runs in the verifier's process and does not import torch.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fusewright.errors import FusewrightError
from fusewright.run.verify import wire

_SOURCE_ROOT = Path(__file__).resolve().parents[3]
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from importlib import import_module; " + (
    "import_module(sys.argv[2]).main(sys.argv[3], int(sys.argv[4]))"
)
_VERIFIER = "fusewright.run.verify.worker"
_NURSERY_START_S = 120.0


class WorkerFailure(FusewrightError):
    """A worker did not answer a request; subclasses say in which way, `role` which worker."""

    role = ""


class WorkerRaised(WorkerFailure):
    """The request raised a Python exception in the worker: `kind` its type, `text` its message."""

    def __init__(self, kind: str, text: str, trace: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text, self.trace = kind, text, trace

    @property
    def out_of_memory(self) -> bool:
        """Whether memory was short: that says nothing of the file under test."""
        # What CUDA itself reports, outside of torch's allocator, has no class of its own.
        kinds = ("OutOfMemoryError", "MemoryError")
        return self.kind in kinds or "CUDA error: out of memory" in self.text


    @property
    def device_fault(self) -> bool:
        """Whether a kernel faulted: CUDA then fails every later request of the process, too."""
        return "CUDA error" in self.text and not self.out_of_memory


class WorkerCrashed(WorkerFailure):
    """The process ended without an answer: a signal, `os._exit`, or out of memory."""


class WorkerHung(WorkerFailure):
    """No answer within the time limit; the process group was killed."""


class Worker:
    """One worker process. `call` runs a command there; all failures are WorkerFailure."""

    def __init__(
        self, role: str, sock: socket.socket, pid: int, log: Path, nursery: "Nursery | None"
    ) -> None:
        self.role, self._sock, self.pid, self._log, self._nursery = role, sock, pid, log, nursery

    def call(self, command: str, timeout_s: float, **arguments: Any) -> Any:
        """The command's result (plain JSON data).

        Raises WorkerRaised, WorkerCrashed or WorkerHung; after the last two it is of no more use.
        """
        try:
            return self._call(command, timeout_s, arguments)
        except WorkerFailure as failure:
            failure.role = self.role
            raise

    def _call(self, command: str, timeout_s: float, arguments: dict[str, Any]) -> Any:
        try:
            ticket = secrets.token_hex(8)
            message = {"command": command, "arguments": arguments, "ticket": ticket}
            wire.send(self._sock, message)
            reply = wire.receive(self._sock, time.monotonic() + timeout_s)
        except wire.WireTimeout:
            self.close()
            raise WorkerHung(f"{command}: no answer within {timeout_s:g} s") from None
        except (wire.WireClosed, ValueError):
            raise WorkerCrashed(f"{command}: {self._describe_end()}") from None
        if not isinstance(reply, dict) or reply.get("ticket") != ticket:
            self.close()
            raise WorkerCrashed(f"{command}: something else than the worker wrote to its channel")
        if "error" in reply:
            raise WorkerRaised(**reply["error"])
        return reply["result"]

    def _describe_end(self) -> str:
        status = self._nursery.exit_status(self.pid) if self._nursery else None
        tail = self.log_tail()
        return describe_status(status) + (f"; its last words: {tail}" if tail else "")

    def log_tail(self, lines: int = 6) -> str:
        """The last lines of what the worker printed, on one line."""
        if not self._log.exists():
            return ""
        text = self._log.read_text(errors="replace").strip().splitlines()
        return " | ".join(line.strip() for line in text[-lines:])[-600:]

    def hang_up(self) -> None:
        """Close the channel, upon which the worker ends by itself."""
        self._sock.close()

    def close(self) -> None:
        """Kill the worker and everything that it started. Idempotent."""
        self._sock.close()
        # Its own session: a group holds the worker, its compilers and what it left behind.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def describe_status(status: int | None) -> str:
    """A sentence for a wait status of os.waitpid; None is an unknown one."""
    if status is None:
        return "the process ended"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"the process was killed by {signal.Signals(number).name}"
    return f"the process exited with status {os.WEXITSTATUS(status)}"


def boot_command(kind: str, descriptor: int, module: str = _VERIFIER) -> list[str]:
    """The command line of a nursery (`kind` "nursery") or of one direct worker ("worker"), which
    `module.main` serves."""
    return [sys.executable, "-c", _BOOT, str(_SOURCE_ROOT), module, kind, str(descriptor)]


def environment_prefix(variables: Mapping[str, object]) -> list[str]:
    """`env ...`: the variables are set for a child alone; ninja is found beside the interpreter."""
    path = os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
    # Asking whether there is a GPU must not start CUDA in a process that will fork.
    known = {"PATH": path, "PYTORCH_NVML_BASED_CUDA_CHECK": "1", **variables}
    return ["env", *(f"{name}={value}" for name, value in known.items())]


def verifier_variables(folder: Path) -> dict[str, object]:
    """Extensions are built in a folder of their own, so that no stale binary is taken, and waiting
    threads sleep: spinning ones would starve each other on a busy machine. Small blocks come from
    glibc's heap: those that a thread keeps for itself are not filled (guard.poison_host_memory)."""
    return {
        "TORCH_EXTENSIONS_DIR": folder / "extensions",
        "OMP_WAIT_POLICY": "PASSIVE",
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
    }


class Nursery:
    """The process that workers are forked from. A context manager; leaving it ends them all.

    Threads may share one.
    """

    def __init__(
        self,
        folder: Path,
        variables: Mapping[str, object] | None = None,
        module: str = _VERIFIER,
    ) -> None:
        """`folder` takes the logs and must exist. `variables` are the processes' environment, by
        default the verifier's; `module.main` says which commands they obey (see `worker.serve`).
        """
        self.folder, self._count = folder, 0
        self._turn = threading.Lock()
        self._sock, theirs = socket.socketpair()
        chosen = verifier_variables(folder) if variables is None else variables
        command = environment_prefix(chosen) + boot_command("nursery", theirs.fileno(), module)
        log = (folder / "nursery.log").open("wb")
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        log.close()
        theirs.close()

    def spawn(self, role: str) -> Worker:
        """A fresh worker. Raises WorkerCrashed when the nursery itself does not live."""
        with self._turn:
            self._count += 1
            log = self.folder / f"{self._count}-{role}.log"
        ours, theirs = socket.socketpair()
        reply = self._ask({"log": str(log)}, theirs)
        theirs.close()
        return Worker(role, ours, reply["pid"], log, self)

    def _ask(self, message: dict[str, Any], passed: socket.socket) -> dict[str, Any]:
        try:
            with self._turn:
                wire.send_with_socket(self._sock, message, passed)
                return wire.receive(self._sock, time.monotonic() + _NURSERY_START_S)
        except (wire.WireClosed, wire.WireTimeout, OSError) as error:
            text = (self.folder / "nursery.log").read_text(errors="replace")[-2000:]
            raise WorkerCrashed(f"the process to fork from did not answer: {text}") from error

    def exit_status(self, pid: int) -> int | None:
        """The wait status of a worker that ended; None if it cannot be learned."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            return self._ask({"wait": pid}, theirs)["status"]

    def close(self) -> None:
        """Ends the process and all its forks. Idempotent."""
        self._sock.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def direct_worker(prefix: Sequence[str], folder: Path, name: str):
    """A worker that is no fork but a process of its own, run under `prefix` (a tool's command).

    Yields (worker, process, log path); a tool such as compute-sanitizer needs to start its target.
    """
    log = folder / f"{name}.log"
    ours, theirs = socket.socketpair()
    command = [*environment_prefix(verifier_variables(folder)), *prefix]
    command += boot_command("worker", theirs.fileno())
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    theirs.close()
    worker = Worker("candidate", ours, process.pid, log, None)
    try:
        yield worker, process, log
    finally:
        worker.close()
        process.wait()
