"""Search the web through a service you have a key for: Brave, Tavily, or a SearXNG of your own.

The key is read from the environment (BRAVE_API_KEY, TAVILY_API_KEY) or, for SearXNG, its address from SEARXNG_URL. Without
one there is no such tool, and the error says what to set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from firsthand.declaration import Declaration
from firsthand.errors import ConfigError, DataError, ToolError
from firsthand.system.bounded_reply import ask_async
from firsthand.system.terminal import one_line
from firsthand.tool import Tool, tool_from_function
from firsthand.tools.web.html import to_text

MAX_K = 20
MAX_BYTES = 4_000_000
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Service:
    """The request format of a search service, and the path to its results."""

    variable: str
    """The environment variable with the key, or for SearXNG with the address."""
    url: str
    results: tuple[str, ...]
    """The keys that lead to the list of results."""
    words: str
    """The key of a result's text."""


SERVICES: Mapping[str, Service] = {
    "brave": Service(
        "BRAVE_API_KEY", "https://api.search.brave.com/res/v1/web/search", ("web", "results"), "description"
    ),
    "tavily": Service("TAVILY_API_KEY", "https://api.tavily.com/search", ("results",), "content"),
    "searxng": Service("SEARXNG_URL", "", ("results",), "content"),
}


def web_search(*, service: str | None = None, url: str | None = None) -> Tool:
    """The tool `web_search`, through the service named, or the first of brave, tavily and searxng that is set up."""
    keys = {each: os.environ.get(known.variable, "").strip() for each, known in SERVICES.items()}
    name = service or next((each for each, key in keys.items() if key), None)
    if name is None or name not in SERVICES:
        what = "no search service is set up" if name is None else f"no search service {name!r} is known"
        known = ", ".join(f"{each.variable} for {service}" for service, each in SERVICES.items())
        raise ConfigError(f"{what}: set one of the environment variables {known}")
    key = keys[name]
    if not key and not (name == "searxng" and url):
        raise ConfigError(
            f"{name} needs the environment variable {SERVICES[name].variable}: set it, or leave web_search out"
        )
    address = url or (f"{key.rstrip('/')}/search" if name == "searxng" else SERVICES[name].url)

    async def web_search(query: str, k: int = 5) -> str:
        """Search the web: titles, addresses and a few words of the pages that fit best.

        Args:
            query: What to search for.
            k: How many pages are wanted.
        """
        if not query.strip() or not 1 <= k <= MAX_K:
            raise ToolError(f"query is {query[:100]!r} and k is {k}: give words, and 1 to {MAX_K}")
        body = await _ask(_request(name, address, key, query[:400], k), name)
        return _shown(body, SERVICES[name], k)

    return tool_from_function(
        web_search, effect="read", timeout_s=TIMEOUT_S + 5.0, origin="the web", declares=Declaration(tells=name)
    )


def _request(name: str, address: str, key: str, query: str, k: int) -> httpx.Request:
    if name == "brave":
        headers = {"X-Subscription-Token": key, "Accept": "application/json"}
        return httpx.Request("GET", address, params={"q": query, "count": k}, headers=headers)
    if name == "tavily":
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Request("POST", address, json={"query": query, "max_results": k}, headers=headers)
    return httpx.Request("GET", address, params={"q": query, "format": "json"})


async def _ask(request: httpx.Request, name: str) -> Any:
    """The service's response as JSON; errors are ToolErrors that never contain the key."""
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:
            reply = await ask_async(client, request, max_bytes=MAX_BYTES, within_s=TIMEOUT_S)
    except DataError as error:
        raise ToolError(f"{name} gave no answer that can be read: {error}") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise ToolError(f"{name} cannot be asked: {type(error).__name__}") from None
    if reply.status != 200:
        says = {401: "the key is not accepted", 403: "the key is not accepted", 429: "too many searches: wait a while"}
        raise ToolError(f"{name} answers with status {reply.status}: {says.get(reply.status, 'no results')}")
    try:
        return reply.json()
    except ValueError:
        raise ToolError(f"{name} does not answer with JSON") from None


def _shown(body: Any, service: Service, k: int) -> str:
    for key in service.results:
        body = body.get(key) if isinstance(body, dict) else None
    found = [each for each in body if isinstance(each, dict)] if isinstance(body, list) else []
    shown = [
        "\n".join(one_line(to_text(str(each.get(key) or ""))[:1000]) for key in ("title", "url", service.words))
        for each in found[:k]
    ]
    return "\n\n".join(shown) or "(nothing was found: try other words)"
