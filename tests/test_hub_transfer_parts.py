"""Downloads by parts: what is asked for and kept of an answer, errors in words, and folders of repositories."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from firsthand.errors import DownloadError
from firsthand.hub import hf_repository
from firsthand.hub.download import (
    DiskError,
    _chunks,
    _client,
    _ConnectionLost,
    _expect_room,
    _fetch,
    _http_errors,
    _joined,
    _open,
    _sync,
    delete,
    download,
    expect_reachable,
    get_json_bytes,
    move_into_place,
)
from firsthand.hub.hf_repository import (
    MARKER,
    Repo,
    discard_partial,
    fetch_repo,
    model_in,
    partial_folders,
    read_marker,
)
from firsthand.hub.model_lookup import _exclusive, _hub_hint
from hub_site import BODY, COMMIT, hub, sha, tree, use_home
from loopback import Site, serve


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with hub(monkeypatch) as here:
        yield here


@pytest.mark.slow
def test_a_fetch_asks_for_what_is_missing_and_writes_what_comes(site: Site, tmp_path: Path) -> None:
    part, url = tmp_path / "f.part", f"{site.url}/f"
    site.files["/f"] = BODY
    told: list[Any] = []

    def fetch(size: int | None, timeout_s: float = 9.0) -> bytes:
        _fetch(url, part, size, {"Authorization": "Bearer x"}, timeout_s, lambda *each: told.append(each))
        return part.read_bytes()

    assert fetch(None) == BODY and told[-1] == (10, 10) and site.asked == [("/f", None, "Bearer x")]
    assert fetch(10) == BODY and len(site.asked) == 1  # all is there
    part.write_bytes(BODY[:4])
    assert fetch(10) == BODY and site.asked[-1] == ("/f", "bytes=4-", "Bearer x") and told[-1] == (10, 10)
    part.write_bytes(BODY + b"x")
    assert fetch(10) == BODY and site.asked[-1][1] is None
    part.write_bytes(BODY[:4])
    site.ranges = False
    assert fetch(10) == BODY and site.asked[-1][1] == "bytes=4-"
    site.ranges, site.range_shift = True, 1
    part.write_bytes(BODY[:4])
    with pytest.raises(_ConnectionLost, match=r"^it could not go on where it broke off$"):
        fetch(10)
    assert not part.exists()
    site.range_shift, site.partial = 0, 4
    with pytest.raises(_ConnectionLost, match=r"^it could not go on where it broke off$"):
        fetch(None)  # a part that nobody asked for is not the file
    assert site.asked[-1][1] is None and not part.exists()
    site.partial, site.cut_after, site.lengths = None, [6], False
    with pytest.raises(_ConnectionLost, match=r"^6 of 10 bytes came$"):
        fetch(10)
    assert part.read_bytes() == BODY[:6]
    part.unlink()
    with pytest.raises(DownloadError, match=rf"^{url} gives more than the 9 bytes expected$"):
        fetch(9)
    assert part.read_bytes() == b""
    site.statuses["/f"] = 416
    part.write_bytes(b"x")
    with pytest.raises(_ConnectionLost):
        fetch(10)
    assert not part.exists()
    site.statuses["/f"] = 404
    with pytest.raises(DownloadError, match=rf"^{url} answered 404: there is no such model, file or revision"):
        fetch(10)


@pytest.mark.slow
def test_a_download_that_broke_off_goes_on_and_is_checked_whole(site: Site, tmp_path: Path) -> None:
    url, target = f"{site.url}/f", tmp_path / "deep" / "f"
    site.files["/f"] = BODY
    site.cut_after = [4]
    assert download(url, target, sha256=sha(BODY), size_bytes=10) == target and tree(tmp_path) == {"deep/f": BODY}
    assert [span for _, span, _ in site.asked] == [None, "bytes=4-"]
    target.unlink()
    (tmp_path / "deep" / "f.part").write_bytes(b"wrong")
    assert download(url, target, sha256=sha(BODY), size_bytes=10).read_bytes() == BODY
    assert [span for _, span, _ in site.asked[2:]] == ["bytes=5-", None]  # the joined halves were another file
    with pytest.raises(DownloadError) as other:
        download(url, tmp_path / "g", sha256="0" * 64)
    assert str(other.value).startswith(f"{url} gave a file with SHA-256 {sha(BODY)}: {'0' * 64} was expected")
    assert tree(tmp_path) == {"deep/f": BODY} and len(site.asked) == 5
    (tmp_path / "h.part").write_bytes(BODY[:4])
    assert download(url, tmp_path / "h").read_bytes() == BODY and site.asked[-1][1] is None
    blob = hashlib.sha1(b"blob 10\0" + BODY).hexdigest()
    (tmp_path / "i.part").write_bytes(BODY[:3])
    assert download(url, tmp_path / "i", git_hash=blob).read_bytes() == BODY and site.asked[-1][1] == "bytes=3-"
    count = len(site.asked)
    assert download(url, tmp_path / "i", git_hash=blob) == tmp_path / "i" and len(site.asked) == count
    (tmp_path / "j").symlink_to(tmp_path / "i")
    assert download(url, tmp_path / "j").read_bytes() == BODY and not (tmp_path / "j").is_symlink()


@pytest.mark.slow
def test_a_mebibyte_of_headway_gives_all_tries_back_and_less_does_not(site: Site, tmp_path: Path) -> None:
    url, step = f"{site.url}/f", 1 << 20
    body = bytes(range(256)) * (step // 256) * 6 + b"end"
    site.files["/f"] = body
    site.cut_after = [step] * 6
    assert download(url, tmp_path / "f", sha256=sha(body)).read_bytes() == body
    assert [span for _, span, _ in site.asked] == [None, *(f"bytes={n * step}-" for n in range(1, 7))]
    site.asked.clear()
    site.cut_after = [step - 1] * 4
    with pytest.raises(DownloadError) as broken:
        download(url, tmp_path / "g", sha256=sha(body))
    host = site.url.removeprefix("http://")
    assert str(broken.value).startswith(f"{host} broke off 4 times (") and str(broken.value).endswith(
        "): try again to go on from there"
    )
    assert len(site.asked) == 4 and (tmp_path / "g.part").stat().st_size == 4 * (step - 1)
    assert download(url, tmp_path / "g", sha256=sha(body)).read_bytes() == body
    assert site.asked[4][1] == f"bytes={4 * (step - 1)}-"


@contextmanager
def dripping() -> Iterator[str]:
    """A server whose answer's head comes byte by byte, so that no read of it waits for long, and never ends."""
    over = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
                while not over.wait(0.02):
                    connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def test_a_host_is_waited_for_as_long_as_it_is_given_and_no_longer() -> None:
    with dripping() as host:
        begun = time.monotonic()
        with pytest.raises(DownloadError) as told:
            expect_reachable(f"http://{host}/x", timeout_s=0.15)
        waited_s = time.monotonic() - begun
    assert str(told.value) == f"{host} did not answer within 0.15 s: check the network or the proxy"
    assert 0.15 <= waited_s < 4


