"""Serves the sites of errands on loopback, as the only proxy that the browser may use.

The browser sends every request to this proxy, whatever the address. The proxy answers those to `http://HOST.site.test/`
whose host is a visit that is open now; anything else, tunnels included, gets 403. So the browser reaches no other
address, not even another port of this machine.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from firsthand.worlds.browsing.site import Answer, Site

DOMAIN = "site.test"
MAX_BODY = 64 << 10
TIMEOUT_S = 10.0


class SiteServer:
    """A proxy on a free port of loopback, for any number of visits."""

    def __init__(self) -> None:
        """Start to serve, in a thread of its own."""
        self._visits: dict[str, Site] = {}
        self.refused = 0
        """Requests to other addresses."""
        self._server = _QuietServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="site server", daemon=True).start()

    @property
    def port(self) -> int:
        """The port of the proxy."""
        return int(self._server.server_address[1])

    def begin(self, visit: Site) -> str:
        """Serve a visit; returns the address of its first page."""
        host = f"{secrets.token_hex(8)}.{DOMAIN}"
        self._visits[host] = visit
        return f"http://{host}{visit.first}"

    def end(self, address: str) -> None:
        """Stop to serve a visit."""
        self._visits.pop(urlsplit(address).netloc, None)

    def visit(self, host: str) -> Site | None:
        """The visit of a host; None if there is none."""
        return self._visits.get(host)

    def close(self) -> None:
        """Stop to serve."""
        self._server.shutdown()
        self._server.server_close()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a connection that the browser has dropped."""


def _handler(site: SiteServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = TIMEOUT_S
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "0")
            if not length.isdigit() or int(length) > MAX_BODY:
                self.close_connection = True
                return self._send(Answer(413, b"too much"))
            form = dict(parse_qsl(self.rfile.read(int(length)).decode("utf-8", "replace"), keep_blank_values=True))
            self._answer(form)

        def _answer(self, form: Mapping[str, str] | None) -> None:
            asked = urlsplit(self.path)
            visit = site.visit(asked.netloc) if asked.scheme == "http" else None
            if visit is None:
                return self._refuse()
            given = dict(parse_qsl(asked.query)) if form is None else form
            self._send(visit.answer("GET" if form is None else "POST", asked.path, given))

        def _refuse(self) -> None:
            site.refused += 1
            self.close_connection = True
            self._send(Answer(403, b"This browser reaches its own site alone."))

        do_CONNECT = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = _refuse  # noqa: N815

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("Cache-Control", "no-store")
            if answer.location:
                self.send_header("Location", answer.location)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing: the visit keeps what matters."""

    return Handler
