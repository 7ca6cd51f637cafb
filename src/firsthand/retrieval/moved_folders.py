"""Finds the folders that moved: those that are gone, and whose files stand in another folder byte for byte."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from firsthand.retrieval.documents.folder_files import shown


def moved_files(
    roots: Iterable[Path],
    stored: Mapping[str, tuple[str, str]],
    read: Mapping[str, str],
    takes: Callable[[str], bool],
) -> set[str]:
    """Return the paths of stored files whose folders moved to one of the roots, as they were named before.

    A folder has moved if at least half of the files that were read at its former place, of those that this ingest takes,
    are in it, byte for byte: a few that two folders share, such as a licence, do not count. It has not moved if a file was
    read where it is now.

    Args:
        roots: The folders that are read now, resolved.
        stored: Path of each file of the index -> the id of a document of it and its SHA-256; both empty without a file.
        read: Path of each file that was read now -> its SHA-256.
        takes: True for the path within a folder of a file that this ingest takes.
    """
    found: set[str] = set()
    for root in roots:
        if any(Path(source).is_relative_to(root) for source in stored):
            continue
        now = ((Path(path), sha256) for path, sha256 in read.items())
        here = {(path.relative_to(root).parts, sha256) for path, sha256 in now if path.is_relative_to(root)}
        files: defaultdict[Path, set[str]] = defaultdict(set)
        taken: Counter[Path] = Counter()
        held: Counter[Path] = Counter()
        for source, (id, sha256) in stored.items():
            for folder in read_from(Path(source), id) if is_gone(source) else ():
                files[folder].add(source)
                place = Path(source).relative_to(folder)
                taken[folder] += takes(shown(place.as_posix()))
                held[folder] += (place.parts, sha256) in here
        former = [folder for folder, count in held.most_common() if count and 2 * count >= taken[folder]]
        found |= files[former[0]] if former else set()
    return found


def read_from(path: Path, id: str) -> Iterator[Path]:
    """Yield the folders that an ingest may have read a file from, by the id of a document of it: its path in there, behind
    the folder's name if there were several."""
    for folder in path.parents:
        name = shown(path.relative_to(folder).as_posix())
        if any(id == each or id.startswith(f"{each}:") for each in (name, f"{folder.name}/{name}")):
            yield folder


def is_gone(path: str) -> bool:
    """Return True if nothing is at a path; False where that cannot be seen."""
    try:
        Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False
