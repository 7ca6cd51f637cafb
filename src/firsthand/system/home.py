"""The data home: the folder of runs, models and downloaded data."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def data_home() -> Path:
    """`$FIRSTHAND_HOME`, or `firsthand` in the platform's data folder."""
    if chosen := os.environ.get("FIRSTHAND_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "firsthand"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "firsthand"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "firsthand"
