"""Chunkers by name: `recursive:size=800:overlap=100` is the function `recursive` with those options.

The text with every option, in the order of the signature, is what an index's header holds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

from firsthand.errors import ConfigError, unknown
from firsthand.retrieval.chunk import Chunker
from firsthand.retrieval.chunking.code_chunks import code
from firsthand.retrieval.chunking.fixed_chunks import fixed
from firsthand.retrieval.chunking.kind_chunks import by_kind
from firsthand.retrieval.chunking.markdown_chunks import markdown
from firsthand.retrieval.chunking.parent_chunks import parents
from firsthand.retrieval.chunking.recursive_chunks import recursive
from firsthand.retrieval.chunking.semantic_chunks import Embed, semantic
from firsthand.retrieval.chunking.sentence_chunks import by_sentences
from firsthand.system.option_spec import bind_options, parse_spec

CHUNKERS: dict[str, Callable[..., Chunker]] = {
    "auto": by_kind,
    "recursive": recursive,
    "markdown": markdown,
    "code": code,
    "sentences": by_sentences,
    "fixed": fixed,
    "semantic": semantic,
    "parents": parents,
}
DEFAULT = "auto"


class NamedChunker(NamedTuple):
    """A chunker and the text that makes it again."""

    text: str
    chunk: Chunker


def open_chunker(text: str = DEFAULT, embed: Embed | None = None) -> NamedChunker:
    """The chunker that a text names. UnknownName for another name, ConfigError for options that it does not take.

    `embed` is for the chunkers that compare vectors.
    """
    spec = parse_spec(text)
    if spec.parts:
        raise ConfigError(f"{text!r} has parentheses, and a chunker leads no other: write name:option=value")
    if spec.name not in CHUNKERS:
        raise unknown("chunker", spec.name, CHUNKERS, see="firsthand list chunkers")
    make = CHUNKERS[spec.name]
    if "embed" in spec.options:
        raise ConfigError(f"{text!r} gives embed, which is the index's own model: leave it out")
    given = bind_options(spec, make)
    needed = {"embed": embed} if "embed" in inspect.signature(make).parameters else {}
    return NamedChunker(_text(spec.name, given), make(**given, **needed))


def options(name: str) -> dict[str, object]:
    """The options of a chunker and their defaults."""
    parameters = inspect.signature(CHUNKERS[name]).parameters
    return {key: each.default for key, each in parameters.items() if key != "embed"}


def default_text(name: str) -> str:
    """The name of a chunker with its options and their defaults."""
    return _text(name, {})


def _text(name: str, given: Mapping[str, object]) -> str:
    return ":".join([name, *(f"{key}={_shown(given.get(key, value))}" for key, value in options(name).items())])


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
