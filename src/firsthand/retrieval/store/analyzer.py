"""Splits text into index words with SQLite's own tokenizer, so that words counted here are those that FTS5 indexes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence

from firsthand.retrieval.store.index_file import MEMORY, TOKENIZE
from firsthand.retrieval.store.letter_forms import plain_letters
from firsthand.retrieval.store.unspaced_words import spaced
from firsthand.retrieval.store.word_marks import marked

NEWEST_FORM = 4
"""The form in which words are indexed and searched for now."""
OLDER_FORMS = (1, 2, 3)
"""Forms of older versions: in 1 a run of letters without blanks is one word, in 2 vowel signs part words, in 3 a Korean word
is whole, Greek letters keep their marks, and ligatures, wide and narrow letters are other letters."""


class Analyzer:
    """Counts the words of texts. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._base = sqlite3.connect(MEMORY, check_same_thread=False, isolation_level=None)
        self._base.execute(f"CREATE VIRTUAL TABLE texts USING fts5 (text, tokenize = '{TOKENIZE}')")
        self._base.execute("CREATE VIRTUAL TABLE seen USING fts5vocab (texts, instance)")

    def counts(self, texts: Sequence[str], *, form: int = NEWEST_FORM) -> list[dict[str, int]]:
        """The counts of each word in each text: lower case, without accents and points, stemmed."""
        found: list[dict[str, int]] = [{} for _ in texts]
        with self._lock:
            self._base.execute("BEGIN")
            try:
                self._base.executemany(
                    "INSERT INTO texts (rowid, text) VALUES (?, ?)",
                    ((number, plain_text(text, form=form)) for number, text in enumerate(texts)),
                )
                for number, word in self._base.execute(
                    "SELECT doc, term FROM seen"
                ):  # SQL would sort them to count them
                    counts = found[number]
                    counts[word] = counts.get(word, 0) + 1
            finally:
                self._base.execute("ROLLBACK")
        return found

    def counts_of_any_form(self, text: str) -> dict[str, int]:
        """The words of a query in all forms, for an index with chunks of older ones."""
        forms = (self.counts([text], form=form)[0] for form in (*OLDER_FORMS, NEWEST_FORM))
        return {word: count for counts in forms for word, count in counts.items()}

    def close(self) -> None:
        """Releases the memory."""
        self._base.close()


def plain_text(text: str, *, form: int = NEWEST_FORM) -> str:
    """The text as SQLite indexes it in a form; lone surrogates, which UTF-8 has no bytes for, are question marks."""
    if form > 3:
        text = plain_letters(text)
    if form > 1:
        text = spaced(text, hangul=form > 3)
    if form > 2:
        text = marked(text)
    return text.encode("utf-8", "replace").decode()


def has_older_forms(text: str) -> bool:
    """True if the words of a text may be others in an older form."""
    return plain_text(text) != plain_text(text, form=1)
