"""A model that Ollama serves, over its OpenAI-compatible endpoint: `ollama:NAME`, or `ollama:NAME@http://HOST:PORT`.

Without an address it is OLLAMA_HOST, as Ollama's own client reads it, or http://localhost:11434. No key is sent.
"""

from __future__ import annotations

import os

from firsthand.errors import ConfigError
from firsthand.providers.openai import OpenAIModel
from firsthand.providers.openai_wire import clip

DEFAULT = "http://localhost:11434"


def open_model(rest: str) -> OllamaModel:
    """Returns the model named `ollama:NAME` or `ollama:NAME@URL`; no request is made. ConfigError for any other form."""
    name, at, address = rest.partition("@")
    if at and not address.startswith(("http://", "https://")):
        raise ConfigError(
            f"ollama:{clip(rest, 120)} has no address after the @: write ollama:{clip(name, 80)}@{DEFAULT}"
        )
    return OllamaModel(name, address if at else None)


class OllamaModel(OpenAIModel):
    """A model of an Ollama server."""

    def __init__(self, model: str, base_url: str | None = None):
        self._is_elsewhere = base_url is not None
        url = (base_url or _host()).rstrip("/")
        super().__init__(model, url if url.endswith("/v1") else f"{url}/v1", api_key="ollama")

    @property
    def name(self) -> str:
        """The name a user gave, without a password in its URL."""
        return f"ollama:{self._model}" + (f"@{self._address.removesuffix('/v1')}" if self._is_elsewhere else "")


def _host() -> str:
    """OLLAMA_HOST as an address: it may lack the scheme and the port, and 0.0.0.0 is what a server listens on."""
    host = os.environ.get("OLLAMA_HOST", "").strip()
    if not host:
        return DEFAULT
    scheme, has_scheme, rest = host.partition("://")
    scheme, rest = (scheme, rest) if has_scheme else ("http", host)
    rest = rest.rstrip("/").replace("0.0.0.0", "127.0.0.1", 1)
    return f"{scheme}://{rest}" if ":" in rest or has_scheme else f"{scheme}://{rest}:11434"
