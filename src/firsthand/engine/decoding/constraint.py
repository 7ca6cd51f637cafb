"""Grammar-constrained answers: which tokens may come next, and which must.

`Grammars` reads a grammar for a tokenizer once. Each answer gets a `Guide`, which follows it token by token. Where a
grammar leaves no choice in the text, its tokens are `forced`: the engine takes them as they are and computes them together
in one step (jump-ahead), in the tokens that the tokenizer itself would write the text in, and only as many as no longer
text could change (llguidance's fast-forward tokens). What is forced and what is allowed depends on the answer's tokens and
on nothing else. `Masks` computes what is allowed while the step's forward pass runs. No torch here.
"""

# V vocabulary

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from firsthand.errors import ConfigError, ModelError
from firsthand.grammar import Grammar
from firsthand.tokens import grammar_compiler
from firsthand.tokens.tokenizer import Tokenizer

WORD = 32
"""Bits of a word of a mask."""
MAX_REMEMBERED = 256
MAX_REMEMBERED_BYTES = 1 << 21
"""Of sources; a grammar that was read takes some ten times its source, a hostile one more."""


@dataclass(frozen=True, eq=False, repr=False)
class CompiledGrammar:
    """A grammar read for one tokenizer, ready for any number of answers."""

    grammar: Grammar
    vocab_size: int
    matcher: Any
    """llguidance's, at the beginning, after the tokens that are forced there; never moved."""
    forced: tuple[int, ...]
    allowed: np.ndarray | None
    """The tokens that may be first, after the forced ones, as bits; None if those are the whole text."""
    forcing: bool = True
    """Whether tokens are forced at all, and not only text."""

    def guide(self) -> Guide:
        """A guide for one answer."""
        return Guide(self)


