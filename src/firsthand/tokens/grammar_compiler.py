"""Grammars read by llguidance: what each kind becomes, a vocabulary as it wants it, and whether a text fits.

A grammar is untrusted input. It is read on a thread with a large stack, since llguidance follows rules by recursion and a
chain of a few thousand overflows an ordinary one, and for a bounded time; what it may use of memory is bounded by limits.
Importing this file imports neither torch nor, until a grammar is read, llguidance.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

from firsthand.errors import ConfigError, TransientError
from firsthand.grammar import Grammar
from firsthand.tokens.tokenizer import TextRun, Tokenizer

T = TypeVar("T")

MAX_READ_S = 20.0
MAX_FORCED = 1 << 16
"""A grammar that leaves no choice for so many tokens at its beginning is refused: it fits no context."""
_STACK_BYTES = 1 << 29
_MAX_READERS = 4
_LEXER_STATES = 50_000
_LEXER_FUEL = 200_000
"""Also bounds what a grammar can force at a stretch, and so how long one step can take: about 100,000 bytes."""
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_STRICT = {"lenient": False, "coerce_one_of": False}
_UNFORCED = '%llguidance {"no_forcing": true}'
_STACK_LOCK = threading.Lock()
_READERS = threading.BoundedSemaphore(_MAX_READERS)


class Vocabulary:
    """A tokenizer in the shape that llguidance reads: the bytes of each token, and which are control tokens.

    Marks of tool calls count as text here, so that a grammar need not know whether they are tokens of their own.
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

    def __call__(self, text: str | bytes) -> list[int]:
        """The ids of text that goes on after other text."""
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return self.tokenizer.encode_runs([TextRun(text, False)], continuing=True)


def vocabulary(tokenizer: Tokenizer) -> Any:
    """llguidance's own view of a tokenizer; making it takes some tenths of a second."""
    import llguidance

    vocab: Any = Vocabulary(tokenizer)  # its own wrapper adds nothing that is needed
    ends = sorted(tokenizer.eos_ids)
    if not ends:
        raise ConfigError("the model has no token that ends an answer, so no grammar can say where one may end")
    try:
        return llguidance.LLTokenizer(vocab, n_vocab=tokenizer.vocab_size, eos_token=ends)
    except Exception as error:
        raise ConfigError(f"grammars do not work with this model's tokenizer: {error}") from error


def read(grammar: Grammar, vocab: Any, *, flexible: bool = False, forcing: bool = True) -> Any:
    """llguidance's matcher at the beginning of a text. ConfigError if the grammar is wrong, hopeless or too much.

    Without `forcing` a text may be spelled in any tokens, also where the grammar leaves no choice in it.

    `flexible` lets JSON have blanks wherever JSON allows them, and reads schemas leniently: for checking what others wrote.
    """

    def source() -> str:
        text = _translated(grammar, flexible)
        return text if forcing else _unforced(text)

    def build() -> Any:
        import llguidance

        limits = llguidance.LLParserLimits(
            max_lexer_states=_LEXER_STATES, initial_lexer_fuel=_LEXER_FUEL, verbose_errors=False
        )
        matcher = llguidance.LLMatcher(vocab, source(), log_level=0, limits=limits)
        forced = [] if matcher.is_error() else matcher.compute_ff_tokens()
        if len(forced) > MAX_FORCED:
            raise ConfigError(
                f"the {grammar.kind} grammar begins with {len(forced)} tokens that it leaves no choice in"
            )
        if not matcher.is_error() and not flexible:
            matcher.compute_bitmask()
        if not matcher.is_error() and matcher.is_stopped() and not matcher.is_accepting():
            raise ConfigError(f"no text fits the {grammar.kind} grammar: {grammar.source[:100]!r}")
        return matcher

    matcher = in_bounds(build, f"the {grammar.kind} grammar")
    if matcher.is_error():
        reason = " ".join(matcher.get_error().replace("<non-verbose/>", "").split())[:400]
        if matcher.stop_reason() == "InternalError" and "NoExtension" in reason:
            reason = f"no text fits it ({reason})"
        raise ConfigError(f"the {grammar.kind} grammar cannot be used: {reason}")
    return matcher


