"""Validates requests before the engine spends anything on them: lengths first, then values, then memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from firsthand.engine.core.sequence import Request
from firsthand.engine.decoding.constraint import CompiledGrammar
from firsthand.engine.decoding.token_filter import TokenFilter
from firsthand.engine.memory.blocks import BlockPool
from firsthand.engine.memory.window_pool import SlidingWindowPool
from firsthand.errors import ConfigError, ModelError, PromptTooLong
from firsthand.model import Sampling
from firsthand.nn.architecture import Architecture
from firsthand.sampling import MAX_BAD_WORDS
from firsthand.system.field_types import shown

MAX_ANSWERS = 1024
MAX_CONTINUATIONS = 1 << 16
MAX_STOP_IDS = 1024
MAX_BAD_SEQUENCES = 8 * MAX_BAD_WORDS
MAX_PRIORITY = 1000
MAX_TOP = 100
MAX_OWNER_CHARS = 256


def check_request(request: Request, architecture: Architecture) -> None:
    """Raise PromptTooLong, ModelError or ConfigError if a request is invalid."""
    check_num_answers(request.n)
    _check_owner(request.priority, request.owner, request.salt)
    _check_parts(request)
    if len(request.prompt) >= architecture.max_position:
        raise _too_long(len(request.prompt), 1, architecture)
    check_ids(request.prompt, "the prompt", architecture)
    if len(request.stop_ids) > MAX_STOP_IDS:
        raise ConfigError(f"there are {len(request.stop_ids)} stop_ids: give at most {MAX_STOP_IDS}")
    if request.stop_ids:
        check_ids(sorted(request.stop_ids, key=str), "stop_ids", architecture)
    _check_sampling(request.sampling)
    if request.sampling.logit_bias:
        biased = [token for token, _ in request.sampling.logit_bias]
        check_ids(biased, "logit_bias", architecture)
        if len(set(biased)) < len(biased):
            raise ConfigError("logit_bias names a token twice: give one bias for each")
    if request.sampling.stop_ids:
        check_ids(request.sampling.stop_ids, "stop_ids", architecture)
    if request.token_filter is None:
        if request.sampling.allowed_token_ids is not None:
            check_ids(request.sampling.allowed_token_ids, "allowed_token_ids", architecture)
        _check_bad_sequences(request, architecture)
    elif request.token_filter.vocab_size != architecture.vocab_size:
        raise ConfigError(
            f"the token_filter was made for {request.token_filter.vocab_size} tokens and the model has "
            f"{architecture.vocab_size}: make it for this model"
        )
    _check_grammar(request, architecture)


def check_num_answers(n: int) -> None:
    """Raise ConfigError unless `n` is a valid number of answers."""
    _check_number("n", n, 1, MAX_ANSWERS)


def check_score(
    prefix: Sequence[int],
    continuations: Sequence[Sequence[int]],
    priority: int,
    owner: str,
    architecture: Architecture,
    *,
    top: int = 0,
    salt: str = "",
) -> None:
    """Raise PromptTooLong, ModelError or ConfigError if a scoring request is invalid."""
    _check_owner(priority, owner, salt)
    _check_number("top", top, 0, MAX_TOP)
    _check_list(prefix, "the prefix")
    _check_list(continuations, "the argument continuations", "continuations")
    if len(continuations) > MAX_CONTINUATIONS:
        raise ConfigError(f"there are {len(continuations)} continuations: give at most {MAX_CONTINUATIONS} at a time")
    for place, continuation in enumerate(continuations):
        _check_list(continuation, f"continuation {place}")
    longest = max(map(len, continuations), default=0)
    if len(prefix) + longest > architecture.max_position:
        raise _too_long(len(prefix), longest, architecture)
    check_ids(prefix, "the prefix", architecture)
    for place, continuation in enumerate(continuations):
        if continuation:
            check_ids(continuation, f"continuation {place}", architecture)


def check_prefix(tokens: Sequence[int], salt: str, architecture: Architecture) -> None:
    """Raise ModelError or ConfigError if a prefix cannot be pinned."""
    _check_owner(0, "", salt)
    check_ids(tokens, "the prefix to pin", architecture)


def check_ids(ids: Sequence[int], what: str, architecture: Architecture) -> None:
    """Raise ModelError if there are no ids, or if one is outside the vocabulary."""
    _check_list(ids, what)
    if not ids:
        raise ModelError(f"{what} is empty: give one token or more, such as the model's start token")
    vocab = architecture.vocab_size
    if set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) < vocab:
        return
    for place, token in enumerate(ids):
        if not isinstance(token, int) or not 0 <= token < vocab:
            raise ModelError(
                f"token {place} of {what} is {shown(token)}: expected a whole number from 0 to {vocab - 1}"
            )


def check_room(num_prompt: int, num_more: int, pool: BlockPool | SlidingWindowPool, longest_chunk: int) -> None:
    """Raise PromptTooLong if a sequence could not finish even with the whole KV cache to itself."""
    for part in pool.pools:
        blocks = part.most_blocks_for(num_prompt + num_more, longest_chunk)
        if blocks > part.num_usable:
            raise PromptTooLong(
                f"prompt and answer may need {blocks * part.block_size} tokens of memory and there is room for "
                f"{part.num_usable * part.block_size}: lower max_tokens or raise kv_memory_bytes"
            )


def _too_long(num_prompt: int, num_more: int, architecture: Architecture) -> PromptTooLong:
    return PromptTooLong(
        f"the prompt has {num_prompt} tokens and at least {num_more} must follow: the model's context is "
        f"{architecture.max_position}"
    )


def _check_owner(priority: int, owner: str, salt: str) -> None:
    _check_number("priority", priority, -MAX_PRIORITY, MAX_PRIORITY)
    for what, text in (("owner", owner), ("salt", salt)):
        if not isinstance(text, str) or len(text) > MAX_OWNER_CHARS:
            raise ConfigError(f"{what} is {shown(text)}: give a text of at most {MAX_OWNER_CHARS} characters")


def _check_parts(request: Request) -> None:
    """Check the types of a request's fields; numbers and texts are checked elsewhere."""
    _check_list(request.prompt, "the prompt")
    stop_ids, stopper, grammar = request.stop_ids, request.stopper, request.grammar
    checks = [
        ("sampling", isinstance(request.sampling, Sampling), "a Sampling"),
        ("stop_ids", isinstance(stop_ids, frozenset | set | tuple | list), "a set of token ids"),
        ("bad_sequences", isinstance(request.bad_sequences, tuple | list), "a tuple of tuples of token ids"),
        ("stopper", stopper is None or callable(stopper), "None or a function that returns a Stopper"),
        ("token_filter", isinstance(request.token_filter, TokenFilter | None), "None or a TokenFilter"),
        ("grammar", isinstance(grammar, CompiledGrammar | None), "None or a CompiledGrammar from Grammars"),
    ]
    for name, good, expected in checks:
        if not good:
            raise ConfigError(f"{name} is {shown(getattr(request, name))}: give {expected}")


