"""Downloads through several hosts and in several pieces: what is asked of whom, what is offline, what is left."""

from __future__ import annotations

import errno
import hashlib
import json
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from firsthand.errors import DownloadError
from firsthand.hub.download import (
    DiskError,
    _client,
    _expect_safe,
    _open,
    _size,
    _total,
    disk_errors,
    download,
    get_json_bytes,
    move_into_place,
    verify,
)
from firsthand.hub.hf_repository import Repo, fetch_repo
from firsthand.hub.offline import expect_online, is_local, is_offline, libraries_offline, offline
from hub_site import BODY, COMMIT, hub, refused, sha, tree, use_home
from loopback import Site, serve


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    use_home(tmp_path / "home", monkeypatch)
    with hub(monkeypatch) as here:
        yield here


def test_a_token_comes_back_to_its_host_and_goes_to_no_other_on_the_way(site: Site, tmp_path: Path) -> None:
    with serve() as other, httpx.Client() as client:
        site.files["/end"] = BODY
        site.redirects = {"/a": "/b", "/b": f"{other.url}/c", "/away": f"{other.url}/d"}
        other.redirects = {"/c": f"{site.url}/end"}
        other.files["/d"] = b"1"
        made = download(f"{site.url}/a", tmp_path / "f", sha256=sha(BODY), headers={"Authorization": "t", "X-B": "u"})
        assert made.read_bytes() == BODY
        assert site.asked == [("/a", None, "t"), ("/b", None, "t"), ("/end", None, "t")]
        assert other.asked == [("/c", None, None)]
        with _open(client, f"{site.url}/away", {"authorization": "t"}, method="HEAD") as response:
            assert (response.request.method, str(response.url)) == ("HEAD", f"{site.url}/away")
        (tmp_path / "g.part").write_bytes(BODY[:4])
        other.files["/g"], site.redirects["/g"] = BODY, f"{other.url}/g"
        download(f"{site.url}/g", tmp_path / "g", sha256=sha(BODY), size_bytes=10, headers={"AUTHORIZATION": "t"})
        assert (site.asked[-1], other.asked[-1]) == (("/g", "bytes=4-", "t"), ("/g", "bytes=4-", None))
        site.redirects["/bad"] = "http://[x/y"
        assert refused(DownloadError, get_json_bytes, f"{site.url}/bad", headers={}) == (
            f"{site.url.removeprefix('http://')} redirects to 'http://[x/y', which is not a valid URL"
        )


def test_a_redirect_is_checked_as_the_first_address_is(site: Site, tmp_path: Path) -> None:
    site.redirects = {"/net": "http://files.example/x", "/s": "https://files.example/x", "/ftp": "ftp://127.0.0.1/x"}
    for path, where in (("/net", "http://files.example/x"), ("/ftp", "ftp://127.0.0.1/x")):
        assert refused(DownloadError, get_json_bytes, f"{site.url}{path}", headers={}) == (
            f"{where!r} is not https, so nothing is downloaded from there"
        )
    with offline():
        assert refused(DownloadError, download, f"{site.url}/s", tmp_path / "f") == (
            "https://files.example/x is not on this machine, and nothing is fetched while offline: unset FIRSTHAND_OFFLINE, "
            "or put the file in its place by hand"
        )
    assert not (tmp_path / "f").exists() and site.paths() == ["/net", "/ftp", "/s"]
    for url, first, safe in (
        ("https://a.b", "https", True), ("https://a.b", "http", True), ("HTTPS://a.b", "http", True),
        ("https://", "https", False),
        ("http://localhost:1/x", "http", True), ("http://[::1]/x", "http", True), ("http://127.0.0.1", "https", False),
        ("http://localhost.example", "http", False), ("file:///x", "http", False), ("https:a.b", "https", False),
        ("http://127.1.1.1", "http", True), ("//a.b", "https", False), ("", "http", False),
    ):  # fmt: skip
        if safe:
            _expect_safe(url, first)
        else:
            assert refused(DownloadError, _expect_safe, url, first) == (
                f"{url!r} is not https, so nothing is downloaded from there"
            )
    assert refused(DownloadError, _expect_safe, f"ftp://{'x' * 300}", "http").startswith(f"'ftp://{'x' * 194}' is not")


