"""Settings of the A2A door."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from firsthand.errors import ConfigError

MAX_VALUES = 50_000
"""The most values of one request, in JSON or protobuf: half a second, in which the SDK alone has the event loop."""


@dataclass(frozen=True)
class A2ASettings:
    """Settings of the A2A door."""

    grpc_port: int | None = None
    """The port of gRPC on the same host; 0 takes any free one, and without it there is no gRPC."""
    webhook_allow: str = ""
    """Addresses that webhooks may have besides public ones: networks and host names with + between them."""
    webhook_ports: str = "80+443"
    """Ports that webhooks may have, with + between them."""
    card_key: Path | None = None
    """A private key of curve P-256 in PEM that signs the card."""
    card_key_id: str = "firsthand"
    """The key's id in the card's signature."""
    public_url: str = ""
    """The URL that clients reach the server by, for the card, where a proxy stands before it."""

    def __post_init__(self) -> None:
        if self.grpc_port is not None and not 0 <= self.grpc_port < 65536:
            raise ConfigError(f"grpc_port is {self.grpc_port}: give 0 (any free one) to 65535")
