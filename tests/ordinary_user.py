"""Runs Python as nobody, where the tests run as root: by another interpreter if this one is closed to others."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import firsthand

SOURCE = str(Path(firsthand.__file__).parents[1])
NOBODY = 65534
_PATH = [SOURCE, *(folder for folder in sys.path if folder.endswith("-packages"))]


@functools.cache
def interpreter(*modules: str) -> str | None:
    """A Python of this version that nobody can run, with our package and these modules; None if there is none."""
    mine = f"python{sys.version_info.major}.{sys.version_info.minor}"
    names = [sys.executable, f"/usr/bin/{mine}", f"/usr/local/bin/{mine}", "/usr/bin/python3", "/usr/local/bin/python3"]
    imports = ", ".join(("firsthand.sandbox.sandbox", *modules))
    for name in filter(shutil.which, names):
        if as_nobody([name, "-c", f"import {imports}"]).returncode == 0:
            return name
    return None


def as_nobody(command: list[str], **options: object) -> "subprocess.CompletedProcess[str]":
    """The command, run as nobody; what it imports is what the tests import."""
    path = os.pathsep.join(_PATH)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    become = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/", "env": environment}
    try:
        return subprocess.run(command, capture_output=True, text=True, **(become | options))  # type: ignore[call-overload, no-any-return]
    except OSError as error:  # not even the interpreter can be reached
        return subprocess.CompletedProcess(command, 126, "", str(error))
