"""Fetch a page from the web: GET over http or https, to public addresses, within limits of size, time and redirects.

Each connection, those of redirects too, goes to an address that was checked (`addresses.py`). No cookies, no proxy from the
environment, no credentials, and a body is unpacked no further than its limit. GET changes nothing on a server that keeps to
HTTP, so the effect is `read`; but a URL can carry data away, and where that matters `--approve fetch=ask` asks.
"""

from __future__ import annotations

import asyncio
import codecs
import re
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache

import httpcore
import httpx

from firsthand.declaration import Declaration
from firsthand.errors import ToolError
from firsthand.loop.concurrency import in_thread
from firsthand.system.terminal import printable
from firsthand.system.web_charsets import codec_of, decode_page
from firsthand.tool import Tool, tool_from_function
from firsthand.tools.web.addresses import Resolver, Rules, parse_rules, resolve
from firsthand.tools.web.html import to_text
from firsthand.tools.web.packed_body import PackedBody
from firsthand.tools.web.pinned_backend import PinnedBackend
from firsthand.tools.web.xml_pages import is_xhtml

MAX_BYTES = 2_000_000
"""The most bytes of a body, compressed or not; the rest is not read."""
MAX_REDIRECTS = 5
TOTAL_S = 20.0
"""Seconds for everything together: name lookup, connections, redirects, and the body."""
_MAX_URL = 4_096
_TEXT = re.compile(r"text/.*|application/(?:.*[+.])?(?:json|xml|javascript|ecmascript|yaml|x-ndjson|toml|x-sh|sql)\b.*")
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_XML = re.compile(rb"<\?xml[^>]{1,200}?encoding\s{0,3}=\s{0,3}[\"']([\w.:-]{1,40})")
_META = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([\w.:-]{1,40})", re.IGNORECASE)
_HTML = re.compile(r"text/html|application/xhtml\+xml")


def fetch(*, allow: str = "", ports: str = "80+443") -> Tool:
    """The tool `fetch`. `allow` names networks and hosts that may be reached though not public: `10.0.0.0/8+wiki`."""
    spec = f"fetch:allow={allow}:ports=" if allow else "fetch:ports="
    return fetcher(parse_rules(allow, ports, ports_hint=f"the spec {spec}{{ports}}"))


def fetcher(
    rules: Rules, *, resolver: Resolver = resolve, total_s: float = TOTAL_S, max_bytes: int = MAX_BYTES
) -> Tool:
    """The tool `fetch` under these rules; names are looked up by `resolver`."""

    async def fetch(url: str) -> str:
        """The text of a web page or of another text on the web.

        Args:
            url: The address, with http:// or https://.
        """
        try:
            async with asyncio.timeout(total_s):
                page = await get(url, rules, resolver=resolver, max_bytes=max_bytes)
        except TimeoutError:
            raise ToolError(f"{url[:200]!r} did not come within {total_s:g} s") from None
        return await in_thread(page.readable)  # a big page takes a while to read

    reads = Declaration(authority=("url",), recipients=("url",))
    return tool_from_function(fetch, effect="read", timeout_s=total_s + 10.0, origin="the web", declares=reads)


@dataclass(frozen=True)
class Page:
    """A server's response, after redirects."""

    url: str
    status: int
    content_type: str
    body: bytes
    cut: bool
    """True if the body was longer than what was read, or its packed data ended before its end."""

    def readable(self) -> str:
        """The page as text, after a line that says what it is; ToolError if it is no text."""
        if self.status >= 400:
            raise ToolError(f"{self.url[:200]!r} answers with status {self.status}")
        kind = self.content_type.split(";")[0].strip().lower()
        mark, marked = self.mark()
        if (kind and not _TEXT.fullmatch(kind)) or (not kind and not marked and b"\0" in self.body[:1024]):
            raise ToolError(f"{self.url[:200]!r} is {printable(kind[:80]) or 'of no known kind'}, which is no text")
        text = decode_page(self.body.removeprefix(mark), self.charset(), "replace")
        if _HTML.match(kind) or (not kind and text.lstrip()[:200].lower().startswith(("<!doctype html", "<html"))):
            text = to_text(text, self.url, as_fetched=True, is_xml=is_xhtml(kind))
        note = f"\n[only the first {len(self.body)} bytes were read]" if self.cut else ""
        return f"{self.url}\n\n{text}{note}"

    def mark(self) -> tuple[bytes, str | None]:
        """The byte order mark that the page begins with, and its encoding."""
        return next(((mark, codec) for mark, codec in _MARKS if self.body.startswith(mark)), (b"", None))

    def charset(self) -> str:
        """The encoding that a byte order mark, the headers or the page itself names, if it is one for text; else UTF-8."""
        if (marked := self.mark()[1]) is not None:
            return marked
        if said := re.search(r"charset=[\"']?([\w.:-]{1,40})", self.content_type, re.IGNORECASE):
            return codec_of(said.group(1)) or "utf-8"
        for codec in ("utf-16-le", "utf-16-be"):
            if self.body.startswith("<?x".encode(codec)):
                return codec
        declared = _XML.match(self.body) or _META.search(self.body[:2048])
        named = codec_of(declared.group(1).decode("ascii", "replace"), in_text=True) if declared else None
        return named or ("cp1252" if self.is_in_old_charset() else "utf-8")

    def is_in_old_charset(self) -> bool:
        """True for HTML and plain text that hold other bytes than ASCII, none of them UTF-8: browsers take windows-1252."""
        is_old = re.match(r"text/(html|plain)", self.content_type.strip(), re.IGNORECASE) is not None
        whole = self.body[:-3] if self.cut else self.body  # of a body that was cut the last character may not be whole
        return is_old and not whole.isascii() and whole.decode("utf-8", "ignore").isascii()


