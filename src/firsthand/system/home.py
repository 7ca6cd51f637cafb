"""Where everything is kept that is not the user's own: runs, models, fetched data."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def data_home() -> Path:
    """The folder of everything we keep: `$FIRSTHAND_HOME`, or `firsthand` in the platform's place for data."""
    if chosen := os.environ.get("FIRSTHAND_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "firsthand"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "firsthand"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "firsthand"
