"""How the verifier talks to its workers: one JSON object per message, over a Unix socket.

JSON and not pickle: whatever a candidate's process sends can be wrong, but it cannot run code in
the verifier. Tensors never travel here, only the names of the files they are in. No torch.
"""

import array
import json
import select
import socket
import struct
import time
from typing import Any

_LENGTH = struct.Struct("!Q")
MAX_MESSAGE = 1 << 28


class WireClosed(Exception):
    """The other end is gone."""


class WireTimeout(Exception):
    """No answer before the deadline."""


def send(sock: socket.socket, message: dict[str, Any]) -> None:
    """Send one message. Raises WireClosed when the other end is gone."""
    body = json.dumps(message).encode()
    try:
        sock.sendall(_LENGTH.pack(len(body)) + body)
    except OSError as error:
        raise WireClosed(str(error)) from error


def receive(sock: socket.socket, deadline: float | None = None) -> dict[str, Any]:
    """One message; `deadline` is a time.monotonic() value.

    Raises WireClosed at the end of the stream or for an impossible length, WireTimeout when the
    deadline passes first.
    """
    (length,) = _LENGTH.unpack(_receive_exactly(sock, _LENGTH.size, deadline))
    if length > MAX_MESSAGE:
        raise WireClosed(f"a message of {length} bytes is not one of ours")
    return json.loads(_receive_exactly(sock, length, deadline))


def _receive_exactly(sock: socket.socket, count: int, deadline: float | None) -> bytes:
    chunks: list[bytes] = []
    while count:
        _wait_readable(sock, deadline)
        try:
            chunk = sock.recv(min(count, 1 << 20))
        except OSError as error:
            raise WireClosed(str(error)) from error
        if not chunk:
            raise WireClosed("end of stream")
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)


def _wait_readable(sock: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        return
    left = deadline - time.monotonic()
    if left <= 0 or not select.select([sock], [], [], left)[0]:
        raise WireTimeout


def send_with_socket(sock: socket.socket, message: dict[str, Any], passed: socket.socket) -> None:
    """Send `passed` (as a file descriptor) and then the message."""
    descriptors = array.array("i", [passed.fileno()])
    sock.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    send(sock, message)


def receive_with_socket(sock: socket.socket) -> tuple[dict[str, Any], socket.socket]:
    """The counterpart of `send_with_socket`. Raises WireClosed at the end of the stream."""
    marker, descriptors, _, _ = socket.recv_fds(sock, 1, 1)
    if not marker or not descriptors:
        raise WireClosed("end of stream")
    return receive(sock), socket.socket(fileno=descriptors[0])
