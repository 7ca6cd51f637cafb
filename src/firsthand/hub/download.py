"""Downloads one file: resumed, verified by checksum, and moved into place whole or not at all.

A partial download is resumed only if a checksum will verify the result; that is stronger than an ETag, so ETags are not
kept. Locking is left to the caller, and the choice of files to `hf_repository.py`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from firsthand.errors import DataError, DownloadError, reason_of
from firsthand.hub.offline import expect_online, is_local
from firsthand.system.exchange_deadline import exchange_deadline
from firsthand.system.normalised_text import has_long_marks

if TYPE_CHECKING:
    import httpx

OnProgress = Callable[[int, int | None], object]
"""Called with the bytes done, and the total if known."""

MAX_UNKNOWN_BYTES = 1 << 26
"""Most bytes of a file whose size is unknown."""
CONNECT_TIMEOUT_S = 5.0
HEAD_S = 60.0
"""For the headers of an answer, whatever comes before them."""
DOCUMENT_S = 60.0
"""For the body of a small document, however steadily it comes."""
_SLOWEST_BYTES_PER_S = 1024
_TRIES = 4
_HEADWAY_BYTES = 1 << 20  # a try that gained this much does not count: long downloads may break often
_REDIRECTS = 5


class DiskError(DownloadError):
    """The disk is full or not writable: another source would not help."""


class _ConnectionLost(Exception):
    """The connection ended early; the next try resumes."""


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    git_hash: str | None = None,
    size_bytes: int | None = None,
    headers: Mapping[str, str] | None = None,
    read_timeout_s: float = 30.0,
    on_progress: OnProgress = lambda done, total: None,
) -> Path:
    """Download `url` to `target` and return it; DownloadError if that fails or a checksum does not match.

    `git_hash` is git's hash of a blob. An `Authorization` header is sent to the host of `url` only, never to a
    redirect's host. A target that is there is kept if it is the file that was asked for; links are replaced, not followed.
    """
    part = target.with_name(target.name + ".part")
    tries, furthest, reason = _TRIES, 0, ""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for each in (part, target):
            if each.is_symlink():
                each.unlink()
        if target.exists():
            try:
                verify(target, sha256=sha256, git_hash=git_hash, size_bytes=size_bytes, what=str(target))
            except DownloadError:
                target.unlink()
        while tries and not target.exists():
            if sha256 is None and git_hash is None:
                part.unlink(missing_ok=True)  # without a checksum nothing shows whether the halves belong together
            resumed = _size(part) > 0
            try:
                _fetch(url, part, size_bytes, headers or {}, read_timeout_s, on_progress)
            except _ConnectionLost as broken:
                gained, furthest = _size(part) - furthest, max(furthest, _size(part))
                tries, reason = (_TRIES if gained >= _HEADWAY_BYTES else tries - 1), str(broken)
                time.sleep(0.1 * (_TRIES - tries))
                continue
            try:
                verify(part, sha256=sha256, git_hash=git_hash, size_bytes=size_bytes, what=url)
            except DownloadError as error:
                part.unlink(missing_ok=True)
                if not resumed:
                    raise
                tries, reason = tries - 1, str(error)
                continue
            move_into_place(part, target)
        if not target.exists():
            raise DownloadError(f"{_host(url)} broke off {_TRIES} times ({reason}): try again to go on from there")
    return target


def verify(file: Path, *, sha256: str | None, git_hash: str | None = None, size_bytes: int | None, what: str) -> None:
    """Raise DownloadError unless the file has this size and these hashes, where given.

    `git_hash` has 40 digits (SHA-1) or 64: SHA-256, as git has it of a blob or, from some mirrors, of the bytes alone.
    """
    found_bytes = file.stat().st_size
    if size_bytes is not None and found_bytes != size_bytes:
        raise DownloadError(f"{what} gave {found_bytes} bytes instead of {size_bytes}: try again")
    if sha256 is not None:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            raise DownloadError(f"{what} gave a file with SHA-256 {found}: {sha256} was expected, so it was not kept")
    elif git_hash is not None:
        header = f"blob {found_bytes}\0".encode()
        digests = [hashlib.sha256(header), hashlib.sha256()]
        if len(git_hash) == 40:
            digests = [hashlib.sha1(header, usedforsecurity=False)]
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                for digest in digests:
                    digest.update(chunk)
        if git_hash not in [digest.hexdigest() for digest in digests]:
            raise DownloadError(f"{what} gave a file that is not the one the hub lists, so it was not kept")


def delete(path: Path) -> None:
    """Delete a file, a folder with all that is in it, or a link, and never what the link leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def move_into_place(part: Path, target: Path) -> None:
    """Rename a finished file or folder to `target`, durably: it survives a crash."""
    _sync(part)
    part.replace(target)
    _sync(target.parent)