def test_either_variable_makes_it_offline_and_neither_hides_the_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one, other, expected in (("0", "1", True), ("yes", "no", True), ("FALSE", "", False), ("nO", "False", False),
                                 (" ", "0", True), ("off", "", True)):  # fmt: skip
        monkeypatch.setenv("FIRSTHAND_OFFLINE", one)
        monkeypatch.setenv("HF_HUB_OFFLINE", other)
        assert is_offline() is expected, (one, other)
    for url in ("http://LOCALHOST:1/x", "http://[::1]:9", "http://127.255.255.255/", site.url):
        expect_online(url, "a", "b")
    for url in ("/no/host", "https://[::2]/", "https://1127.0.0.1", "https://127.0.0.1000"):
        assert refused(DownloadError, expect_online, url, "a", "b") == (
            "a is not on this machine, and nothing is fetched while offline: b"
        )
    assert not is_local("127.0.0.1.5") and not is_local("localhost ") and is_local("127.0.0.001")


def test_a_file_of_several_mebibytes_is_hashed_whole(tmp_path: Path) -> None:
    body = bytes(1 << 20) + b"x" * ((1 << 20) + 5)
    file = tmp_path / "f"
    file.write_bytes(body)
    git = hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()
    verify(file, sha256=None, git_hash=git, size_bytes=len(body), what="w")
    verify(file, sha256=sha(body), git_hash="no", size_bytes=None, what="w")
    for wrong in (body[:-1], body + b"x"):
        file.write_bytes(wrong)
        said = refused(DownloadError, verify, file, sha256=None, git_hash=git, size_bytes=None, what="w")
        assert said == "w gave a file that is not the one the hub lists, so it was not kept"


def test_what_stands_at_the_target_or_its_part_is_replaced_and_an_error_leaves_the_target(
    site: Site, tmp_path: Path
) -> None:
    site.files["/f"] = BODY
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"0123")
    for name in ("f", "f.part"):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / name).symlink_to(elsewhere)
        assert download(f"{site.url}/f", tmp_path / "d" / "f", sha256=sha(BODY)).read_bytes() == BODY
        assert site.asked.pop() == ("/f", None, None) and elsewhere.read_bytes() == b"0123"
        assert tree(tmp_path / "d") == {"f": BODY} and not (tmp_path / "d" / "f").is_symlink()
        (tmp_path / "d" / "f").unlink()
    (tmp_path / "g").write_bytes(b"old")
    (tmp_path / "g.part").write_bytes(b"012345678")
    told: list[Any] = []
    download(f"{site.url}/f", tmp_path / "g", git_hash=hashlib.sha1(b"blob 10\0" + BODY).hexdigest(),
             on_progress=lambda *each: told.append(each))  # fmt: skip
    assert tree(tmp_path)["g"] == BODY and site.asked[-1][1] == "bytes=9-" and told == [(10, 10)]
    assert "g.part" not in tree(tmp_path) and _size(tmp_path / "g.part") == 0 and _size(tmp_path / "g") == 10
    (tmp_path / "folder").mkdir()
    assert refused(DiskError, download, f"{site.url}/f", tmp_path / "folder", size_bytes=10).startswith(
        f"{tmp_path / 'folder'} cannot be written (Is a directory): make it writable"
    )
    with pytest.raises(DiskError) as told_by, disk_errors(tmp_path):
        raise OSError("no number")
    assert str(told_by.value) == (
        f"{tmp_path} cannot be written (no number): make it writable, or set FIRSTHAND_HOME to a place that is"
    )
    with pytest.raises(DownloadError, match=r"^mine$"), disk_errors(tmp_path):
        raise DownloadError("mine")
    for number in (errno.ENOSPC, errno.EROFS):
        with pytest.raises(DiskError) as full, disk_errors(tmp_path / "x"):
            raise OSError(number, "why")
        assert str(full.value).startswith(f"{tmp_path / 'x'} cannot be written (why): ")
        assert str(full.value).endswith(": free some space and try again") == (number == errno.ENOSPC)
    move_into_place(tmp_path / "d", tmp_path / "e")
    assert (tmp_path / "e").is_dir() and not (tmp_path / "d").exists()


