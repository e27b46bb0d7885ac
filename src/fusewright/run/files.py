"""Writing files that other processes read. Knows nothing of what is in them."""

import os
import tempfile
from pathlib import Path


def write_atomically(text: str, target: Path, mode: int = 0o600) -> None:
    """All of `text` or nothing: nobody sees half of it. Raises OSError."""
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
