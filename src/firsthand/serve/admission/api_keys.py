"""API keys: the clients of a server and their limits. Keys are kept as SHA-256 digests and compared in constant time.

A file of keys is TOML, a table for each client:

    [alice]
    key = "a secret of 16 characters or more"
    concurrency = 4
    max_tokens = 512
    load_adapters = true

`load_adapters` lets a client load and unload adapters, if the server has a folder of them. `sha256 = "..."` (hex) replaces
`key` where the file should not hold it. `$FIRSTHAND_API_KEY` is the key of a client named `env`, the operator, who may load
adapters; without keys anyone may. Both names, `env` and `anyone`, are refused in the file.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from firsthand.errors import ConfigError, nearest
from firsthand.serve.admission.admission_settings import ClientLimits
from firsthand.system.bounded_toml import read_toml_file

MIN_LENGTH = 16
ANYONE, OPERATOR = "anyone", "env"
"""The names of the one client where there are no keys, and of the client whose key is in the environment."""
_MAX_FILE_BYTES = 1 << 20
_ANY_PRIORITY = -1000
"""Without keys there is one client, and nobody before whom it could go."""


@dataclass(frozen=True)
class Client:
    """A client of the server."""

    name: str
    limits: ClientLimits
    digest: bytes = b""
    """SHA-256 of the key."""
    load_adapters: bool = False
    """True if it may load and unload adapters, if the server has a folder of them."""


@dataclass(frozen=True)
class Keys:
    """The clients of a server. Without any, no key is needed."""

    clients: tuple[Client, ...] = ()
    anyone: Client = Client(ANYONE, ClientLimits(min_priority=_ANY_PRIORITY), load_adapters=True)
    """The client of requests to a server without keys."""

    def find(self, authorization: str | None) -> Client | None:
        """The client whose key an Authorization header carries, or None. All keys are compared, for constant time."""
        if not self.clients:
            return self.anyone
        scheme, _, key = (authorization or "").partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found = None
        for client in self.clients:
            if hmac.compare_digest(client.digest, digest):
                found = client
        return found if scheme.lower() == "bearer" else None


def read_keys(path: Path | None, environment: Mapping[str, str], limits: ClientLimits) -> Keys:
    """The clients of a file and of the environment; `limits` are the defaults of their limits."""
    clients = [] if path is None else _read(path, limits)
    if secret := environment.get("FIRSTHAND_API_KEY"):
        clients.append(Client(OPERATOR, limits, _digest(secret.strip(), "FIRSTHAND_API_KEY"), load_adapters=True))
    if len({client.digest for client in clients}) < len(clients):
        raise ConfigError("two clients have the same API key: give each its own")
    anyone = Client(ANYONE, replace(limits, min_priority=_ANY_PRIORITY), load_adapters=True)
    return Keys(tuple(clients), anyone)


def check_loaders(keys: Keys, adapter_root: Path | None) -> None:
    """Raise ConfigError if there is a folder of adapters and no client that may load them."""
    if adapter_root is not None and keys.clients and not any(client.load_adapters for client in keys.clients):
        raise ConfigError(
            f"adapter_root is {str(adapter_root)!r}, and no key may load adapters: write load_adapters = true in the table "
            "of a client that may, or leave adapter_root out"
        )


def _read(path: Path, limits: ClientLimits) -> list[Client]:
    try:
        size = path.stat().st_size
        if size > _MAX_FILE_BYTES:
            raise ConfigError(f"the file of keys {str(path)!r} has {size} bytes: at most {_MAX_FILE_BYTES} are read")
        body = read_toml_file(path)
    except OSError as error:
        raise ConfigError(f"the file of keys {str(path)!r} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):  # its text may hold keys
        raise ConfigError(f"the file of keys {str(path)!r} is not valid TOML") from None
    if not body:
        raise ConfigError(f'the file of keys {str(path)!r} names no client: write [NAME] and key = "..."')
    return [_client(name, table, limits) for name, table in body.items()]


def _client(name: str, table: Any, limits: ClientLimits) -> Client:
    if not isinstance(table, dict) or not re.fullmatch(r"[\w.-]{1,64}", name):
        raise ConfigError(f'{name[:80]!r} in the file of keys is no client: write [NAME] with key = "..." below it')
    if name in (ANYONE, OPERATOR):
        stands_for = "the key in FIRSTHAND_API_KEY" if name == OPERATOR else "all clients of a server without keys"
        raise ConfigError(
            f"the file of keys has a client {name!r}, which stands for {stands_for}: give it another name"
        )
    known = {field.name for field in fields(ClientLimits)}
    own = {key: value for key, value in table.items() if key not in ("key", "sha256", "load_adapters")}
    for key in own:
        if key not in known:
            close = nearest(key, {*known, "key", "sha256", "load_adapters"})
            takes = ", ".join(("key", "sha256", "load_adapters", *sorted(known)))
            hint = f"did you mean {close!r}?" if close else f"it takes {takes}"
            raise ConfigError(f"client {name!r} has a setting {key[:40]!r} that is not known: {hint}")
    may = table.get("load_adapters", False)
    if not isinstance(may, bool):
        raise ConfigError(f"client {name!r} has load_adapters = {may!r:.40}: write true or false")
    key, digest = table.get("key"), table.get("sha256")
    if isinstance(digest, str) and key is None and re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        return Client(name, replace(limits, **own), bytes.fromhex(digest), may)
    if not isinstance(key, str) or digest is not None:
        raise ConfigError(f"client {name!r} needs either key, a text, or sha256, its digest of 64 hex digits")
    return Client(name, replace(limits, **own), _digest(key, f"the key of {name!r}"), may)


def _digest(key: str, what: str) -> bytes:
    if len(key) < MIN_LENGTH or not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(
            f"{what} has {len(key)} characters: give {MIN_LENGTH} or more, letters, digits and signs without blanks, "
            'such as `python -c "import secrets; print(secrets.token_urlsafe())"` prints'
        )
    return hashlib.sha256(key.encode()).digest()