class Grammars:
    """The grammars of one tokenizer, each read once as long as it is remembered, wrong ones too. Any thread may ask."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._vocab: Any = None
        self._known: OrderedDict[tuple[Grammar, bool], CompiledGrammar | str] = OrderedDict()
        self._lock = threading.Lock()
        self._vocab_lock = threading.Lock()

    def find(self, grammar: Grammar, *, forcing: bool = True) -> CompiledGrammar | None:
        """The grammar, if it was read and is remembered. ConfigError if it could not be used."""
        key = (grammar, forcing)
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
        if isinstance(found, str):
            raise ConfigError(found)
        return found

    def compile(self, grammar: Grammar, *, forcing: bool = True) -> CompiledGrammar:
        """The grammar, read now if need be: that may take a second. ConfigError if it cannot be used.

        Without `forcing` it allows every spelling of a text, for requests that forbid tokens.
        """
        found = self.find(grammar, forcing=forcing)
        if found is not None:
            return found
        vocab = self._vocabulary()
        try:
            matcher = grammar_compiler.read(grammar, vocab, forcing=forcing)
            found = _begun(grammar, matcher, self._tokenizer.vocab_size, forcing)
        except ConfigError as error:
            self._remember((grammar, forcing), str(error))
            raise
        self._remember((grammar, forcing), found)
        return found

    def _remember(self, key: tuple[Grammar, bool], found: CompiledGrammar | str) -> None:
        with self._lock:
            self._known[key] = found
            while len(self._known) > 1 and self._is_full():
                self._known.popitem(last=False)

    def _is_full(self) -> bool:
        sizes = sum(len(grammar.source) for grammar, _ in self._known)
        return len(self._known) > MAX_REMEMBERED or sizes > MAX_REMEMBERED_BYTES

    def _vocabulary(self) -> Any:
        with self._vocab_lock:
            if self._vocab is None:
                self._vocab = grammar_compiler.vocabulary(self._tokenizer)
            return self._vocab


class Guide:
    """Follows one answer through its grammar. One thread at a time."""

    def __init__(self, compiled: CompiledGrammar):
        self.matcher = compiled.matcher.deep_copy()
        self.vocab_size = compiled.vocab_size
        self.forced: deque[int] = deque(compiled.forced)
        """The next tokens, where the grammar leaves no choice; the matcher is past them already."""
        self._allowed = compiled.allowed

    @property
    def needs_mask(self) -> bool:
        """Whether the tokens that may come after the forced ones are still to be found."""
        return self._allowed is None and not self.matcher.is_stopped()

    @property
    def is_done(self) -> bool:
        """Whether the text is whole and nothing but its end can follow."""
        return not self.forced and bool(self.matcher.is_stopped() and self.matcher.is_accepting())

    @property
    def allowed(self) -> np.ndarray:
        """The tokens that may come next, a bit each in words of 32; none may be forced. ModelError if there are none."""
        assert not self.forced
        if self._allowed is None:
            self.take_mask(np.frombuffer(self.matcher.compute_bitmask(), np.uint32))
        if self._allowed is None or not self._allowed.any():
            raise self._lost("allows no token here")
        return self._allowed

    def allows(self, token: int) -> bool:
        """Whether a token may come next."""
        return has(self.allowed, token)

    def take_mask(self, words: np.ndarray) -> None:
        """Take in the bits of the tokens that may come after the forced ones."""
        if not self.matcher.is_error():
            self._allowed = words

    def advance(self, token: int) -> None:
        """Take note of the next token of the answer. ModelError if the grammar has no way to go on."""
        if self.forced:
            expected = self.forced.popleft()
            assert token == expected
            return
        self._allowed = None
        matcher = self.matcher
        if not matcher.consume_token(token):
            raise self._lost(f"does not go on after token {token}")
        forced = matcher.compute_ff_tokens()
        if forced and not matcher.consume_tokens(forced):
            raise self._lost("does not take the tokens that it asks for")
        self.forced.extend(forced)

    def _lost(self, what: str) -> ModelError:
        reason = " ".join(str(self.matcher.get_error()).replace("<non-verbose/>", "").split())[:200]
        return ModelError(f"the grammar {what}{f': {reason}' if reason else ''}; the answer cannot be finished")


class Masks:
    """Finds what many guides allow, together, on threads of its own; the interpreter's lock is free meanwhile."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._executor: Any = None
        self._pending: Future[None] | None = None

    def start(self, guides: Iterable[Guide]) -> None:
        """Begin with the masks that these guides need; nobody may touch the guides until `finish`."""
        needy = [guide for guide in guides if guide.needs_mask]
        if not needy:
            return
        if self._pool is None:
            import llguidance

            self._pool = ThreadPoolExecutor(1, thread_name_prefix="firsthand-masks")
            self._executor = llguidance.LLExecutor()
        self._pending = self._pool.submit(self._fill, needy)

    def finish(self) -> None:
        """Wait for the masks. One that could not be found is looked for again by its guide, which then says why."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.exception()

    def _fill(self, guides: list[Guide]) -> None:
        words = (guides[0].vocab_size + 31) // 32
        bits = np.zeros((len(guides), words), dtype=np.uint32)
        matchers = [(guide.matcher, row) for row, guide in enumerate(guides)]
        self._executor.unsafe_compute_mask_ptr(matchers, bits.ctypes.data, words * 4, len(guides))
        for guide, row in zip(guides, bits, strict=True):
            guide.take_mask(row)


def _begun(grammar: Grammar, matcher: Any, vocab_size: int, forcing: bool) -> CompiledGrammar:
    """The grammar after the tokens that it begins with in any case, and what may follow them."""
    forced = matcher.compute_ff_tokens()
    matcher.consume_tokens(forced)
    allowed = None
    if not matcher.is_stopped():
        allowed = np.frombuffer(matcher.compute_bitmask(), np.uint32)
    if matcher.is_error() or not (matcher.is_accepting() if allowed is None else allowed.any()):
        raise ConfigError(f"no text fits the {grammar.kind} grammar: {grammar.source[:100]!r}")
    return CompiledGrammar(grammar, vocab_size, matcher, tuple(forced), allowed, forcing)


def bits(ids: Iterable[int] | None, vocab_size: int) -> np.ndarray:
    """A mask, a bit for each token in words of 32, in which these ids are set; all with None."""
    flags = np.zeros(-(-vocab_size // WORD) * WORD, dtype=np.uint8)
    flags[slice(vocab_size) if ids is None else np.fromiter(ids, dtype=np.int64)] = 1
    return np.packbits(flags, bitorder="little").view(np.uint32)


def has(words: np.ndarray, token: int) -> bool:
    """Whether a token's bit is set."""
    return token < len(words) * WORD and bool(int(words[token // WORD]) >> token % WORD & 1)


def ids_of(words: np.ndarray) -> np.ndarray:
    """The ids whose bits are set, ascending."""
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
