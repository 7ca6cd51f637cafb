"""Reads the values of a request's query: numbers within bounds, texts of bounded length."""

from __future__ import annotations

from starlette.requests import Request

from firsthand.errors import ConfigError

MAX_TEXT = 2000


def text_of(request: Request, name: str) -> str:
    """A text, empty where it is not given; ConfigError if it is too long."""
    text = request.query_params.get(name, "")
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{name} has {len(text):,} characters: at most {MAX_TEXT:,} are read")
    return text


def number_of(request: Request, name: str, default: int, least: int = 0, most: int = 1 << 40) -> int:
    """A whole number within bounds; ConfigError if it is anything else."""
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not text.lstrip("-").isascii() or not text.removeprefix("-").isdecimal() or len(text) > 15:
        raise ConfigError(f"{name} is {text[:40]!r}: a whole number was expected")
    return min(max(int(text), least), most)
