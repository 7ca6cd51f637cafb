"""Opens the file of a memory by the text that a user gives."""

from __future__ import annotations

from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.memories.keeping.item_file import ItemFile, KeepingBounds
from firsthand.memories.keeping.item_vectors import ItemVectors


def opened_file(path: str) -> ItemFile | None:
    """The file at a path, made if it is not there; None for no path: a memory of this process."""
    return ItemFile(Path(path).expanduser()) if path else None


def vectors_of(embedder: str) -> ItemVectors | None:
    """Vectors by an embedding model of that name, such as `minilm`; None for no name."""
    if not embedder:
        return None
    from firsthand.providers.local_embedder import open_embedder  # torch, where it is wanted

    return ItemVectors(open_embedder(embedder))


def bounds_of(max_items: int, max_mb: int) -> KeepingBounds:
    """The bounds of a memory. ConfigError if they are not positive."""
    if max_items < 1 or max_mb < 1:
        raise ConfigError(f"max_items is {max_items} and max_mb {max_mb}: give 1 or more of each")
    return KeepingBounds(max_items, max_mb << 20)
