"""Answers already paid for, on disk: one SQLite file, safe for several processes. Only good ones are kept."""

from __future__ import annotations

import errno
import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation.scores import Score, Status
from personas.text import storable

# How long a process waits for another's write to end.
_PATIENCE_S = 60.0


class JudgmentCache:
    """Scores by key. Raises OSError where the folder can't be written."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()  # one connection, any thread
        try:
            self._db = sqlite3.connect(self.path, timeout=_PATIENCE_S, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")  # a killed writer leaves the last whole state
            self._db.execute("PRAGMA synchronous=NORMAL")  # whose loss costs a question, no data: no fsync an answer
            for table in ("scores", "endpoints"):
                self._db.execute(f"CREATE TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        except sqlite3.DatabaseError as error:
            raise OSError(f"{self.path}: {error}; remove the file, or name another") from error

    def get(self, key: str) -> Score | None:
        """The score of a key, without the tokens that it once cost."""
        with self._lock, self._errors():
            row = self._db.execute("SELECT value FROM scores WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            score, rationale = json.loads(row[0])
            return Score(score, Status.OK, None if rationale is None else storable(str(rationale)))
        except (ValueError, TypeError, RecursionError):  # whoever wrote that: it is asked again
            with self._lock, self._errors():
                self._db.execute("DELETE FROM scores WHERE key = ?", (key,))
            return None

    def put(self, scores: Mapping[str, Score]) -> None:
        """Keep the scored ones of these; what is there already stays."""
        kept = [(key, json.dumps([s.score, s.rationale])) for key, s in scores.items() if s.status is Status.OK]
        if kept:
            with self._lock, self._errors():
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", kept)
                self._db.execute("COMMIT")

    def recall(self, name: str) -> str | None:
        """What was remembered of an endpoint, by its name."""
        with self._lock, self._errors():
            row = self._db.execute("SELECT value FROM endpoints WHERE key = ?", (cache_key(endpoint=name),)).fetchone()
        return None if row is None else str(row[0])

    def remember(self, name: str, value: str) -> None:
        """Remember something of an endpoint; what was remembered before is replaced."""
        with self._lock, self._errors():
            self._db.execute("INSERT OR REPLACE INTO endpoints VALUES (?, ?)", (cache_key(endpoint=name), value))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """A full disk, a damaged file: an OSError as of any other file."""
        try:
            yield
        except sqlite3.Error as error:
            raise OSError(errno.EIO, str(error), str(self.path)) from error

    def __len__(self) -> int:
        with self._lock:
            return int(self._db.execute("SELECT COUNT(*) FROM scores").fetchone()[0])

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._db.close()


def cache_key(**identity: Any) -> str:
    """A key for all that a judgment depends on."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