def _check_list(row: object, what: str, of: str = "token ids") -> None:
    if not isinstance(row, Sequence):
        raise ModelError(f"{what} is {shown(row)}: give a tuple or list of {of}")


def _check_sampling(sampling: Sampling) -> None:
    """Check what Sampling accepts but the engine cannot use: number types, infinities, seeds beyond 64 bits."""
    _check_number("max_tokens", sampling.max_tokens, 1, None)
    _check_number("min_tokens", sampling.min_tokens, 0, None)
    _check_number("top_k", sampling.top_k, 0, None)
    _check_number("top_logprobs", sampling.top_logprobs, 0, MAX_TOP)
    if sampling.seed is not None:
        _check_number("seed", sampling.seed, -(2**63), 2**64 - 1)
    if not math.isfinite(sampling.repetition_penalty):
        raise ConfigError(f"repetition_penalty is {sampling.repetition_penalty}: give a finite number above 0")


def _check_bad_sequences(request: Request, architecture: Architecture) -> None:
    sequences = request.bad_sequences
    if request.sampling.bad_words and not sequences:
        raise ConfigError("the sampling has bad_words that were not encoded: give their tokens as bad_sequences")
    if len(sequences) > MAX_BAD_SEQUENCES:
        raise ConfigError(f"there are {len(sequences)} bad_sequences: give at most {MAX_BAD_SEQUENCES}")
    for place, sequence in enumerate(sequences):
        check_ids(sequence, f"bad sequence {place}", architecture)


def _check_grammar(request: Request, architecture: Architecture) -> None:
    grammar, source = request.grammar, request.sampling.grammar
    if grammar is None and source is not None:
        raise ConfigError(
            f"the sampling has a {source.kind} grammar that was not compiled: give Grammars(...).compile's result"
        )
    if grammar is not None and grammar.forcing and (request.bad_sequences or request.sampling.allowed_token_ids):
        raise ConfigError("the request forbids tokens and its grammar forces some: compile it with forcing=False")
    if grammar is not None and grammar.vocab_size > architecture.vocab_size:
        raise ConfigError(
            f"the grammar was compiled for {grammar.vocab_size} tokens and the model has {architecture.vocab_size}: use the "
            "model's own tokenizer"
        )


def _check_number(name: str, value: object, least: int, most: int | None) -> None:
    if not isinstance(value, int) or value < least or (most is not None and value > most):
        expected = f"{least} to {most}" if most is not None else f"{least} or more"
        raise ConfigError(f"{name} is {shown(value)}: give {expected}")
