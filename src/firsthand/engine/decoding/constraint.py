"""Constrains answers by a grammar: the tokens that may come next, and those that must.

`Grammars` compiles a grammar for a tokenizer once, in a process of its own unless it is known to be cheap. Each answer
gets a `Guide`, which follows it token by token. Where a grammar leaves one text only, its tokens are `forced`: the
engine takes them unsampled and computes them together in one step (jump-ahead), as the tokens the tokenizer itself
would encode the text to, and only as many as no longer text could change (llguidance's fast-forward tokens). Forced and
allowed tokens are a function of the answer's tokens. `Masks` computes the allowed tokens during the step's forward
pass. No torch here.
"""

# V vocabulary

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from firsthand.engine.decoding.grammar_cache import MAX_CACHE_BYTES, GrammarCache, Growth
from firsthand.errors import ConfigError, FirsthandError, ModelError
from firsthand.grammar import Grammar
from firsthand.tokens import grammar_compiler, llguidance_grammar
from firsthand.tokens.compile_slots import MAX_WAITING
from firsthand.tokens.grammar_cost import is_cheap
from firsthand.tokens.isolated_grammar import DEFAULT_LIMITS, GrammarLimits, GrammarProcesses, IsolatedMatcher
from firsthand.tokens.tokenizer import Tokenizer

WORD = 32
"""Bits of a word of a mask."""
_MAX_OUTGROWN = 10_000
_LIMITS = ("too many", "limit", "TooComplex", "too large", "exceeded", "max is")
"""Words in llguidance's reasons when a grammar has reached one of its limits."""

_QUICK_S = 0.1
"""Real time of a batch of masks after which its grammars are watched."""
_MASK_S = 0.005
"""Mean processor time of a mask below which a grammar is watched no more, and never given up; usual ones take less than a
millisecond."""
_STEP_S = 0.25
"""Processor time that the masks of watched grammars may take in one step, for which all other answers wait."""
_TOO_SLOW = (
    f"the grammar takes more than {_STEP_S:g} s of processor time for one token of its answers: make it less ambiguous, "
    "without rules that name themselves twice"
)


@dataclass(frozen=True, eq=False, repr=False)
class CompiledGrammar:
    """A grammar compiled for one tokenizer, for any number of answers."""

    grammar: Grammar
    vocab_size: int
    matcher: Any
    """llguidance's, after the tokens that are forced at the beginning; never advanced."""
    forced: tuple[int, ...]
    allowed: np.ndarray | None
    """The mask of tokens that may follow the forced ones; None if those are the whole text."""
    forcing: bool = True
    """False if every spelling of a forced text is allowed."""
    growth: Growth = field(default_factory=Growth)

    @property
    def num_bytes(self) -> int:
        """Bytes held; see `grammar_cache`."""
        own = 4 * len(self.grammar.source) + (0 if self.allowed is None else self.allowed.nbytes)
        if isinstance(self.matcher, IsolatedMatcher):
            return own + self.matcher.num_bytes
        return own + self.growth.estimate(self.grammar.source)

    @property
    def is_in_use(self) -> bool:
        """True if an answer follows it."""
        return isinstance(self.matcher, IsolatedMatcher) and self.matcher.num_copies > 0

    def guide(self) -> Guide:
        """A new Guide for one answer."""
        return Guide(self)


