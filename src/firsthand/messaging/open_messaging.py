"""Opens a blackboard and a message bus by their address: a file, `redis://HOST:PORT/0` or `nats://HOST:PORT`."""

from __future__ import annotations

from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.messaging.nats_messaging import NatsMessaging
from firsthand.messaging.redis_messaging import RedisMessaging
from firsthand.messaging.sqlite_messaging import SqliteMessaging

Messaging = SqliteMessaging | RedisMessaging | NatsMessaging


def open_messaging(address: str) -> Messaging:
    """The store at an address; a file is made where it is not there. ConfigError for an address of another kind."""
    scheme, mark, _ = address.partition("://")
    if not mark:
        return SqliteMessaging(Path(address))
    if scheme in ("redis", "rediss"):
        return RedisMessaging(address)
    if scheme in ("nats", "tls"):
        return NatsMessaging(address)
    raise ConfigError(f"{scheme}:// is no store of messages: give a file, redis://HOST:PORT/0 or nats://HOST:PORT")
