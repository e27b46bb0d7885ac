"""Entry point of worker processes: the nursery that forks, and the worker that obeys.

A worker answers one command at a time; a verifier's owns one `Session`. Its standard output and
error go to a log file; its only channel to the process that asks is the socket.
"""

import contextlib
import ctypes
import faulthandler
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from fusewright.run.verify import (
    answers,
    backward,
    book,
    doubles,
    drawing,
    gradients,
    power,
    referee,
    runner,
    samples,
    separable,
    statecheck,
    wire,
)
from fusewright.run.verify.arithmetic import Float64

_PR_SET_PDEATHSIG = 1
_REAP_S = 2.0
# Characters of an exception's message that are passed on.
_LONGEST_TEXT = 20_000
_REFEREE = (referee, answers, doubles, drawing, statecheck, power, gradients, samples, separable)
Commands = Mapping[str, Callable[..., Any]]
# The commands of one worker, made when it starts: they share what it keeps in mind.
MakeCommands = Callable[[], Commands]


def main(kind: str, descriptor: int) -> None:
    """The verifier's processes, on the socket `descriptor`."""
    serve(kind, descriptor, verifier_commands, preload)


def verifier_commands(session: runner.Session | None = None) -> Commands:
    """What a referee's or a candidate's process can be told, about one session."""
    session = session or runner.Session()
    notes = book.Book(session)
    return {k: partial(f, session) for k, f in (runner.COMMANDS | backward.COMMANDS).items()} | {
        k: partial(f, notes) for module in _REFEREE for k, f in module.COMMANDS.items()
    }


def preload() -> None:
    """Float64's first use imports much of torch; done before the fork, every fork has it."""
    with Float64(torch.float32):
        torch.zeros(1).add(1)


def serve(
    kind: str, descriptor: int, make_commands: MakeCommands, preload: Callable[[], None]
) -> None:
    """Run a nursery or a direct worker on the socket `descriptor` until its other end closes.

    `preload` imports what every fork will need; it must start neither threads nor CUDA.
    """
    sock = socket.socket(fileno=descriptor)
    if kind == "nursery":
        preload()
        serve_nursery(sock, make_commands)
    else:
        serve_worker(sock, make_commands())


def serve_nursery(sock: socket.socket, make_commands: MakeCommands) -> None:
    """Fork a worker per request; answer questions about ended ones; end them all at the end."""
    alive: list[int] = []
    while True:
        try:
            message, passed = wire.receive_with_socket(sock)
        except wire.WireClosed:
            break
        if "wait" in message:
            reply = {"status": _reap(message["wait"])}
        else:
            pid = _fork_worker(message, sock, passed, make_commands)
            alive.append(pid)
            reply = {"pid": pid}
        passed.close()
        wire.send(sock, reply)
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _reap(pid: int) -> int | None:
    """The wait status of a child that is about to end; None if it does not end or is unknown."""
    deadline = time.monotonic() + _REAP_S
    while time.monotonic() < deadline:
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return None
        if found:
            return status
        time.sleep(0.01)
    return None


def _fork_worker(
    message: dict[str, Any],
    control: socket.socket,
    passed: socket.socket,
    make_commands: MakeCommands,
) -> int:
    pid = os.fork()
    if pid:
        # Both sides make the group, so that a kill right after the reply finds it.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        return pid
    status = 1
    try:
        control.close()
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _redirect(message["log"])
        serve_worker(passed, make_commands())
        status = 0
    finally:
        os._exit(status)


def _redirect(log: str) -> None:
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


def serve_worker(sock: socket.socket, commands: Commands) -> None:
    """Answer commands until the asking process goes away."""
    faulthandler.enable()
    while True:
        try:
            message = wire.receive(sock)
        except wire.WireClosed:
            return
        wire.send(sock, answer(commands, message) | {"ticket": message["ticket"]})


def answer(commands: Commands, message: dict[str, Any]) -> dict[str, Any]:
    """The reply to one message: the command's result, or the exception that it raised."""
    try:
        return {"result": commands[message["command"]](**message["arguments"])}
    except Exception as error:
        kind, text = type(error).__name__, str(error)[:_LONGEST_TEXT]
        if isinstance(error, torch.OutOfMemoryError):
            kind = "OutOfMemoryError"
        return {
            "error": {"kind": kind, "text": text, "trace": traceback.format_exc()[-_LONGEST_TEXT:]}
        }