def get_json_bytes(url: str, *, headers: Mapping[str, str], max_bytes: int = 1 << 24) -> bytes:
    """Returns the body of a small document."""
    with _client(30.0) as client, _http_errors(url), _open(client, url, headers) as response:
        _check_status(response, url)
        body = bytearray()
        try:
            with exchange_deadline(client, response.request.url, DOCUMENT_S):
                for chunk in _chunks(response, 30.0):
                    body += chunk
                    if len(body) > max_bytes:
                        raise DownloadError(f"{url} gave more than {max_bytes} bytes: a short list was expected")
        except _ConnectionLost as broken:
            raise DownloadError(f"{url} broke off ({broken}): try again later") from None
        return bytes(body)


def expect_reachable(url: str, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
    """Raise DownloadError unless the host answers within this time.

    A socket timeout does not cover the DNS lookup, and restarts for each address, which adds up offline.
    """
    outcome: list[DownloadError | None] = []

    def ask() -> None:
        try:
            with _client(timeout_s) as client, _http_errors(url), _open(client, url, {}, method="HEAD"):
                outcome.append(None)
        except DownloadError as error:
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome:
        raise DownloadError(f"{_host(url)} did not answer within {timeout_s:g} s: check the network or the proxy")
    if outcome[0] is not None:
        raise outcome[0]


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Raises DiskError with advice for file system errors inside the context."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "free some space and try again" if full else "make it writable, or set FIRSTHAND_HOME to a place that is"
        raise DiskError(f"{target} cannot be written ({error.strerror or error}): {hint}") from None


def _fetch(
    url: str, part: Path, size: int | None, headers: Mapping[str, str], timeout_s: float, on_progress: OnProgress
) -> None:
    """Append the missing bytes of the file to `part`. _ConnectionLost if the connection ends early."""
    have = _size(part)
    if size is not None and have >= size:
        if have == size > 0:
            return
        part.unlink(missing_ok=True)
        have = 0
    asked = {**headers} | ({"Range": f"bytes={have}-"} if have else {})
    with _client(timeout_s) as client, _http_errors(url, part), _open(client, url, asked) as response:
        is_part = response.status_code == 206
        if response.status_code == 416 or (is_part and not (have and _is_continuation(response, have, size))):
            part.unlink(missing_ok=True)
            raise _ConnectionLost("it could not go on where it broke off")
        _check_status(response, url)
        have = have if is_part else 0
        total = _total(response, url, have, size)
        _expect_room(part, (total or 0) - have)
        with part.open("ab" if have else "wb") as file:
            for chunk in _chunks(response, timeout_s):
                have += len(chunk)
                if have > (most := MAX_UNKNOWN_BYTES if total is None else total):
                    file.truncate(0)
                    raise DownloadError(f"{url} gives more than the {most} bytes expected")
                file.write(chunk)
                on_progress(have, total)
    if total is not None and have < total:
        raise _ConnectionLost(f"{have} of {total} bytes came")


def _chunks(response: httpx.Response, timeout_s: float) -> Iterator[bytes]:
    """Yields the body as it arrives; _ConnectionLost if it is too slow."""
    started, received = time.monotonic(), 0
    for chunk in response.iter_raw():  # with a chunk size it would wait until that much has come
        received += len(chunk)
        elapsed = time.monotonic() - started
        if elapsed > timeout_s and received < elapsed * _SLOWEST_BYTES_PER_S:
            raise _ConnectionLost(f"{received} bytes in {elapsed:.0f} s")
        yield chunk


def _client(read_timeout_s: float) -> httpx.Client:
    import httpx

    try:
        return httpx.Client(timeout=httpx.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S), follow_redirects=False)
    except (OSError, ValueError, ImportError) as error:
        raise DownloadError(
            f"nothing can be downloaded ({reason_of(error)}): check SSL_CERT_FILE and the proxy variables"
        ) from None


