"""Recognises rollback journals by which SQLite would delete a file that somebody else has named.

A transaction over several databases leaves in each journal the name of a super-journal, and SQLite deletes the file of that
name when it rolls the journal back. So whoever gives away a database with a forged journal beside it names a file of the
one who opens it, to be deleted at the first look. firsthand attaches no databases and writes no such journal.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_MAGIC = bytes.fromhex("d9d505f920a163d7")
"""The last bytes of a journal that ends in the name of a super-journal (SQLite's file format, section 3)."""


def forged_journal(database: Path) -> Path | None:
    """Return the rollback journal that SQLite would read for the database, if it names another file; else None."""
    whole = os.path.realpath(database)  # SQLite follows links to the database before it names its journal
    journal = Path(f"{whole}-journal")
    try:
        handle = os.open(journal, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:
        return journal  # what cannot be looked into is not believed
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return journal
        end = os.pread(handle, len(_MAGIC), max(0, status.st_size - len(_MAGIC)))
        return journal if end == _MAGIC else None
    finally:
        os.close(handle)
