"""Results that outlive a process, in one SQLite file: a suite resumes from it. Knows no result.

A record is found by its kind ("optimize", "bench", ...) and a key that names everything its value
depends on. Writers of several processes and threads may share the file.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fusewright.errors import OutputError

SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, written REAL NOT NULL,
    PRIMARY KEY (kind, key)
)
"""
# How long a writer waits for another one, in s.
PATIENCE = 60.0


def digest(*parts: object) -> str:
    """A key from anything with a JSON form; files go in by their bytes' digest (`file_digest`)."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


class Store:
    """One SQLite file of JSON records. Raises OutputError if the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path.parent} cannot be made: {error}") from error
        with self._connection() as connection:
            connection.execute(SCHEMA)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each access, so that any thread may come."""
        try:
            with closing(sqlite3.connect(self._path, timeout=PATIENCE)) as connection, connection:
                yield connection
        except sqlite3.Error as error:
            raise OutputError(f"{self._path}: {error}; delete it to start anew") from error

    def get(self, kind: str, key: str) -> Any | None:
        """The record's value, or None where there is none."""
        query = "SELECT value FROM records WHERE kind = ? AND key = ?"
        with self._connection() as connection:
            row = connection.execute(query, (kind, key)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, kind: str, key: str, value: Any) -> None:
        """Writes a record, replacing one of the same kind and key."""
        row = (kind, key, json.dumps(value), time.time())
        with self._connection() as connection:
            connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", row)

    def forget(self, kind: str, key: str) -> None:
        """Deletes a record if there is one."""
        with self._connection() as connection:
            connection.execute("DELETE FROM records WHERE kind = ? AND key = ?", (kind, key))