@pytest.mark.slow
def test_a_document_is_read_up_to_its_limit_and_errors_name_its_address(site: Site) -> None:
    url = f"{site.url}/d"
    site.files["/d"] = BODY
    assert get_json_bytes(url, headers={"Authorization": "Bearer y"}, max_bytes=10) == BODY
    assert site.asked == [("/d", None, "Bearer y")]
    with pytest.raises(DownloadError, match=rf"^{url} gave more than 9 bytes: a short list was expected$"):
        get_json_bytes(url, headers={}, max_bytes=9)
    site.statuses["/d"] = 429
    with pytest.raises(DownloadError, match=rf"^{url} answered 429: too many requests: try again later$"):
        get_json_bytes(url, headers={})
    expect_reachable(url)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(
        DownloadError, match=rf"^127\.0\.0\.1:{port} cannot be reached \(ConnectError\): check the network"
    ):
        expect_reachable(f"http://127.0.0.1:{port}/x")
    host = site.url.removeprefix("http://")
    site.redirects = {f"/r{n}": f"/r{n + 1}" for n in range(7)}
    with pytest.raises(DownloadError, match=rf"^{host} redirects more than 5 times$"):
        get_json_bytes(f"{site.url}/r0", headers={})
    assert [path for path in site.paths() if path.startswith("/r")] == [f"/r{n}" for n in range(6)]
    del site.redirects["/r6"]
    site.files["/r6"] = b"{}"
    assert get_json_bytes(f"{site.url}/r1", headers={}) == b"{}"
    with (
        serve() as other,
        httpx.Client() as client,
        _open(client, f"{site.url}/away", {}) as gone,
    ):
        assert gone.status_code == 404
        other.files["/x"] = b"1"
        site.redirects["/away"] = f"{other.url}/x"
        with _open(client, f"{site.url}/away", {"AUTHORIZATION": "t", "X-A": "b"}) as response:
            assert response.status_code == 200
            assert (response.request.headers["x-a"], response.request.headers["accept-encoding"]) == ("b", "identity")
        assert other.asked == [("/x", None, None)] and site.asked[-1] == ("/away", None, "t")


