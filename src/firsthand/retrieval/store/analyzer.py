"""Splits text into index words with SQLite's own tokenizer, so that words counted here are those that FTS5 indexes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence

from firsthand.retrieval.store.index_file import MEMORY, TOKENIZE
from firsthand.retrieval.store.unspaced_words import spaced


class Analyzer:
    """Counts the words of texts. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._base = sqlite3.connect(MEMORY, check_same_thread=False, isolation_level=None)
        self._base.execute(f"CREATE VIRTUAL TABLE texts USING fts5 (text, tokenize = '{TOKENIZE}')")
        self._base.execute("CREATE VIRTUAL TABLE seen USING fts5vocab (texts, instance)")

    def counts(self, texts: Sequence[str], *, apart: bool = True) -> list[dict[str, int]]:
        """The counts of each word in each text: lower case, without marks, stemmed.

        `apart` is False for chunks of an index of version 1, in which words that no blank parts are one.
        """
        found: list[dict[str, int]] = [{} for _ in texts]
        with self._lock:
            self._base.execute("BEGIN")
            try:
                self._base.executemany(
                    "INSERT INTO texts (rowid, text) VALUES (?, ?)",
                    ((number, plain_text(text, apart=apart)) for number, text in enumerate(texts)),
                )
                for number, word in self._base.execute(
                    "SELECT doc, term FROM seen"
                ):  # SQL would sort them to count them
                    counts = found[number]
                    counts[word] = counts.get(word, 0) + 1
            finally:
                self._base.execute("ROLLBACK")
        return found

    def close(self) -> None:
        """Releases the memory."""
        self._base.close()


def plain_text(text: str, *, apart: bool = True) -> str:
    """The text as SQLite indexes it: words apart, and lone surrogates, which UTF-8 has no bytes for, as question marks."""
    return (spaced(text) if apart else text).encode("utf-8", "replace").decode()
