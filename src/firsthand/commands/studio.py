"""Open the Studio: every run, attempt, comparison and curve in the browser, live while runs go on."""

from __future__ import annotations

import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.system.home import data_home
from firsthand.system.terminal import console

EXAMPLES = """
firsthand studio
firsthand studio --port 8900 --no-open
firsthand studio --home /data/firsthand
"""


@dataclass(frozen=True)
class Config:
    """The address of the Studio, and the folder it shows."""

    port: int = 0
    """The port; 0 takes any free one."""
    home: Path | None = None
    """The data home whose runs are shown; by default the one that all commands use."""
    open: bool = True
    """Open a browser."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port is {self.port}: give 0 (any free one) to 65535")
        if self.home is not None and not self.home.is_dir():
            raise ConfigError(f"no folder {str(self.home)!r}: give a data home, which holds a folder `runs`")


def main(config: Config) -> int:
    """Serve until Ctrl-C."""
    try:
        import uvicorn

        from firsthand.studio.access import Access
        from firsthand.studio.studio_app import create_app
    except ImportError:
        raise ConfigError("the Studio needs its extra: pip install 'firsthand[studio]'") from None
    listening = _listen(config.port)
    access = Access()
    access.port = listening.getsockname()[1]
    app = create_app(config.home or data_home(), access)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            loop="asyncio",
            http="h11",
            access_log=False,
            log_level="critical",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=32 << 10,
        )
    )
    out = console()

    def tell() -> str:
        url = f"http://127.0.0.1:{access.port}/enter?code={access.new_code()}"
        out.print(f"The Studio: {url}", soft_wrap=True, markup=False, highlight=False)
        return url

    url = tell()
    out.print("This address opens one browser; press Enter for another, Ctrl-C to stop.", markup=False)
    if config.open:
        _browse(url)
    if sys.stdin is not None and sys.stdin.isatty():
        threading.Thread(target=_tell_on_enter, args=(tell,), daemon=True).start()
    server.run(sockets=[listening])
    return 0


def _listen(port: int) -> socket.socket:
    """A socket on the loopback address."""
    # asyncio sends at once only where TCP is named: else each page waits 40 ms for an acknowledgement
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"127.0.0.1:{port} cannot be opened: {error.strerror or error}; give another --port"
        ) from None
    return listening


def _browse(url: str) -> None:
    """Open a browser, if there is one that is not of the terminal."""
    import os
    import webbrowser

    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _tell_on_enter(tell: object) -> None:
    for _ in sys.stdin:
        tell()  # type: ignore[operator]