def test_errors_of_the_network_are_told_by_host_or_are_a_lost_connection_within_a_part(tmp_path: Path) -> None:
    url = "https://host:81/a"
    reach = "host:81 cannot be reached ({}): check the network or the proxy"

    def said(error: Exception, part: Path | None) -> tuple[type, str]:
        with pytest.raises((DownloadError, _ConnectionLost)) as raised, _http_errors(url, part):
            raise error
        return type(raised.value), str(raised.value)

    for kind in (httpx.ConnectError, httpx.ConnectTimeout):
        for part in (None, tmp_path):
            assert said(kind("no"), part) == (DownloadError, reach.format(kind.__name__))
    assert said(httpx.ReadTimeout("no"), None) == (DownloadError, reach.format("ReadTimeout"))
    assert said(httpx.ReadTimeout("no"), tmp_path) == (_ConnectionLost, "ReadTimeout")
    invalid = (DownloadError, f"{url!r} leads to an invalid URL: bad")
    assert said(httpx.InvalidURL("bad"), None) == said(httpx.InvalidURL("bad"), tmp_path) == invalid
    with pytest.raises(KeyError), _http_errors(url):
        raise KeyError
    assert _joined("https://host/a/b", "../c?d") == "https://host/c?d"
    assert _joined("https://host/a", "https://other/x") == "https://other/x"
    with pytest.raises(DownloadError, match=r"^host redirects to 'http://\[x', which is not a valid URL$"):
        _joined("https://host/a", "http://[x")
    with _client(7.0) as client:
        assert client.timeout == httpx.Timeout(7.0, connect=5.0) and not client.follow_redirects


def test_a_client_that_cannot_be_made_names_the_variables_to_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://proxy")
    with pytest.raises(
        DownloadError, match=r"^nothing can be downloaded \(.*\): check SSL_CERT_FILE and the proxy var"
    ):
        _client(1.0)


def test_an_answer_that_drips_below_a_kibibyte_a_second_is_given_up() -> None:
    class Slow(httpx.SyncByteStream):
        def __init__(self, size: int):
            self.size = size

        def __iter__(self) -> Iterator[bytes]:
            yield b"ab"
            time.sleep(0.05)
            yield b"c" * self.size
            yield b"d"

    def taken(size: int, timeout_s: float) -> list[bytes]:
        return list(_chunks(httpx.Response(200, stream=Slow(size)), timeout_s))

    assert taken(1, 9.0) == [b"ab", b"c", b"d"]
    assert taken(50_000, 0.02) == [b"ab", b"c" * 50_000, b"d"]
    with pytest.raises(_ConnectionLost, match=r"^3 bytes in \d+ s$"):
        taken(1, 0.02)


def lowest_free() -> int:
    """The lowest file descriptor that nothing in this process has open."""
    found = os.open(os.devnull, os.O_RDONLY)
    os.close(found)
    return found


