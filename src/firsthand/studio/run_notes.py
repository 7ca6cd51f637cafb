"""Notes on whole runs: one text for each run, kept in the Studio's store and shown on its page and in the list of runs."""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.errors import ConfigError
from firsthand.studio.studio_store import StoredItem, StudioStore

RUN_NOTE = "run-note"
MAX_CHARS = 10_000


@dataclass(frozen=True)
class RunNote:
    """A run's note."""

    text: str = ""
    by: str = ""
    at: str = ""
    """When it was changed last: UTC, ISO 8601."""
    version: int = 0
    """0 where there is none yet."""


class RunNotes:
    """The notes of a store, by run."""

    def __init__(self, store: StudioStore):
        self.store = store

    def all(self) -> dict[str, RunNote]:
        """The notes that have words."""
        return {item.key: note for item in self.store.items(RUN_NOTE) if (note := _note(item)).text}

    def get(self, run: str) -> RunNote:
        """The note of a run; an empty one if it has none."""
        item = self.store.get(RUN_NOTE, run)
        return RunNote() if item is None else _note(item)

    def keep(self, run: str, text: str, by: str, version: int) -> None:
        """Keeps a note in place of the `version` that was read; an empty text empties it.

        Raises:
            ConfigError: A text that is too long, or somebody has changed the note since.
        """
        text = text.replace("\r\n", "\n").strip()
        if len(text) > MAX_CHARS:
            raise ConfigError(f"the note has {len(text):,} characters: at most {MAX_CHARS:,} are kept")
        self.store.put(RUN_NOTE, run, {"text": text, "by": by}, version=version)


def _note(item: StoredItem) -> RunNote:
    return RunNote(str(item.body.get("text", "")), str(item.body.get("by", "")), item.at, item.version)
