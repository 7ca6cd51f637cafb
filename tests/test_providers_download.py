import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firsthand.errors import DownloadError
from firsthand.hub.download import DiskError, download, expect_reachable, get_json_bytes
from loopback import serve

BODY = bytes(range(256)) * 4096
SHA = hashlib.sha256(BODY).hexdigest()
GIT_SHA1 = hashlib.sha1(f"blob {len(BODY)}\0".encode() + BODY).hexdigest()


def files_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.slow
def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    with serve() as site:
        site.files["/f"] = BODY
        site.cut_after = [300_000, 300_000]
        got = download(f"{site.url}/f", tmp_path / "f", sha256=SHA, on_progress=lambda d, t: seen.append((d, t)))
        assert [span for _, span, _ in site.asked] == [None, "bytes=300000-", "bytes=600000-"]
    assert got.read_bytes() == BODY and files_in(tmp_path) == ["f"]
    assert seen[-1] == (len(BODY), len(BODY)) and [d for d, _ in seen] == sorted(d for d, _ in seen)


def test_without_a_hash_halves_are_not_joined(tmp_path: Path) -> None:
    with serve() as site:
        site.files["/f"] = BODY
        site.cut_after = [300_000]
        assert download(f"{site.url}/f", tmp_path / "f").read_bytes() == BODY
        assert [span for _, span, _ in site.asked] == [None, None]


@pytest.mark.slow
def test_a_killed_download_goes_on_in_the_next_process(tmp_path: Path) -> None:
    with serve() as site:
        site.files["/f"] = BODY
        site.stall_after = 500_000
        code = (
            "import pathlib, sys; from firsthand.hub.download import download\n"
            f"download(sys.argv[1], pathlib.Path(sys.argv[2]), sha256={SHA!r})"
        )
        part = tmp_path / "f.part"
        process = subprocess.Popen([sys.executable, "-c", code, f"{site.url}/f", str(tmp_path / "f")])
        deadline = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size > 0) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.wait()
        have = part.stat().st_size
        assert not (tmp_path / "f").exists()
        site.stall_after = None
        assert download(f"{site.url}/f", tmp_path / "f", sha256=SHA).read_bytes() == BODY
        assert site.asked[-1][1] == f"bytes={have}-" and have > 0


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * len(BODY), b"x" * (len(BODY) + 1)])
def test_a_damaged_part_is_thrown_away_and_fetched_anew(tmp_path: Path, part: bytes) -> None:
    (tmp_path / "f.part").write_bytes(part)
    with serve() as site:
        site.files["/f"] = BODY
        assert download(f"{site.url}/f", tmp_path / "f", sha256=SHA, size_bytes=len(BODY)).read_bytes() == BODY


@pytest.mark.parametrize("setting", [{"ranges": False}, {"range_shift": 7}])
def test_a_server_that_does_not_go_on_as_asked_is_asked_for_the_whole(tmp_path: Path, setting: dict[str, int]) -> None:
    (tmp_path / "f.part").write_bytes(BODY[:1000])
    with serve() as site:
        site.files["/f"] = BODY
        vars(site).update(setting)
        assert download(f"{site.url}/f", tmp_path / "f", sha256=SHA).read_bytes() == BODY
        assert site.asked[0][1] == "bytes=1000-" and len(site.asked) <= 2


def test_wrong_content_leaves_nothing(tmp_path: Path) -> None:
    with serve() as site:
        site.files["/f"] = BODY
        with pytest.raises(DownloadError, match="SHA-256"):
            download(f"{site.url}/f", tmp_path / "f", sha256="0" * 64)
        with pytest.raises(DownloadError, match="not the one the hub lists"):
            download(f"{site.url}/f", tmp_path / "f", git_hash="0" * 40)
        with pytest.raises(DownloadError, match="offers 1048576 bytes instead of 10"):
            download(f"{site.url}/f", tmp_path / "f", sha256=SHA, size_bytes=10)
        site.lengths = False
        with pytest.raises(DownloadError, match="more than the 10 bytes"):
            download(f"{site.url}/f", tmp_path / "f", size_bytes=10)
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) == 0
        assert download(f"{site.url}/f", tmp_path / "f", git_hash=GIT_SHA1).read_bytes() == BODY


