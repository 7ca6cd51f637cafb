"""Translates grammars for llguidance and builds its matchers, without bounds on time and memory.

Only `grammar_compiler.py` and `grammar_process.py` use this: they set the bounds. Importing this module imports neither
torch nor, until a grammar is compiled, llguidance.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from firsthand.errors import ConfigError
from firsthand.grammar import Grammar
from firsthand.tokens.gbnf import lark_of_gbnf
from firsthand.tokens.schema_numbers import exact_schema
from firsthand.tokens.schema_patterns import followed_schema
from firsthand.tokens.tokenizer import Tokenizer

MAX_FORCED = 1 << 16
"""A grammar that forces this many tokens at its beginning is refused: it fits no context."""
LEXER_STATES = 50_000
_LEXER_FUEL = 200_000
"""Also bounds how many tokens a grammar can force at once, and so the time of a step: about 100,000 bytes."""
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_STRICT = {"lenient": False, "coerce_one_of": False}
_THOUGHT = r"""start: thought gap @answer
thought[lazy]: /(.|\n)*<\/think>/
gap: /\n{0,2}/
"""
"""The rest of a thought that the prompt began, and the answer after it."""
_FINAL = r"""start: analysis? <|channel|> "final" <|message|> @answer
analysis: <|channel|> "analysis" <|message|> words <|end|> <|start|> "assistant"
words: /(.|\n)*/
"""
"""An answer in Harmony's channels: the answer after what may be a thought."""
_UNFORCED = '%llguidance {"no_forcing": true}'


class Vocabulary:
    """A tokenizer in the form that llguidance reads: the bytes of each token, and the special tokens.

    Tool-call markers count as text, so that a grammar need not know whether they are tokens of their own.
    """

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.bos_token_id = tokenizer.bos_id
        self.eos_token_id = tokenizer.eos_id
        self.tokens = [tokenizer.visible_bytes(id) for id in range(tokenizer.vocab_size)]
        self.special_token_ids = [id for id, text in enumerate(self.tokens) if not text]
        for id in self.special_token_ids:
            self.tokens[id] = tokenizer.token_bytes(id)
        special = {*self.special_token_ids, *tokenizer.special_ids}
        self._by_bytes = {text: id for id, text in enumerate(self.tokens) if text and id not in special}
        self._max_size = max(map(len, self._by_bytes), default=0)

    def __call__(self, text: str | bytes) -> list[int]:
        """Returns the ids of text that continues other text, in tokens that spell it to the byte."""
        data = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
        ids = self.tokenizer.encode(data.decode("utf-8", "replace"), continuing=True)
        return ids if b"".join(self.tokens[id] for id in ids) == data else self._longest_tokens(data)

    def _longest_tokens(self, data: bytes) -> list[int]:
        """The longest token at each place: for texts that the tokenizer writes otherwise, such as in lower case.

        They end before a byte that begins no token.
        """
        ids = []
        while data:
            sizes = range(min(self._max_size, len(data)), 0, -1)
            id = next((id for size in sizes if (id := self._by_bytes.get(data[:size])) is not None), None)
            if id is None:
                break
            ids.append(id)
            data = data[len(self.tokens[id]) :]
        return ids


def vocabulary(tokenizer: Tokenizer) -> Any:
    """Returns llguidance's view of a tokenizer; takes some tenths of a second."""
    import llguidance

    vocab: Any = Vocabulary(tokenizer)  # llguidance's wrapper adds nothing that we need
    ends = sorted(tokenizer.eos_ids)
    if not ends:
        raise ConfigError("the model has no end-of-sequence token, so a grammar cannot end an answer")
    try:
        return llguidance.LLTokenizer(vocab, n_vocab=tokenizer.vocab_size, eos_token=ends)
    except Exception as error:
        raise ConfigError(f"grammars do not work with this model's tokenizer: {error}") from error


