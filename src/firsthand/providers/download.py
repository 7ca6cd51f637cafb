"""One file from the web onto the disk: resumed where it broke off, checked, and there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from firsthand.errors import DownloadError

if TYPE_CHECKING:
    import httpx

OnProgress = Callable[[int, int | None], object]
"""Called with the bytes that are done, and with the total if it is known."""

MAX_UNKNOWN_BYTES = 1 << 26
"""A file whose size nobody states may have this many bytes."""
_TRIES = 4
_REDIRECTS = 5


class _BrokenOff(Exception):
    """The connection ended early; the next try goes on from there."""


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    git_sha1: str | None = None,
    size_bytes: int | None = None,
    headers: Mapping[str, str] | None = None,
    read_timeout_s: float = 30.0,
    on_progress: OnProgress = lambda done, total: None,
) -> Path:
    """`target`, holding what `url` gives; a DownloadError if that fails or is not what was promised.

    `git_sha1` is git's hash of a blob. `headers` go to the host of `url` only, not where it redirects to. Of two processes
    that download the same file the second waits and finds it there.
    """
    part = target.with_name(target.name + ".part")
    checks = {"sha256": sha256, "git_sha1": git_sha1}
    with _disk_errors(target), locked(target):
        if target.exists():
            return target
        for attempt in range(_TRIES):
            if sha256 is None and git_sha1 is None:
                part.unlink(missing_ok=True)  # nothing would show whether two halves belong together
            try:
                resumed = part.exists() and part.stat().st_size > 0
                _fetch(url, part, size_bytes, headers or {}, read_timeout_s, on_progress)
            except _BrokenOff as broken:
                if attempt == _TRIES - 1:
                    raise DownloadError(f"{_host(url)} broke off {_TRIES} times ({broken}): try again later") from None
                continue
            try:
                verify(part, size_bytes=size_bytes, what=url, **checks)
            except DownloadError:
                part.unlink(missing_ok=True)
                if resumed and attempt < _TRIES - 1:
                    continue
                raise
            land(part, target)
            return target
    raise AssertionError("the last try returns or raises")


def verify(file: Path, *, sha256: str | None, git_sha1: str | None = None, size_bytes: int | None, what: str) -> None:
    """Raise DownloadError unless the file has this size and these hashes, as far as they are given."""
    found_bytes = file.stat().st_size
    if size_bytes is not None and found_bytes != size_bytes:
        raise DownloadError(f"{what} gave {found_bytes} bytes: {size_bytes} were expected")
    if sha256 is not None:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            raise DownloadError(f"{what} gave a file with SHA-256 {found}: {sha256} was expected, so it was thrown away")
    elif git_sha1 is not None:
        digest = hashlib.sha1(f"blob {found_bytes}\0".encode(), usedforsecurity=False)
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != git_sha1:
            raise DownloadError(f"{what} gave a file that is not the one the hub lists, so it was thrown away")


def land(part: Path, target: Path) -> None:
    """Give a finished file (or folder) its name, so that it survives a crash."""
    if part.is_file():
        _sync(part)
    part.replace(target)
    _sync(target.parent)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Be the only one who makes `target`; others wait. The system frees the lock of a process that dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def get_json_bytes(url: str, *, headers: Mapping[str, str], max_bytes: int = 1 << 24) -> bytes:
    """The body of a small document."""
    import httpx

    with _client(30.0) as client:
        try:
            with _open(client, url, dict(headers)) as response:
                _check_status(response, url)
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > max_bytes:
                        raise DownloadError(f"{url} gave more than {max_bytes} bytes: a short list was expected")
                return bytes(body)
        except httpx.HTTPError as error:
            raise _unreachable(url, error) from None


def _fetch(
    url: str, part: Path, size: int | None, headers: Mapping[str, str], timeout_s: float, on_progress: OnProgress
) -> None:
    """Append to `part` what is missing of the file. _BrokenOff if the connection ends early."""
    import httpx

    have = part.stat().st_size if part.exists() else 0
    if size is not None and have >= size:
        if have == size:
            return
        have = 0
    asked = {**headers, "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with _client(timeout_s) as client:
        try:
            with _open(client, url, asked) as response:
                if response.status_code == 416:
                    part.unlink(missing_ok=True)
                    raise _BrokenOff("it could not go on where it broke off")
                _check_status(response, url)
                if have and _begins_at(response) != have:
                    have = 0
                total = _total(response, have, size)
                with part.open("ab" if have else "wb") as file:
                    for chunk in response.iter_raw(1 << 18):
                        have += len(chunk)
                        if have > (MAX_UNKNOWN_BYTES if total is None else total):
                            file.truncate(0)
                            raise DownloadError(f"{url} gives more than the {total or MAX_UNKNOWN_BYTES} bytes expected")
                        file.write(chunk)
                        on_progress(have, total)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _unreachable(url, error) from None
        except httpx.HTTPError as error:
            raise _BrokenOff(type(error).__name__) from None
    if total is not None and have < total:
        raise _BrokenOff(f"{have} of {total} bytes came")


def _client(read_timeout_s: float) -> httpx.Client:
    import httpx

    return httpx.Client(timeout=httpx.Timeout(read_timeout_s, connect=5.0), follow_redirects=False)


@contextmanager
def _open(client: httpx.Client, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
    """The response at the end of the redirects, each of them checked."""
    origin = urlsplit(url).netloc
    for _ in range(_REDIRECTS + 1):
        _expect_safe(url)
        sent = {k: v for k, v in headers.items() if k.lower() != "authorization" or urlsplit(url).netloc == origin}
        with client.stream("GET", url, headers=sent) as response:
            if not response.is_redirect:
                yield response
                return
            url = urljoin(url, response.headers.get("location", ""))
    raise DownloadError(f"{origin} redirects more than {_REDIRECTS} times")


def _expect_safe(url: str) -> None:
    """Raise DownloadError unless the address is https, or plain http on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise DownloadError(f"{url[:200]!r} is no address that can be read") from None
    local = host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise DownloadError(f"{url[:200]!r} is not https, so nothing is fetched from there")


def _check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    hints = {
        401: "it wants a login: set HF_TOKEN",
        403: "it refuses: set HF_TOKEN, and accept the model's terms on its page",
        404: "there is no such model, file or revision (or it is private: set HF_TOKEN)",
        429: "it wants to be asked less often: try again later",
    }
    raise DownloadError(f"{url} answered {status}: {hints.get(status, 'try again later')}")


def _begins_at(response: httpx.Response) -> int:
    match = re.match(r"bytes (\d{1,18})-", response.headers.get("content-range", ""))
    return int(match[1]) if response.status_code == 206 and match else 0


def _total(response: httpx.Response, have: int, size: int | None) -> int | None:
    if size is not None:
        return size
    stated = response.headers.get("content-length", "")
    return have + int(stated) if re.fullmatch(r"\d{1,15}", stated) else None


def _host(url: str) -> str:
    return urlsplit(url).netloc or url


def _unreachable(url: str, error: Exception) -> DownloadError:
    return DownloadError(f"{_host(url)} cannot be reached ({type(error).__name__}): check the network or the proxy")


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space and try again" if full else "make it writable, or set FIRSTHAND_HOME to a place that is"
        raise DownloadError(f"{target} cannot be written ({error.strerror or error}): {hint}") from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
