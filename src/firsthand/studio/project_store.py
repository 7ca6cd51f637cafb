"""Keeps the documents of one project apart from those of others in a store that several Studios share."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager

from firsthand.errors import ConfigError
from firsthand.message import Json
from firsthand.studio.accounts import ACCOUNT, KEY
from firsthand.studio.studio_store import StoredItem, StudioStore

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHARED = (ACCOUNT, KEY)
"""Kinds that all projects have in common: people sign in to each with one password."""


def check_project(name: str) -> None:
    """ConfigError for a name that no project can have."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"project is {name[:60]!r}: use up to 64 letters, digits and . _ -")


class ProjectStore:
    """A StudioStore of one project: what it keeps is seen by no other project, but for accounts and their keys."""

    def __init__(self, store: StudioStore, project: str):
        check_project(project)
        self.shared = store
        self.project = project

    def items(self, kind: str) -> list[StoredItem]:
        """All documents of a kind, by key."""
        return self.shared.items(self._kind(kind))

    def get(self, kind: str, key: str) -> StoredItem | None:
        """One document; None if there is none."""
        return self.shared.get(self._kind(kind), key)

    def versions(self, kind: str) -> dict[str, int]:
        """The versions of all documents of a kind by key."""
        return self.shared.versions(self._kind(kind))

    def put(self, kind: str, key: str, body: Json, *, version: int | None = None) -> int:
        """Keeps a document; see `StudioStore.put`."""
        return self.shared.put(self._kind(kind), key, body, version=version)

    def remove(self, kind: str, key: str, *, version: int | None = None) -> bool:
        """Removes a document; see `StudioStore.remove`."""
        return self.shared.remove(self._kind(kind), key, version=version)

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Runs what is within as one transaction, alone in this project; see `StudioStore.exclusive`."""
        return self.shared.exclusive(self._kind(name))

    def log(self, kind: str, body: Json) -> None:
        """Adds an entry to the project's log."""
        self.shared.log(self._kind(kind), body)

    def logged(self, kind: str, limit: int = 200) -> list[tuple[str, Json]]:
        """The last entries of a kind with their times, the newest first."""
        return self.shared.logged(self._kind(kind), limit)

    def close(self) -> None:
        """Closes the shared store."""
        self.shared.close()

    def _kind(self, kind: str) -> str:
        return kind if kind in _SHARED else f"{self.project}/{kind}"
