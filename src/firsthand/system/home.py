"""The data home: the folder of runs, models and downloaded data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from firsthand.errors import ConfigError


def data_home() -> Path:
    """`$FIRSTHAND_HOME`, or `firsthand` in the platform's data folder; ConfigError if the user has no home folder."""
    try:
        return _data_home()
    except RuntimeError as error:  # of pathlib: no HOME and no such user, as in some containers
        raise ConfigError(f"the data home is unknown ({error}): set FIRSTHAND_HOME to a folder") from None


def _data_home() -> Path:
    if chosen := os.environ.get("FIRSTHAND_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "firsthand"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "firsthand"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "firsthand"
