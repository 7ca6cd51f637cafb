"""Connects to a NATS server; one that `tls://` names is told nothing in clear text, and subjects may hold any bytes.

nats-py goes over to TLS only if the server's first message, which is not encrypted, asks for it. Somebody on the way could
leave that out, and would be sent the user's password. It also stops reading for good at a subject or a header that is no
UTF-8, which any publisher can send.
"""

from __future__ import annotations

import asyncio
from typing import Any


async def connected(url: str, **options: Any) -> Any:
    """Returns the nats-py client that is connected to `url`; an error of nats-py if it offers no TLS and should."""
    from nats.aio.client import Client
    from nats.errors import Error, NoServersError

    class Careful(Client):
        """Asks for TLS before each CONNECT, the first one and those after a broken connection; reads any subject."""

        refusal: Error | None = None

        def _connect_command(self) -> bytes:
            server: Any = self._current_server
            writer: Any = getattr(self._transport, "_io_writer", None)
            if server.uri.scheme == "tls" and (writer is None or writer.get_extra_info("ssl_object") is None):
                if writer is not None:
                    writer.close()
                self.refusal = Error(
                    "it offers no TLS, so it was told no password: nats:// would send that in clear text"
                )
                raise self.refusal
            return bytes(super()._connect_command())

        def _build_message(self, sid: int, subject: bytes, *rest: Any) -> Any:
            return super()._build_message(sid, subject.decode("utf-8", "replace").encode(), *rest)

        async def _process_headers(self, headers: Any) -> Any:
            try:
                return await super()._process_headers(headers)
            except ValueError:  # another program's
                return None

    client = Careful()
    try:
        await client.connect(url, **options)
    except NoServersError:
        raise client.refusal or NoServersError from None
    except asyncio.CancelledError:
        await client.close()
        raise
    return client