def matcher_of(
    grammar: Grammar, vocab: Any, *, flexible: bool = False, forcing: bool = True, states: int = LEXER_STATES
) -> Any:
    """Returns llguidance's matcher at the start of a text; ConfigError if the grammar is invalid, matches nothing, or
    is too large.

    Without `forcing` the matcher accepts any tokenization of a text. `flexible` allows whitespace wherever JSON does
    and reads schemas leniently: for checking texts from elsewhere. `states` limits the automaton.
    """
    import llguidance

    text = _translated(grammar, flexible)
    limits = llguidance.LLParserLimits(max_lexer_states=states, initial_lexer_fuel=_LEXER_FUEL, verbose_errors=False)
    matcher = llguidance.LLMatcher(vocab, text if forcing else _unforced(text), log_level=0, limits=limits)
    forced = [] if matcher.is_error() else matcher.compute_ff_tokens()
    if len(forced) > MAX_FORCED:
        raise ConfigError(
            f"the {grammar.kind} grammar forces its first {len(forced)} tokens, more than fit a context: make it shorter"
        )
    if not matcher.is_error() and not flexible:
        matcher.compute_bitmask()
    if matcher.is_error():
        reason = " ".join(matcher.get_error().replace("<non-verbose/>", "").split())[:400]
        if matcher.stop_reason() == "InternalError" and "NoExtension" in reason:
            reason = f"no text fits it ({reason})"
        raise ConfigError(f"the {grammar.kind} grammar cannot be used: {reason}")
    if matcher.is_stopped() and not matcher.is_accepting():
        raise ConfigError(f"no text fits the {grammar.kind} grammar: {grammar.source[:100]!r}")
    return matcher


def lark_json(schema: Any) -> str:
    """Returns a JSON schema as an item of a Lark rule, on one line; what a grammar cannot express is left out."""
    return _json_item(schema, {"lenient": True, "coerce_one_of": True})


def lark_text(text: str) -> str:
    """Returns a literal text as an item of a Lark rule."""
    return json.dumps(text, ensure_ascii=False)


def _json_item(schema: Any, strictness: dict[str, bool]) -> str:
    body = {"anyOf": [{}]} if schema is True else {"not": {}} if schema is False else dict(schema)
    source = json.dumps({**body, "x-guidance": {**_LAYOUT, **strictness}}, ensure_ascii=False)
    return "%json " + followed_schema(exact_schema(source, lenient=strictness["lenient"]))


def _translated(grammar: Grammar, flexible: bool) -> str:
    """Returns the grammar in llguidance's format."""
    text = _answer_of(grammar, flexible)
    if not (grammar.after_thought or grammar.in_final):
        return text
    before = _FINAL if grammar.in_final else _THOUGHT
    is_lark = grammar.kind in ("lark", "gbnf")
    (answer,) = [{"lark_grammar": text}] if is_lark else json.loads(text)["grammars"]
    return json.dumps({"grammars": [{"name": "thought", "lark_grammar": before}, {**answer, "name": "answer"}]})


def _answer_of(grammar: Grammar, flexible: bool) -> str:
    """Returns the grammar of the answer alone."""
    from llguidance import LLMatcher

    match grammar.kind:
        case "json_schema":
            loose = {"whitespace_flexible": True, "item_separator": ",", "key_separator": ":"}
            options = {**loose, "lenient": True, "coerce_one_of": True} if flexible else {**_LAYOUT, **_STRICT}
            source = followed_schema(exact_schema(grammar.source, lenient=flexible))
            return str(LLMatcher.grammar_from_json_schema(source, overrides=options))  # type: ignore[arg-type]
        case "regex":
            return str(LLMatcher.grammar_from_regex(grammar.source))
        case "choice":
            return str(LLMatcher.grammar_from_regex("|".join(map(re.escape, grammar.parsed()))))
        case "lark":
            return str(LLMatcher.grammar_from_lark(grammar.source))
        case "gbnf":
            return str(LLMatcher.grammar_from_lark(lark_of_gbnf(grammar.source)))


def _unforced(text: str) -> str:
    """Returns a translated grammar that forces no tokens."""
    if not text.startswith("{"):
        return f"{_UNFORCED}\n{text}"
    body = json.loads(text)
    for part in body["grammars"]:
        schema = part.pop("json_schema", None)
        lark = part["lark_grammar"] if schema is None else f"start: %json {json.dumps(schema)}"
        part["lark_grammar"] = f"{_UNFORCED}\n{lark}"
    return json.dumps(body)


@cache
def byte_vocabulary() -> Any:
    """Returns llguidance's view of a tokenizer whose tokens are bytes."""
    import llguidance

    return llguidance.LLTokenizer("byte")