def accepts(grammar: Grammar, text: str, *, whole: bool = True) -> bool:
    """Whether a text fits a grammar, or, if it is not the `whole` one, begins a text that does; whoever wrote it.

    JSON may have blanks, and keywords of schemas that a grammar cannot express go unchecked.
    """
    if grammar.kind == "choice":
        return any(option == text or (not whole and option.startswith(text)) for option in grammar.parsed())
    try:
        raw = text.strip().encode() if grammar.kind == "json_schema" else text.encode()
    except UnicodeEncodeError:
        return False
    matcher = read(grammar, _byte_vocabulary(), flexible=True)
    fits = matcher.try_consume_tokens(list(raw)) == len(raw)
    return bool(fits and (not whole or matcher.is_accepting()))


def in_bounds(build: Callable[[], T], what: str, *, most_s: float = MAX_READ_S) -> T:
    """The result of reading something untrusted, on a large stack and in bounded time."""
    if not _READERS.acquire(timeout=most_s):
        raise TransientError(f"{what} waited {most_s:g} s for {_MAX_READERS} others that are being read: try again")
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(build())
        except BaseException as error:  # a panic in Rust is no Exception
            future.set_exception(error)
        finally:
            _READERS.release()

    try:
        with _STACK_LOCK:
            before = threading.stack_size(_STACK_BYTES)
            try:
                threading.Thread(target=run, name="firsthand-grammar", daemon=True).start()
            finally:
                threading.stack_size(before)
    except RuntimeError as error:
        _READERS.release()
        raise TransientError(
            f"{what} cannot be read now: no memory for a thread with a large stack ({error})"
        ) from None
    try:
        return future.result(most_s)
    except TimeoutError:
        raise ConfigError(f"{what} takes more than {most_s:g} s to read: make it simpler") from None
    except (ConfigError, KeyboardInterrupt, SystemExit):
        raise
    except ImportError:
        raise
    except BaseException as error:
        raise ConfigError(f"{what} cannot be read: {str(error)[:300]}") from None


def lark_json(schema: Any) -> str:
    """A JSON schema as an item of a Lark rule, written on one line; what a grammar cannot say of it is left out."""
    return _json_item(schema, {"lenient": True, "coerce_one_of": True})


def lark_text(text: str) -> str:
    """A literal text as an item of a Lark rule."""
    return json.dumps(text, ensure_ascii=False)


def _json_item(schema: Any, strictness: dict[str, bool]) -> str:
    body = {"anyOf": [{}]} if schema is True else {"not": {}} if schema is False else dict(schema)
    return "%json " + json.dumps({**body, "x-guidance": {**_LAYOUT, **strictness}}, ensure_ascii=False)


def _translated(grammar: Grammar, flexible: bool) -> str:
    """The grammar in llguidance's own form."""
    from llguidance import LLMatcher

    match grammar.kind:
        case "json_schema":
            loose = {"whitespace_flexible": True, "item_separator": ",", "key_separator": ":"}
            options = {**loose, "lenient": True, "coerce_one_of": True} if flexible else {**_LAYOUT, **_STRICT}
            return str(LLMatcher.grammar_from_json_schema(grammar.source, overrides=options))  # type: ignore[arg-type]
        case "regex":
            return str(LLMatcher.grammar_from_regex(grammar.source))
        case "choice":
            return str(LLMatcher.grammar_from_regex("|".join(map(re.escape, grammar.parsed()))))
        case "lark":
            return str(LLMatcher.grammar_from_lark(grammar.source))
        case "gbnf":
            return str(LLMatcher.grammar_from_lark(_lark_from_gbnf(grammar.source)))


def _unforced(text: str) -> str:
    """A translated grammar under which no tokens are forced."""
    if not text.startswith("{"):
        return f"{_UNFORCED}\n{text}"
    body = json.loads(text)
    for part in body["grammars"]:
        schema = part.pop("json_schema", None)
        lark = part["lark_grammar"] if schema is None else f"start: %json {json.dumps(schema)}"
        part["lark_grammar"] = f"{_UNFORCED}\n{lark}"
    return json.dumps(body)


def _lark_from_gbnf(text: str) -> str:
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        return str(any_to_lark(text))
    except (Exception, RecursionError) as error:
        raise ConfigError(f"the gbnf grammar cannot be used: {str(error)[:300] or type(error).__name__}") from None


@cache
def _byte_vocabulary() -> Any:
    import llguidance

    return llguidance.LLTokenizer("byte")