async def get(url: str, rules: Rules, *, resolver: Resolver = resolve, max_bytes: int = MAX_BYTES) -> Page:
    """The page at a URL. Every redirect is checked; every failure is a ToolError."""
    here = read_url(url)
    backend = PinnedBackend(rules, resolver)
    try:
        async with httpcore.AsyncConnectionPool(ssl_context=trusted(), network_backend=backend) as pool:
            for _ in range(MAX_REDIRECTS + 1):
                async with _answer(pool, here) as response:
                    headers = {key.lower(): _header(value) for key, value in response.headers}
                    if response.status in (301, 302, 303, 307, 308) and b"location" in headers:
                        here = _next(here, headers[b"location"])
                        continue
                    body, cut = await read_body(response, headers.get(b"content-encoding", ""), max_bytes)
                    return Page(str(here), response.status, headers.get(b"content-type", ""), body, cut)
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError, OSError) as error:
        raise ToolError(f"{str(here)[:200]!r} cannot be fetched: {type(error).__name__}: {str(error)[:200]}") from None
    raise ToolError(f"{url[:200]!r} leads on and on: more than {MAX_REDIRECTS} redirects")


def read_url(text: str) -> httpx.URL:
    """The URL, if it is one that may be fetched: http or https, a host, and no user or password."""
    try:
        if len(text) > _MAX_URL or any(ord(char) < 33 or ord(char) == 127 for char in text.strip()):
            raise ValueError("too long, or with spaces or control characters in it")
        url = httpx.URL(text.strip())
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("http:// or https:// and a host are expected")
        if url.userinfo:
            raise ValueError("a user and password in a URL are not accepted")
        return url.copy_with(fragment=None)
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise ToolError(f"{text[:200]!r} is no URL that can be fetched: {error}") from None


@lru_cache(maxsize=1)
def trusted() -> ssl.SSLContext:
    """The TLS context; loading certificates takes 20 ms, so it is done once."""
    return httpx.create_ssl_context()


def _header(value: bytes) -> str:
    """A header's value: UTF-8, as servers send a Location that is not ASCII, or else ISO-8859-1."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _next(here: httpx.URL, location: str) -> httpx.URL:
    try:
        return read_url(str(here.join(location)))
    except (httpx.InvalidURL, ValueError, UnicodeError):
        raise ToolError(f"{str(here)[:200]!r} leads to {location[:200]!r}, which is no URL") from None


@asynccontextmanager
async def _answer(pool: httpcore.AsyncConnectionPool, url: httpx.URL) -> AsyncIterator[httpcore.Response]:
    headers = [
        (b"host", url.netloc),
        (b"user-agent", b"firsthand"),
        (b"accept", b"text/html, text/*;q=0.9, application/json;q=0.9, */*;q=0.1"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"connection", b"close"),
    ]
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), 10.0)
    async with pool.stream("GET", target, headers=headers, extensions={"timeout": timeouts}) as response:
        yield response


async def read_body(response: httpcore.Response, encoding: str, max_bytes: int) -> tuple[bytes, bool]:
    """At most `max_bytes` of a body, decompressed, and whether there was more, or packed data that ends too early.

    It is never decompressed beyond that.
    """
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise ToolError(f"the page is packed as {encoding[:40]!r}, which is not understood")
    packed = None if encoding in ("", "identity") else PackedBody(encoding)
    body, came = bytearray(), 0
    async for piece in response.aiter_stream():
        came += len(piece)
        try:
            body += piece if packed is None else packed.add(piece, max_bytes + 1 - len(body))
        except zlib.error as error:
            raise ToolError(f"the page is not packed as it says: {error}") from None
        if len(body) > max_bytes or came > max_bytes:
            return bytes(body[:max_bytes]), True
    return bytes(body), packed is not None and not packed.is_whole
