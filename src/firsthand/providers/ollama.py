"""A model that Ollama serves, over its OpenAI-compatible endpoint: `ollama:NAME`, or `ollama:NAME@http://HOST:PORT`.

Without an address it is OLLAMA_HOST, as Ollama's own client reads it, or http://localhost:11434. No key is sent.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from firsthand.errors import ConfigError
from firsthand.providers.openai import OpenAIModel
from firsthand.providers.openai_wire import clip

PORT = 11434
DEFAULT = f"http://localhost:{PORT}"
_OWN = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
"""Hosts that stand for this machine, and its addresses."""


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
    """OLLAMA_HOST as an address; ConfigError if it is none. It may lack the scheme, the host and the port.

    What a server listens on for all addresses, 0.0.0.0 or [::], is asked at its own machine.
    """
    given = os.environ.get("OLLAMA_HOST", "").strip()
    if not given:
        return DEFAULT
    has_scheme = "://" in given
    try:
        address = urlsplit(given if has_scheme else f"http://{given}")
        port = address.port or None  # 0 is none, as for Ollama's client
    except ValueError:
        raise ConfigError(  # it may hold a password, so it is not shown
            "OLLAMA_HOST is no address: give HOST, HOST:PORT or a URL, with an IPv6 address in brackets, such as [::1]"
        ) from None
    user, at, place = address.netloc.rpartition("@")
    host = f"{place.partition(']')[0]}]" if place.startswith("[") else place.partition(":")[0]
    if port is None and not has_scheme:
        port = PORT
    netloc = f"{user}{at}{_OWN.get(host, host)}" + (f":{port}" if port else "")
    return address._replace(netloc=netloc).geturl()
