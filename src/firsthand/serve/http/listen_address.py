"""The address that a server listens on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from firsthand.errors import ConfigError


@dataclass(frozen=True)
class ListenAddress:
    """Host and port, and a certificate for TLS."""

    host: str = "127.0.0.1"
    """The address to listen on. One that other machines can reach needs API keys."""
    port: int = 8000
    """The port; 0 takes any free one."""
    tls_cert: Path | None = None
    """A TLS certificate chain in PEM."""
    tls_key: Path | None = None
    """The certificate's private key in PEM."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port is {self.port}: give 0 (any free one) to 65535")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("TLS needs both a certificate and its private key: give --tls-cert and --tls-key")
        for path in (self.tls_cert, self.tls_key):
            if path is not None and not path.is_file():
                raise ConfigError(f"no file {str(path)!r}: give the path of a PEM file")
