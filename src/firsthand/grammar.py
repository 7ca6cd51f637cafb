"""Grammars: the form an answer must have, as plain data in a request's Sampling.

A local model masks the tokens that the grammar forbids (`engine/decoding/constraint.py`); an endpoint is asked to do the
same. The kinds: a JSON schema (answers are on one line, as `json.dumps` writes them), a regular expression, one of several
texts, a grammar in llguidance's dialect of Lark, or one in GBNF, the dialect of llama.cpp.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from firsthand.errors import ConfigError
from firsthand.message import Json

GrammarKind = Literal["json_schema", "regex", "choice", "lark", "gbnf"]
KINDS: tuple[GrammarKind, ...] = ("json_schema", "regex", "choice", "lark", "gbnf")
MAX_SOURCE_BYTES = 1 << 18
"""A longer grammar is refused: one nested as deeply as this allows is known to fit the stack it is compiled on."""
_PLACES = ("after_thought", "in_final")
_SCHEMA = re.compile(r"%json\s*(?=\{)")
"""Matches the directive before a JSON schema in a Lark grammar."""


@dataclass(frozen=True)
class Grammar:
    """The form of an answer. Make one with `json_schema`, `regex`, `choice`, `lark` or `gbnf`."""

    kind: GrammarKind
    source: str
    """The schema or the list of choices as JSON, in the order it was given; else the text of the grammar itself."""
    after_thought: bool = False
    """True if it begins after a thought, which is free and ends with `</think>`: for prompts that end with `<think>`."""

    in_final: bool = False
    """True if it rules the text of Harmony's final channel, behind an analysis that is free."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"a grammar is of kind {self.kind!r}: give one of {', '.join(KINDS)}")
        if not isinstance(self.source, str) or not self.source:
            raise ConfigError(f"the source of a {self.kind} grammar is {self.source!r:.100}: give text")
        try:
            size = len(self.source.encode())
        except UnicodeEncodeError:
            raise ConfigError(
                f"the {self.kind} grammar holds half a surrogate pair, which is no text: remove it"
            ) from None
        if size > MAX_SOURCE_BYTES:
            raise ConfigError(f"the {self.kind} grammar has {size} bytes: at most {MAX_SOURCE_BYTES} are read")
        if self.kind == "choice":
            _check_options(self.parsed())
        elif self.kind == "json_schema" and not isinstance(self.parsed(), dict | bool):
            raise ConfigError(f"the JSON schema is {self.source[:100]}: give an object, such as {{'type': 'object'}}")

    def to_json(self) -> Json:
        """The grammar as a JSON object."""
        return {name: value for name, value in asdict(self).items() if value or name not in _PLACES}

    @staticmethod
    def from_json(body: Json) -> Grammar:
        """The grammar that `to_json` wrote."""
        return Grammar(body["kind"], body["source"], **{name: body.get(name, False) for name in _PLACES})

    @property
    def closes_thought(self) -> bool:
        """True if its own texts, apart from schemas, hold the end of a thought, so that it begins in the thought itself."""
        return self.kind != "json_schema" and "think>" in _without_schemas(self.source)

    @property
    def names_channels(self) -> bool:
        """True if it is of Lark and names Harmony's channels, so that it rules an answer from its first token."""
        return self.kind == "lark" and "<|channel|>" in _without_schemas(self.source)

    def parsed(self) -> Any:
        """The schema or the list of choices as data."""
        try:
            return json.loads(self.source)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the {self.kind} grammar is no JSON: {str(error)[:200]}") from None


def json_schema(schema: Json | bool) -> Grammar:
    """A JSON value that fits a schema; properties come in the schema's order. `{"type": "object"}` is any object."""
    return Grammar("json_schema", _written(schema, "JSON schema"))


def regex(pattern: str) -> Grammar:
    """A text that a regular expression matches from end to end; Rust's syntax, without look-around and back-references."""
    return Grammar("regex", pattern)


def choice(options: Sequence[str]) -> Grammar:
    """One of these texts, word for word."""
    if isinstance(options, str):
        raise ConfigError(f"the choices are one string, {options[:60]!r}: give a list of texts")
    return Grammar("choice", _written(list(options), "list of choices"))


def lark(text: str) -> Grammar:
    """A text that the rule `start` of a grammar describes, in llguidance's dialect of Lark (with %json, %regex, lazy)."""
    return Grammar("lark", text)


def gbnf(text: str) -> Grammar:
    """A text that the rule `root` of a GBNF grammar describes, as for llama.cpp."""
    return Grammar("gbnf", text)


def _without_schemas(text: str) -> str:
    """The text of a Lark grammar without its schemas, up to one that is no JSON."""
    kept, end, decoder = list[str](), 0, json.JSONDecoder()
    for found in _SCHEMA.finditer(text):
        if found.start() >= end:
            kept.append(text[end : found.start()])
            end = found.end()
            try:
                _, end = decoder.raw_decode(text, end)
            except (ValueError, RecursionError):
                break  # it will not compile
    return "".join([*kept, text[end:]])


def _written(value: object, what: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the {what} cannot be written as JSON: {str(error)[:200]}") from None


def _check_options(options: object) -> None:
    if not isinstance(options, list) or not options or not all(isinstance(option, str) for option in options):
        raise ConfigError(f"the choices are {options!r:.100}: give a list of one text or more")
    if options == [""]:
        raise ConfigError("the only choice is the empty text: give another one")