class Grammars:
    """Compiles grammars for one tokenizer and caches them, invalid ones too. Thread-safe."""

    def __init__(
        self, tokenizer: Tokenizer, *, cache_bytes: int = MAX_CACHE_BYTES, limits: GrammarLimits = DEFAULT_LIMITS
    ):
        self._tokenizer = tokenizer
        self._limits = limits
        self._vocab: Any = None
        self._processes: GrammarProcesses | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._outgrown: set[int] = set()
        """Hashes of grammars that turned out not to be cheap: they get a process, where there is more room."""
        self._cache: GrammarCache[tuple[Grammar, bool], CompiledGrammar] = GrammarCache(cache_bytes)
        self._vocab_lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Bytes that cached grammars hold, estimated from above."""
        return self._cache.num_bytes

    def find(self, grammar: Grammar, *, forcing: bool = True) -> CompiledGrammar | None:
        """The compiled grammar if it is cached, else None. ConfigError if it is known to be invalid."""
        found = self._cache.get((grammar, forcing))
        if isinstance(found, CompiledGrammar) and isinstance(found.matcher, IsolatedMatcher) and found.matcher.failure:
            if found.matcher.is_lost:
                return None
            found = found.matcher.failure
            self._cache.put((grammar, forcing), found)
        if isinstance(found, CompiledGrammar) and found.growth.is_too_slow:
            found = _TOO_SLOW
            self._cache.put((grammar, forcing), found)
        if isinstance(found, str):
            raise ConfigError(found)
        if found is not None and found.growth.is_spoiled:
            if len(self._outgrown) >= _MAX_OUTGROWN:
                self._outgrown.clear()
            self._outgrown.add(hash(grammar))
            return None
        return found

    def compile(self, grammar: Grammar, *, forcing: bool = True, owner: str = "") -> CompiledGrammar:
        """The compiled grammar; compiling may take a second. ConfigError if it is invalid or needs too much time or memory,
        TransientError if too many others are being compiled; `owner` is who shares the compilers fairly with others.

        Without `forcing` it allows every spelling of a text, for requests that forbid tokens.
        """
        found = self.find(grammar, forcing=forcing)
        if found is not None:
            return found
        try:
            if is_cheap(grammar) and hash(grammar) not in self._outgrown:
                matcher = grammar_compiler.read(grammar, self._vocabulary(), forcing=forcing)
            else:
                matcher = self._isolated().compile(grammar, forcing=forcing, owner=owner, free=self._free)
            found = _begun(grammar, matcher, self._tokenizer.vocab_size, forcing)
        except ConfigError as error:
            self._cache.put((grammar, forcing), str(error))
            raise
        self._cache.put((grammar, forcing), found)
        return found

    async def in_thread(self, make: Callable[[], CompiledGrammar]) -> CompiledGrammar:
        """Compile in a thread that may wait: those of `asyncio.to_thread` are few, and others need them."""
        with self._vocab_lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(MAX_WAITING + 8, thread_name_prefix="firsthand-grammars")
        return await asyncio.get_running_loop().run_in_executor(self._threads, make)

    def _free(self) -> bool:
        """Forget one grammar whose process no answer uses; returns whether there was one."""
        return self._cache.drop_idle(lambda compiled: isinstance(compiled.matcher, IsolatedMatcher))

    def _vocabulary(self) -> Any:
        with self._vocab_lock:
            if self._vocab is None:
                self._vocab = llguidance_grammar.vocabulary(self._tokenizer)
            return self._vocab

    def _isolated(self) -> GrammarProcesses:
        with self._vocab_lock:
            if self._processes is None:
                self._processes = GrammarProcesses(self._tokenizer.settings(), self._limits)
            return self._processes


class Guide:
    """The state of one answer in its grammar. Not thread-safe."""

    def __init__(self, compiled: CompiledGrammar):
        self.matcher = compiled.matcher.deep_copy()
        self.growth = compiled.growth
        self.vocab_size = compiled.vocab_size
        self.forced: deque[int] = deque(compiled.forced)
        """The next tokens, where the grammar leaves no choice; the matcher has consumed them already."""
        self._allowed = compiled.allowed

    @property
    def needs_mask(self) -> bool:
        """True if the mask after the forced tokens is not computed yet."""
        return self._allowed is None and not self.matcher.is_stopped()

    @property
    def is_done(self) -> bool:
        """True if the text is complete and only its end can follow."""
        return not self.forced and bool(self.matcher.is_stopped() and self.matcher.is_accepting())

    @property
    def allowed(self) -> np.ndarray:
        """The mask of tokens that may come next; no token may be forced. ModelError if the mask is empty."""
        assert not self.forced
        if self._allowed is None:
            if self.growth.is_too_slow:
                raise ConfigError(_TOO_SLOW)
            began = time.thread_time()
            self.take_mask(np.frombuffer(self.matcher.compute_bitmask(), np.uint32))
            self.took(time.thread_time() - began)
        if self._allowed is None or not self._allowed.any():
            raise self._lost("allows no token here")
        return self._allowed

    def allows(self, token: int) -> bool:
        """Returns whether a token may come next."""
        return has(self.allowed, token)

    def take_mask(self, words: np.ndarray) -> None:
        """Set the mask of tokens that may come after the forced ones."""
        if not self.matcher.is_error():
            self._allowed = words

    def advance(self, token: int) -> None:
        """Advance by the next token of the answer. ModelError if the grammar does not allow it."""
        if self.forced:
            expected = self.forced.popleft()
            assert token == expected
            return
        self._allowed = None
        matcher, began = self.matcher, time.thread_time()
        if not matcher.consume_token(token):
            raise self._lost(f"does not go on after token {token}")
        forced = matcher.compute_ff_tokens()
        if forced and not matcher.consume_tokens(forced):
            raise self._lost("does not take the tokens that it asks for")
        self.forced.extend(forced)
        self.took(time.thread_time() - began)

    def took(self, seconds: float) -> None:
        """Record processor time that was spent in the grammar's automaton."""
        self.growth.seconds += seconds

    def _lost(self, what: str) -> FirsthandError:
        reason = _reason(self.matcher)
        if any(word in reason for word in _LIMITS):
            self.growth.is_spoiled = True  # the automaton is shared: another answer begins with a new one
            return ConfigError(f"the grammar is too complex to follow: {reason}; make it simpler")
        return ModelError(f"the grammar {what}{f': {reason}' if reason else ''}; the answer cannot be finished")