def test_files_are_deleted_and_moved_whole_and_links_alone(tmp_path: Path) -> None:
    for name in ("folder", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    (tmp_path / "file").write_text("f")
    for name in ("folder", "link", "file"):
        delete(tmp_path / name)
    assert tree(tmp_path) == {"other/a": b"a"} and not (tmp_path / "folder").exists()
    assert not (tmp_path / "link").is_symlink()
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    before = lowest_free()
    move_into_place(tmp_path / "new", tmp_path / "old")
    move_into_place(tmp_path / "other", tmp_path / "moved")
    with pytest.raises(OSError):  # what no disk keeps is told, and closed
        _sync(Path(os.devnull))
    assert lowest_free() == before  # no folder is left open
    assert tree(tmp_path) == {"moved/a": b"a", "old": b"new"}
    with pytest.raises(FileNotFoundError):
        move_into_place(tmp_path / "none", tmp_path / "old")
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    _expect_room(tmp_path / "x", 0)
    with pytest.raises(DiskError) as room:
        _expect_room(tmp_path / "x", 5 * free + (3 << 20))
    found, needed = str(room.value).removeprefix(f"{tmp_path} has ").split(" MiB free, but ")
    assert abs(int(found) - (free >> 20)) < 4096
    assert needed == f"{(5 * free + (3 << 20)) >> 20} MiB are needed: free some space"


def listed(site: Site, bodies: dict[str, bytes], commit: str = COMMIT, revision: str = "main") -> None:
    siblings = [{"rfilename": name, "size": len(body), "lfs": {"sha256": sha(body)}} for name, body in bodies.items()]
    site.files[f"/api/models/o/n/revision/{revision}"] = json.dumps({"sha": commit, "siblings": siblings}).encode()
    site.files |= {f"/o/n/resolve/{commit}/{name}": body for name, body in bodies.items()}


@pytest.mark.slow
def test_a_repository_becomes_one_folder_with_its_marker_and_leaves_no_part(site: Site, tmp_path: Path) -> None:
    bodies = {"config.json": b"{}", "a.safetensors": BODY, "x.py": b"never", "LICENSE": b"MIT"}
    listed(site, bodies, revision="v1")
    folder = tmp_path / "models" / "n@v1"
    staging = folder.with_name(f".n@v1.{COMMIT[:12]}.part")
    staging.mkdir(parents=True)
    (staging / "a.safetensors").write_bytes(BODY)
    old = folder.with_name(f".n@v1.{'d' * 12}.part")
    old.mkdir()
    other = folder.with_name(f".n@v1x.{'d' * 12}.part")
    other.mkdir()
    folder.mkdir()
    (folder / "stale").write_text("x")
    told: list[Any] = []
    assert fetch_repo(Repo("o/n", "v1"), folder, on_progress=lambda *each: told.append(each)) == folder
    taken = {name: bodies[name] for name in ("config.json", "LICENSE", "a.safetensors")}
    marker = {"name": "hf:o/n@v1", "commit": COMMIT, "files": {"config.json": 2, "LICENSE": 3, "a.safetensors": 10}}
    assert tree(folder) == {**taken, MARKER: json.dumps(marker, indent=2).encode()} and read_marker(folder) == marker
    assert sorted(each.name for each in folder.parent.iterdir()) == [other.name, "n@v1"]
    assert told == [(2, 15), (5, 15)]  # the weights were there
    many = {f"{n}.json": b"" for n in range(2000)} | {"config.json": b"", "a.safetensors": b""}
    listed(site, many)
    with pytest.raises(DownloadError, match=r"^hf:o/n lists 2002 files to download: at most 2000 are taken$"):
        fetch_repo(Repo("o/n"), tmp_path / "many")
    staging.write_text("a file in its place")
    assert partial_folders(folder) == [staging] and discard_partial(folder) and not discard_partial(folder)
    assert not staging.exists() and other.is_dir()


def test_the_file_that_was_asked_for_is_the_model_whatever_lies_beside_it(tmp_path: Path) -> None:
    repo = Repo("o/n", "v1+2", "model.gguf")
    folder = repo.folder(tmp_path)
    folder.mkdir(parents=True)
    for name in ("LICENSE.gguf", "LICENSE.safetensors", "model.gguf"):
        (folder / name).write_bytes(b"12")
    assert model_in(folder) == folder / "model.gguf"
    whole = Repo("o/n", "v1+2.gguf").folder(tmp_path)
    whole.mkdir()
    (whole / "a.gguf").touch()
    assert model_in(whole) == whole / "a.gguf", "a revision is no file"


def test_a_folder_is_the_model_unless_one_file_holds_the_only_weights(tmp_path: Path) -> None:
    assert model_in(tmp_path) == tmp_path and read_marker(tmp_path) is None
    for name in ("b.gguf", "a.gguf"):
        (tmp_path / name).write_bytes(b"12")
    assert model_in(tmp_path) == tmp_path / "a.gguf"
    marker: dict[str, Any] = {"name": "hf:o/n", "files": {"a.gguf": 2}}
    (tmp_path / MARKER).write_text(json.dumps(marker))
    assert read_marker(tmp_path) == marker
    for wrong in ({"files": {"a.gguf": 3}}, {"files": {"c": 0}}, {"name": None}, {"files": None}):
        (tmp_path / MARKER).write_text(json.dumps(marker | wrong))
        assert read_marker(tmp_path) is None
    (tmp_path / "x.safetensors").touch()
    assert model_in(tmp_path) == tmp_path


def test_a_lock_is_of_one_name_and_a_hint_of_what_could_be_a_repository(home: Path) -> None:
    with _exclusive("é"):
        [lock] = (home / "models" / ".locks").iterdir()
        with lock.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert lock.name == sha("é".encode())[:16]
    assert _hub_hint("org/name") == ". For a repository on the Hugging Face hub write 'hf:org/name'"
    assert _hub_hint("org/name@main") == _hub_hint("org/name")
    for path in ("/org/name", "name", "a/b/c"):
        assert _hub_hint(path) == ": give a .gguf file, a model's folder, or hf:ORG/NAME"


def test_a_token_goes_with_requests_to_the_hub(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    listed(site, {"config.json": b"{}", "a.safetensors": b""})
    assert hf_repository.listing(Repo("o/n"))[0] == COMMIT
    assert {token for _, _, token in site.asked} == {"Bearer hf_x"}
    listed(site, {"config.json": b"{}"}, commit="short")
    with pytest.raises(DownloadError) as wrong:
        hf_repository.listing(Repo("o/n"))
    assert str(wrong.value) == (
        f"{site.url}/api/models/o/n/revision/main?blobs=true does not say which commit it lists: the hub's JSON was "
        "expected; check HF_ENDPOINT"
    )