def test_a_part_that_does_not_belong_is_fetched_anew_once_and_then_the_file_is_refused(
    site: Site, tmp_path: Path
) -> None:
    site.files["/f"] = BODY
    (tmp_path / "f.part").write_bytes(b"other")
    wrong = sha(b"another")
    assert refused(DownloadError, download, f"{site.url}/f", tmp_path / "f", sha256=wrong) == (
        f"{site.url}/f gave a file with SHA-256 {sha(BODY)}: {wrong} was expected, so it was not kept"
    )
    assert [span for _, span, _ in site.asked] == ["bytes=5-", None] and tree(tmp_path) == {}
    site.cut_after, site.asked[:] = [3], []
    assert download(f"{site.url}/f", tmp_path / "f", size_bytes=10).read_bytes() == BODY
    assert [span for _, span, _ in site.asked] == [None, None], "without a hash no half is gone on with"


@pytest.mark.slow
def test_every_request_of_a_pull_bears_the_token_and_every_file_is_checked_by_the_hash_it_has(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    blob = hashlib.sha1(b"blob 3\0MIT").hexdigest()
    entries = [
        {"rfilename": "m.gguf", "size": 10, "lfs": {"sha256": sha(BODY)}, "blobId": "0" * 40},
        {"rfilename": "LICENSE", "size": 3, "blobId": blob}, {"rfilename": "LICENSE.txt", "size": 3},
    ]  # fmt: skip
    listed, files = "/api/models/o/n/revision/v1", f"/o/n/resolve/{COMMIT}"
    site.files |= {
        listed: json.dumps({"sha": COMMIT, "siblings": entries}).encode(), f"{files}/m.gguf": BODY,
        f"{files}/LICENSE": b"GPL", f"{files}/LICENSE.txt": b"any",
    }  # fmt: skip
    repo, folder = Repo("o/n", "v1"), tmp_path / "n@v1"
    said = f"{site.url}{files}/LICENSE gave a file that is not the one the hub lists, so it was not kept"
    assert refused(DownloadError, fetch_repo, repo, folder) == said and not folder.exists()
    assert tree(tmp_path / f".n@v1.{COMMIT[:12]}.part") == {"m.gguf": BODY}, "what is right is kept for the next pull"
    site.files[f"{files}/LICENSE"] = b"MIT"
    told: list[Any] = []
    assert fetch_repo(repo, folder, on_progress=lambda *each: told.append(each)) == folder
    assert site.asked == [(path, None, "Bearer hf_x") for path in (
        listed, f"{files}/m.gguf", f"{files}/LICENSE", listed, f"{files}/LICENSE", f"{files}/LICENSE.txt",
    )]  # fmt: skip
    assert told == [(13, 16), (16, 16)] and json.loads((folder / "firsthand.json").read_text()) == {
        "name": "hf:o/n@v1", "commit": COMMIT, "files": {"m.gguf": 10, "LICENSE": 3, "LICENSE.txt": 3},
        "unverified": ["LICENSE.txt"],
    }  # fmt: skip
    (tmp_path / "f").write_bytes(b"MIT")
    made = download(f"{site.url}{files}/m.gguf", tmp_path / "f", sha256=sha(BODY), git_hash=blob)
    assert made.read_bytes() == BODY, "the SHA-256 counts where there are both"
    made = download(f"{site.url}{files}/LICENSE", tmp_path / "f", git_hash=blob)
    assert made.read_bytes() == b"MIT" and len(site.asked) == 8, "another file stood there"


def test_a_certificate_file_or_a_proxy_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / "none.pem").write_text("no certificate")
    for name, value in (
        ("SSL_CERT_FILE", str(tmp_path / "missing.pem")), ("SSL_CERT_FILE", str(tmp_path / "none.pem")),
        ("HTTPS_PROXY", "gopher://127.0.0.1:1"),
    ):  # fmt: skip
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            said = refused(DownloadError, _client, 1.0)
        assert said.startswith("nothing can be downloaded (") and said.endswith(
            "): check SSL_CERT_FILE and the proxy variables"
        )
    with monkeypatch.context() as patched:
        for module in ("socksio", "httpcore._sync.socks_proxy"):
            patched.setitem(sys.modules, module, None)
        patched.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
        said = refused(DownloadError, _client, 1.0)
    assert said.startswith("nothing can be downloaded (Using SOCKS proxy"), "a package of httpx's is missing"
    assert said.endswith("): check SSL_CERT_FILE and the proxy variables")
    with _client(7.5) as client:
        assert (client.timeout.read, client.timeout.connect, client.follow_redirects) == (7.5, 5.0, False)


