"""Downloads that break off again and again: which try counts, what is kept between them and at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from firsthand.errors import DownloadError
from firsthand.hub import download as module
from firsthand.hub.download import DiskError, _fetch, _open, download, move_into_place
from hub_site import BODY, hub, refused, sha, tree, use_home
from loopback import Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    use_home(tmp_path / "home", monkeypatch)
    with hub(monkeypatch) as here:
        here.files["/f"] = BODY
        yield here


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a download waited between its tries, which take no time."""
    found: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=found.append, monotonic=module.time.monotonic))
    return found


def spans(site: Site) -> list[str | None]:
    return [span for _, span, _ in site.asked]


def test_only_bytes_beyond_the_furthest_so_far_are_headway(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    monkeypatch.setattr(module, "_HEADWAY_BYTES", 4)
    site.cut_after, site.range_shift = [5, None] * 3, 1  # no part can be gone on with, so all begins again
    told = refused(DownloadError, download, f"{site.url}/f", tmp_path / "f", sha256=sha(BODY), size_bytes=10)
    host = site.url.removeprefix("http://")
    assert told == f"{host} broke off 4 times (RemoteProtocolError): try again to go on from there"
    assert spans(site) == [None, "bytes=5-", None, "bytes=5-", None] and slept == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert (tmp_path / "f.part").read_bytes() == BODY[:5]


def test_halves_that_do_not_fit_together_are_tries_too_and_a_whole_file_that_is_wrong_is_told_at_once(
    site: Site, tmp_path: Path, slept: list[float]
) -> None:
    site.cut_after, wrong = [4, 10, 4, 10], "0" * 64
    told = refused(DownloadError, download, f"{site.url}/f", tmp_path / "f", sha256=wrong)
    gave = f"{site.url}/f gave a file with SHA-256 {sha(BODY)}: {wrong} was expected, so it was not kept"
    assert told == f"{site.url.removeprefix('http://')} broke off 4 times ({gave}): try again to go on from there"
    assert spans(site) == [None, "bytes=4-", None, "bytes=4-"] and slept == pytest.approx([0.1, 0.3])
    site.asked.clear()
    (tmp_path / "f.part").write_bytes(b"")
    assert refused(DownloadError, download, f"{site.url}/f", tmp_path / "f", sha256=wrong) == gave
    assert spans(site) == [None] and tree(tmp_path) == {}, "an empty part is no half"


def test_a_file_that_is_to_be_empty_and_is_not_is_refused(site: Site, tmp_path: Path) -> None:
    site.lengths = False
    told = refused(DownloadError, download, f"{site.url}/f", tmp_path / "f", sha256=sha(b""), size_bytes=0)
    assert told == f"{site.url}/f gives more than the 0 bytes expected"
    site.files["/f"] = b""
    made = download(f"{site.url}/f", tmp_path / "f", sha256=sha(b""), size_bytes=0)
    assert made.read_bytes() == b"" and tree(tmp_path) == {"f": b""}


def test_room_is_needed_for_what_is_missing_alone(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / "f.part"

    def fetched(free: int, have: int) -> bytes:
        part.write_bytes(BODY[:have])
        monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
        _fetch(f"{site.url}/f", part, 10, {}, 9.0, lambda done, total: None)
        return part.read_bytes()

    assert fetched(6, 4) == fetched(10, 0) == BODY
    for free, have in ((5, 4), (9, 0)):
        assert refused(DiskError, fetched, free, have) == (
            f"{tmp_path} has 0 MiB free, but 0 MiB are needed: free some space"
        )
        assert part.read_bytes() == BODY[:have], "what there is stays"


def test_a_token_goes_to_the_very_address_that_was_asked_for() -> None:
    asked: list[tuple[str, str | None, str | None]] = []

    def answered(redirects: dict[str, str], **headers: str) -> list[tuple[str, str | None, str | None]]:
        asked.clear()

        def handle(request: httpx.Request) -> httpx.Response:
            url = str(request.url)
            asked.append((url, request.headers.get("authorization"), request.headers.get("x-own")))
            return (
                httpx.Response(302, headers={"location": redirects[url]}) if url in redirects else httpx.Response(200)
            )

        with (
            httpx.Client(transport=httpx.MockTransport(handle)) as client,
            _open(client, "http://localhost:1/a", headers) as response,
        ):
            assert response.status_code == 200
        return list(asked)

    home = "http://localhost:1"
    for there, key in (
        (f"{home}/b", "k"), ("/b", "k"), ("https://localhost:1/b", None), ("http://localhost:2/b", None),
        ("http://127.0.0.1:1/b", None), ("http://localhost/b", None),
    ):  # fmt: skip
        (first, second) = answered({f"{home}/a": there}, AUTHORIZATION="k", **{"x-own": "1"})
        assert first == (f"{home}/a", "k", "1") and second[1:] == (key, "1"), there
        assert second[0] == (there if "://" in there else home + there)
    back = answered({f"{home}/a": "http://localhost:2/b", "http://localhost:2/b": f"{home}/c"}, authorization="k")
    assert [key for _, key, _ in back] == ["k", None, "k"]


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, target, synced = tmp_path / "f.part", tmp_path / "f", list[tuple[int, bool]]()
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, target.exists()))
        real(handle)

    part.write_bytes(BODY)
    monkeypatch.setattr(module.os, "fsync", fsync)
    move_into_place(part, target)
    assert synced == [(target.stat().st_ino, False), (tmp_path.stat().st_ino, True)] and tree(tmp_path) == {"f": BODY}