@pytest.mark.slow
@pytest.mark.parametrize("setting", [{"stall_after": 1000}, {"drip": True}])
def test_a_server_that_stalls_or_drips_is_given_up(tmp_path: Path, setting: dict[str, int]) -> None:
    with serve() as site:
        site.files["/f"] = BODY
        vars(site).update(setting)
        started = time.monotonic()
        with pytest.raises(DownloadError, match="broke off 4 times"):
            download(f"{site.url}/f", tmp_path / "f", sha256=SHA, read_timeout_s=0.2)
        assert time.monotonic() - started < 50
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "set HF_TOKEN"), (403, "accept the model's terms"), (404, "no such model"), (429, "later"), (500, "later")],
)
def test_a_refusal_says_what_to_do(tmp_path: Path, status: int, message: str) -> None:
    with serve() as site:
        site.statuses["/f"] = status
        with pytest.raises(DownloadError, match=f"answered {status}.*{message}"):
            download(f"{site.url}/f", tmp_path / "f")


def test_unreachable_and_unsafe_addresses_are_sentences(tmp_path: Path) -> None:
    with serve() as site:
        site.redirects = {
            "/away": "http://example.com/f", "/file": "file:///etc/passwd", "/loop": "/loop", "/odd": "https://[/",
            "/port": "https://127.0.0.1:99999999/", "/blank": "https://a b/",
        }  # fmt: skip
        expected = {"/away": "not https", "/file": "not https", "/loop": "redirects", "/odd": "not a valid URL"}
        expected |= {"/port": "URL|reached", "/blank": "URL|reached"}
        for path, message in expected.items():
            with pytest.raises(DownloadError, match=message):
                download(site.url + path, tmp_path / "f")
        dead = site.url
    for call in (lambda: download(f"{dead}/f", tmp_path / "f"), lambda: expect_reachable(dead)):
        with pytest.raises(DownloadError, match="cannot be reached"):
            call()
    for url in ("http://example.com/f", "ftp://127.0.0.1/f", "f", "http://127.0.0.1.example.com/f"):
        with pytest.raises(DownloadError, match="not https"):
            download(url, tmp_path / "f")


def test_a_host_that_never_answers_is_given_up_in_time() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(DownloadError, match=r"did not answer|cannot be reached"):
            expect_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.3)
        assert time.monotonic() - started < 30


def test_a_token_does_not_follow_a_redirect_to_another_host(tmp_path: Path) -> None:
    with serve() as site, serve() as other:
        site.redirects = {"/f": "/g", "/g": f"{other.url}/f"}
        other.files["/f"] = BODY
        download(f"{site.url}/f", tmp_path / "f", sha256=SHA, headers={"Authorization": "Bearer secret"})
        assert [token for _, _, token in site.asked] == ["Bearer secret", "Bearer secret"]
        assert [token for _, _, token in other.asked] == [None]


@pytest.mark.slow
def test_a_disk_that_is_too_small_is_noticed_before_and_during(tmp_path: Path) -> None:
    with serve() as site:
        site.files["/f"] = BODY
        site.lengths = False
        with pytest.raises(DiskError, match="free some space"):
            download(f"{site.url}/f", tmp_path / "f", sha256=SHA, size_bytes=1 << 49)
        code = (
            "import pathlib, resource, sys; from firsthand.hub.download import download\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
            "download(sys.argv[1], pathlib.Path(sys.argv[2]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, f"{site.url}/f", str(tmp_path / "f")], capture_output=True, text=True
        )
        assert "DiskError" in done.stderr and "free some space" in done.stderr.splitlines()[-1]
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="set FIRSTHAND_HOME"):
        download("http://127.0.0.1:1/f", tmp_path / "file" / "f")
    assert not (tmp_path / "f").exists()


def test_a_document_that_is_too_long_is_refused() -> None:
    with serve() as site:
        site.files["/f"] = BODY
        assert get_json_bytes(f"{site.url}/f", headers={}) == BODY
        with pytest.raises(DownloadError, match="more than 1000 bytes"):
            get_json_bytes(f"{site.url}/f", headers={}, max_bytes=1000)