def test_each_library_has_its_own_setting_again_after_it_was_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {}
    for name, value in (("huggingface_hub.constants", 0), ("datasets.config", "auto")):
        package = name.partition(".")[0]
        for each in (package, name):
            made = ModuleType(each)
            made.__spec__ = ModuleSpec(each, None)
            monkeypatch.setitem(sys.modules, each, made)
        made.HF_HUB_OFFLINE = value  # type: ignore[attr-defined]
        modules[package] = made

    def settings() -> list[Any]:
        return [modules[name].HF_HUB_OFFLINE for name in ("huggingface_hub", "datasets")]  # type: ignore[attr-defined]

    with libraries_offline():
        assert settings() == [True, True]
        with pytest.raises(KeyError), libraries_offline():
            raise KeyError
        assert settings() == [True, True]
    assert settings() == [0, "auto"]


def test_a_stated_length_is_a_total_with_what_is_here_and_another_one_is_another_file() -> None:
    def total(stated: str | None, have: int = 0, size: int | None = None) -> int | None:
        headers = {} if stated is None else {"content-length": stated}
        return _total(httpx.Response(200, headers=headers), "https://a.b/c", have, size)

    for stated, length in (
        ("0", 0), ("7", 7), ("007", 7), ("1000000000", 10**9), ("999999999999999", 10**15 - 1), ("1000000000000000", None),
        ("", None), (None, None), ("-1", None), ("1e3", None), ("7,7", None), ("0x10", None),
    ):  # fmt: skip
        assert total(stated) == length, stated
        assert total(stated, 5) == (None if length is None else length + 5)
        if length is None:
            assert total(stated, 5, 9) == 9, "only its own list says how long it is"
        else:
            assert total(stated, 5, length + 5) == length + 5
            for other in (length + 4, length + 6):
                with pytest.raises(DownloadError) as error:
                    total(stated, 5, other)
                assert str(error.value) == (
                    f"https://a.b/c offers {length + 5} bytes instead of {other}, so it is another file and was not "
                    "downloaded"
                )
    with pytest.raises(DownloadError, match=r"^https://a\.b/c offers 7 bytes instead of 0, "):
        total("7", 0, 0)
    assert total(None, 0, 0) == 0 and total("0", 0, 0) == 0


def test_a_relative_redirect_is_of_the_host_and_folder_that_sent_it(site: Site, tmp_path: Path) -> None:
    with serve() as other, httpx.Client() as client:
        site.redirects = {"/a/b": "c", "/x": f"{other.url}/one/two"}
        site.files |= {"/a/c": b"site", "/one/three": b"wrong", "/four": b"wrong", "/three": b"wrong"}
        other.redirects = {"/one/two": "three", "/one/three": "../four", "/four": "/five?q=1"}
        other.files["/five"] = b"other"
        for path, body, last in (("/a/b", b"site", f"{site.url}/a/c"), ("/x", b"other", f"{other.url}/five?q=1")):
            with _open(client, f"{site.url}{path}", {"Authorization": "t"}) as response:
                assert (response.read(), str(response.url)) == (body, last)
        assert site.asked == [("/a/b", None, "t"), ("/a/c", None, "t"), ("/x", None, "t")]
        assert other.asked == [(path, None, None) for path in ("/one/two", "/one/three", "/four", "/five")]