@contextmanager
def _open(
    client: httpx.Client, url: str, headers: Mapping[str, str], *, method: str = "GET"
) -> Iterator[httpx.Response]:
    """Yields the response after redirects, each of which is checked."""
    origin = urlsplit(url)[:2]
    for _ in range(_REDIRECTS + 1):
        _expect_safe(url, origin[0])
        expect_online(url, url[:200], "unset FIRSTHAND_OFFLINE, or put the file in its place by hand")
        sent = {k: v for k, v in headers.items() if k.lower() != "authorization" or urlsplit(url)[:2] == origin}
        with ExitStack() as stack:
            request = client.build_request(method, url, headers={**sent, "Accept-Encoding": "identity"})
            with exchange_deadline(client, request.url, HEAD_S):
                response = client.send(request, stream=True)
            stack.callback(response.close)
            if not response.is_redirect:
                yield response
                return
            url = _joined(url, response.headers.get("location", ""))
    raise DownloadError(f"{origin[1]} redirects more than {_REDIRECTS} times")


def _joined(url: str, location: str) -> str:
    try:
        if has_long_marks(location):
            raise ValueError
        return urljoin(url, location)
    except ValueError:
        raise DownloadError(f"{_host(url)} redirects to {location[:200]!r}, which is not a valid URL") from None


def _expect_safe(url: str, first_scheme: str) -> None:
    """Raise DownloadError unless the URL is https, or plain http on this machine, to which no https URL may redirect."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise DownloadError(f"{url[:200]!r} is not a valid URL") from None
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" == first_scheme and is_local(host))):
        raise DownloadError(f"{url[:200]!r} is not https, so nothing is downloaded from there")


@contextmanager
def _http_errors(url: str, part: Path | None = None) -> Iterator[None]:
    """Raises DownloadError for network errors; with a `part`, _ConnectionLost for one during the transfer."""
    import httpx

    try:
        yield
    except httpx.InvalidURL as error:
        raise DownloadError(f"{url[:200]!r} leads to an invalid URL: {error}") from None
    except DataError as error:
        if part is None:
            raise DownloadError(f"{_host(url)} does not answer ({error}): try again later, or another mirror") from None
        raise _ConnectionLost(str(error)) from None
    except httpx.HTTPError as error:
        if part is None or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            raise DownloadError(
                f"{_host(url)} cannot be reached ({type(error).__name__}): check the network or the proxy"
            ) from None
        raise _ConnectionLost(type(error).__name__) from None


def _check_status(response: httpx.Response, url: str) -> None:
    status = response.status_code
    hints = {
        401: "it needs a login: set HF_TOKEN",
        403: "access denied: set HF_TOKEN, and accept the model's terms on its page",
        404: "there is no such model, file or revision (or it is private: set HF_TOKEN)",
        429: "too many requests: try again later",
    }
    if status not in (200, 206):
        raise DownloadError(f"{url} answered {status}: {hints.get(status, 'try again later')}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise DownloadError(f"{url} sent compressed content that was not requested: check the proxy")


def _is_continuation(response: httpx.Response, have: int, size: int | None) -> bool:
    """True if a partial response continues our part of the same file."""
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("content-range", ""))
    return match is not None and int(match[1]) == have and (size is None or match[2] in ("*", str(size)))


def _total(response: httpx.Response, url: str, have: int, size: int | None) -> int | None:
    stated = response.headers.get("content-length", "")
    found = have + int(stated) if re.fullmatch(r"\d{1,15}", stated) else None
    if size is not None and found is not None and found != size:
        raise DownloadError(
            f"{url} offers {found} bytes instead of {size}, so it is another file and was not downloaded"
        )
    return size if size is not None else found


def _expect_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise DiskError(f"{part.parent} has {free >> 20} MiB free, but {needed >> 20} MiB are needed: free some space")


def _host(url: str) -> str:
    return urlsplit(url).netloc or url


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
