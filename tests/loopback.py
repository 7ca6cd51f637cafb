"""A web server on this machine that breaks off, stalls, lies and redirects on demand."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CERTIFICATE = Path(__file__).parent / "data" / "loopback.pem"
"""A certificate for 127.0.0.1, signed by nobody, and its key: for these tests alone."""


@dataclass
class Site:
    """What the server gives, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    cut_after: list[int] = field(default_factory=list)
    """The next answers end after so many bytes."""
    stall_after: int | None = None
    """Answers send so many bytes, and then nothing more until the client has long left."""
    drip: bool = False
    """A few bytes at a time, without end."""
    ranges: bool = True
    partial: int | None = None
    """Answers to whole requests are so many bytes, as a partial answer that nobody asked for."""
    range_total: int | None = None
    """The size of the whole that partial answers state."""
    range_shift: int = 0
    """Partial answers begin so many bytes later than they were asked to."""
    lengths: bool = True
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """Path, Range and Authorization of each GET."""
    url: str = ""

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.asked]


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            path, span = self.path.split("?")[0], self.headers.get("Range")
            site.asked.append((path, span, self.headers.get("Authorization")))
            self.close_connection = True
            if path in site.redirects:
                self.send_response(302)
                self.send_header("Location", site.redirects[path])
                self.end_headers()
            elif path in site.statuses or path not in site.files:
                self.send_error(site.statuses.get(path, 404))
            else:
                self.answer(site.files[path], span if site.ranges else None, path.endswith("/"))

        def answer(self, body: bytes, span: str | None, html: bool) -> None:
            start = int(span[6:-1]) + site.range_shift if span else 0
            cut = site.cut_after.pop(0) if site.cut_after else None  # before a client that leaves at once sets the next
            if site.partial is not None and not span:
                whole, body, span = body, body[: site.partial], "bytes=0-"
                assert len(whole) > len(body)
            self.send_response(206 if span else 200)
            if site.lengths:
                self.send_header("Content-Length", str(len(body) - start))
            if span:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{site.range_total or len(body)}")
            if html:
                self.send_header("Content-Type", "text/html")
            self.end_headers()
            rest = body[start:]
            if site.drip:
                for each in rest:
                    self.wfile.write(bytes([each]))
                    time.sleep(0.02)
            elif site.stall_after is not None:
                self.wfile.write(rest[: site.stall_after])
                self.wfile.flush()
                time.sleep(60)
            else:
                self.wfile.write(rest[:cut])

        def handle(self) -> None:
            with suppress(OSError):  # the client has left
                super().handle()

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@contextmanager
def serve(*, tls: bool = False) -> Iterator[Site]:
    """With `tls` it is https, and the certificate is CERTIFICATE, which a client may be told to trust."""
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(site))
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.block_on_close = False
    server.daemon_threads = True
    site.url = f"http{'s' * tls}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
