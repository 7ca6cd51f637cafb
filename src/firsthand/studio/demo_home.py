"""The recorded example of `firsthand studio --demo`, unpacked into a folder that is removed afterwards.

`bench/studio_demo.py` records it; ABOUT.txt in the archive says by which commands, and where each part comes from.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKED = Path(__file__).parent / "demo.zip"


@contextmanager
def demo_home() -> Iterator[Path]:
    """A data home with the example's runs; what is made there is lost at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="firsthand-demo-", ignore_cleanup_errors=True) as folder:
        with zipfile.ZipFile(PACKED) as packed:
            packed.extractall(folder)
        for run in (Path(folder) / "runs").iterdir():
            (run / "lock").touch()
        yield Path(folder)
