"""Settings of the OpenAI routes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from firsthand.errors import ConfigError


@dataclass(frozen=True)
class OpenAISettings:
    """Settings of the OpenAI routes."""

    stored_responses: int = 1024
    """Responses kept in memory for each key (`store`, `previous_response_id`), the oldest going first; 0 keeps none."""
    stored_bytes: int = 64 << 20
    """Maximum bytes of the responses kept for each key, each with its conversation."""
    private_caches: bool = False
    """Give each key a prefix cache of its own: latencies tell no client what another one sent."""
    adapter_root: Path | None = None
    """Let clients whose key says load_adapters = true load and unload adapters, from within this folder only."""

    def __post_init__(self) -> None:
        if self.adapter_root is not None and not self.adapter_root.is_dir():
            raise ConfigError(f"adapter_root is {str(self.adapter_root)!r}: give a folder that is there")
        for name, value in {"stored_responses": self.stored_responses, "stored_bytes": self.stored_bytes}.items():
            if value < 0:
                raise ConfigError(f"{name} is {value!r}: give 0 or more")