class Masks:
    """Computes the masks of many guides together, on threads of its own, without the interpreter's lock."""

    def __init__(
        self, *, clock: Callable[[], float] = time.perf_counter, own_clock: Callable[[], float] = time.thread_time
    ) -> None:
        """`clock` tells real time, `own_clock` the processor time of the calling thread."""
        self._clock, self._own_clock = clock, own_clock
        self._pool: ThreadPoolExecutor | None = None
        self._executor: Any = None
        self._pending: Future[None] | None = None

    def start(self, guides: Iterable[Guide]) -> None:
        """Begin to compute the masks that these guides need; they must not be used until `finish`."""
        needy = [guide for guide in guides if guide.needs_mask]
        if not needy:
            return
        if self._pool is None:
            import llguidance

            self._pool = ThreadPoolExecutor(1, thread_name_prefix="firsthand-masks")
            self._executor = llguidance.LLExecutor()
        self._pending = self._pool.submit(self._fill, needy)

    def finish(self) -> None:
        """Wait for the masks. Where that failed, the guide computes its mask again and raises the reason."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.exception()

    def _fill(self, guides: list[Guide]) -> None:
        here = [guide for guide in guides if not isinstance(guide.matcher, IsolatedMatcher)]
        if here:
            self._fill_here(here)
        for guide in guides:
            if isinstance(guide.matcher, IsolatedMatcher):
                with suppress(FirsthandError):  # the guide asks again, and raises the reason
                    guide.take_mask(np.frombuffer(guide.matcher.compute_bitmask(), np.uint32))

    def _fill_here(self, guides: list[Guide]) -> None:
        """Fill masks in batches that double while they are quick; grammars of a slow batch are watched from then on."""
        size = 2
        while batch := [guide for guide in guides if guide.needs_mask and not guide.growth.is_watched][:size]:
            began = self._clock()
            self._fill_batch(batch)
            took = self._clock() - began
            for guide in batch:
                guide.took(took)
                guide.growth.is_watched = took > _QUICK_S
            guides = [guide for guide in guides if guide not in batch]
            size *= 2
        self._fill_watched([guide for guide in guides if guide.growth.is_watched])

    def _fill_batch(self, guides: list[Guide]) -> None:
        words = (guides[0].vocab_size + 31) // 32
        bits = np.zeros((len(guides), words), dtype=np.uint32)
        matchers = [(guide.matcher, row) for row, guide in enumerate(guides)]
        self._executor.unsafe_compute_mask_ptr(matchers, bits.ctypes.data, words * 4, len(guides))
        for guide, row in zip(guides, bits, strict=True):
            guide.take_mask(row)

    def _fill_watched(self, guides: list[Guide]) -> None:
        """Fill masks one by one. Whenever they took longer than a step has, the slowest grammar is given up."""
        spent: dict[int, list[float]] = {}
        by_id = {id(guide.growth): guide.growth for guide in guides}
        for guide in guides:
            if guide.growth.is_too_slow:
                continue
            began = self._own_clock()
            guide.take_mask(np.frombuffer(guide.matcher.compute_bitmask(), np.uint32))
            took = self._own_clock() - began
            guide.took(took)
            spent.setdefault(id(guide.growth), []).append(took)
            slowest = max(spent, key=lambda each: sum(spent[each]))
            if sum(map(sum, spent.values())) > _STEP_S and _mean(spent[slowest]) >= _MASK_S:
                by_id[slowest].is_too_slow = True
                del spent[slowest]
        for each, seconds in spent.items():
            by_id[each].is_watched = _mean(seconds) >= _MASK_S


def _mean(seconds: list[float]) -> float:
    return sum(seconds) / len(seconds)


def _reason(matcher: Any) -> str:
    return " ".join(str(matcher.get_error()).replace("<non-verbose/>", "").split())[:200]


def _begun(grammar: Grammar, matcher: Any, vocab_size: int, forcing: bool) -> CompiledGrammar:
    """The compiled grammar, past the tokens that every text of it begins with."""
    forced = matcher.compute_ff_tokens()
    matcher.consume_tokens(forced)
    allowed = None
    if not matcher.is_stopped():
        allowed = np.frombuffer(matcher.compute_bitmask(), np.uint32)
    if matcher.is_error():
        raise ConfigError(f"the {grammar.kind} grammar is too complex: {_reason(matcher)}; make it simpler")
    if not (matcher.is_accepting() if allowed is None else allowed.any()):
        raise ConfigError(f"no text fits the {grammar.kind} grammar: {grammar.source[:100]!r}")
    return CompiledGrammar(grammar, vocab_size, matcher, tuple(forced), allowed, forcing)


def bits(ids: Iterable[int] | None, vocab_size: int) -> np.ndarray:
    """A mask, one bit per token in words of 32, with the bits of these ids set; None sets all."""
    flags = np.zeros(-(-vocab_size // WORD) * WORD, dtype=np.uint8)
    flags[slice(vocab_size) if ids is None else np.fromiter(ids, dtype=np.int64)] = 1
    return np.packbits(flags, bitorder="little").view(np.uint32)


def has(words: np.ndarray, token: int) -> bool:
    """Returns whether a token's bit is set."""
    return token < len(words) * WORD and bool(int(words[token // WORD]) >> token % WORD & 1)


def ids_of(words: np.ndarray) -> np.ndarray:
    """The ids whose bits are set, ascending."""
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
