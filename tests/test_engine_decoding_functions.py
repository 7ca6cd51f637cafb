"""Draws, masks and guides one function at a time, on rows and texts small enough to work out by hand."""

from __future__ import annotations

import math
from collections import Counter, deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.engine.core.sequence import Sequence
from firsthand.engine.decoding import constraint, sampler, token_choice
from firsthand.engine.decoding.batched_sampler import DrawSettings, draw_rows
from firsthand.engine.decoding.constraint import CompiledGrammar, Guide, Masks, _begun, bits, has, ids_of
from firsthand.errors import ConfigError, ModelError
from firsthand.grammar import regex
from firsthand.model import Sampling
from firsthand.nn.compiled_decoder import LogitRow


def answer(id: int, *tokens: int, index: int = 0, **fields: Any) -> Sequence:
    return Sequence(id, index, list(tokens), fields.pop("prompt", 1), max_tokens=99, **fields)


def row(*scores: float, **more: Any) -> LogitRow:
    values = torch.tensor(scores)
    return LogitRow(values, int(values.argmax()), float(values.logsumexp(0)), **more)


def test_an_output_says_whose_it_is_and_what_it_cost() -> None:
    adapter: Any = SimpleNamespace(name="red", version=6)
    made = answer(4, 1, 2, 3, index=2, prompt=2, adapter=adapter, num_cached=9, waited_s=1.5)
    found = token_choice.output(made, 8, (3,), (-1.0,), True, (((3, -1.0),),), "length", behaviour=(-2.0,))
    assert vars(found) == {
        "request_id": 4, "index": 2, "token_ids": (3,), "logprobs": (-1.0,), "is_greedy": True,
        "top_logprobs": (((3, -1.0),),),
        "finish_reason": "length", "error": None, "behaviour_logprobs": (-2.0,), "prompt_tokens": 2, "cached_tokens": 2,
        "waited_s": 1.5, "version": 8, "adapter": "red", "adapter_version": 6, "distribution": None,
    }  # fmt: skip
    error = ModelError("x")
    failed = token_choice.failed(answer(5, 1, num_cached=0), 3, error)
    assert (failed.error, failed.is_last, failed.is_greedy, failed.token_ids, failed.version) == (
        error,
        True,
        False,
        (),
        3,
    )
    assert (failed.adapter, failed.adapter_version, failed.cached_tokens, failed.waited_s) == (None, 0, 0, 0.0)


def test_a_token_is_taken_from_the_grammar_the_device_or_the_row_in_this_order() -> None:
    guide: Any = SimpleNamespace(forced=deque([7, 8]), allowed=bits([0, 2], 3))
    hot = Sampling(temperature=1.0)
    scores = (1.0, 3.0, 2.0)
    assert token_choice._choose(answer(1, 0, guide=guide, sampling=hot), row(*scores, drawn=1)) == (7, 0.0)
    guide.forced.clear()
    assert token_choice._choose(answer(1, 0, sampling=hot), row(*scores, drawn=2, drawn_logprob=-4.0)) == (2, None)
    warm = Sampling(temperature=0.5)
    assert token_choice._choose(answer(1, 0, sampling=warm), row(*scores, drawn=2, drawn_logprob=-4.0)) == (2, -4.0)
    cold = Sampling(temperature=0.0)
    assert token_choice._choose(answer(1, 0, sampling=cold), row(*scores)) == (1, 0.0)
    assert token_choice._choose(answer(1, 0, guide=guide, sampling=cold), row(*scores)) == (2, 0.0)
    punished = Sampling(temperature=0.0, presence_penalty=1.5)
    assert token_choice._choose(answer(1, 0, 1, sampling=punished, counts=Counter({1: 1})), row(*scores))[0] == 2
    repeated = Sampling(temperature=0.0, repetition_penalty=2.0)
    assert token_choice._choose(answer(1, 1, 0, sampling=repeated), row(*scores))[0] == 2, "the prompt counts"
    assert token_choice._choose(answer(1, 0, 1, sampling=repeated), row(*scores))[0] == 1
    number = sampler.uniform(8, 0, 2)
    whole = sum(math.exp(each) for each in scores)
    ends = [sum(math.exp(each) for each in scores[: count + 1]) / whole for count in range(3)]
    expected = next(place for place, end in enumerate(ends) if number < end)
    assert token_choice._choose(answer(1, 0, 0, seed=8, sampling=hot), row(*scores)) == (expected, None)
    token, behaviour = token_choice._choose(answer(1, 0, 0, seed=8, sampling=hot, guide=guide), row(*scores))
    assert token in (0, 2) and behaviour == pytest.approx(scores[token] - math.log(math.exp(1) + math.exp(2)), abs=1e-5)


def test_allowed_tokens_are_gathered_by_bits_and_found_by_number() -> None:
    from firsthand.engine.decoding import mask_kernel

    logits = np.arange(70, dtype=np.float32) * 2
    for allowed in ([0, 31, 32, 69], [*range(32), 40], [*range(32, 64), 68], [5], list(range(70)), [63, 64]):
        words = bits(allowed, 70)
        for run in (mask_kernel.take, getattr(mask_kernel.take, "py_func", mask_kernel.take)):
            assert run(logits, words).tolist() == [2.0 * each for each in allowed]
        for run in (mask_kernel.nth, getattr(mask_kernel.nth, "py_func", mask_kernel.nth)):
            assert [int(run(words, number)) for number in range(len(allowed))] == allowed
            assert int(run(words, len(allowed))) == -1
        assert ids_of(words).tolist() == allowed and [token for token in range(128) if has(words, token)] == allowed
    take = getattr(mask_kernel.take, "py_func", mask_kernel.take)
    assert take(logits[:40], bits(None, 70)).tolist() == logits[:40].tolist(), "tokens beyond the row are left out"
    assert take(logits, bits([1, 31], 32)).tolist() == [2.0, 62.0] and take(logits, bits([], 70)).tolist() == []
    assert bits(None, 33).tolist() == [2**32 - 1, 1] and bits([], 5).tolist() == [0] and not has(bits(None, 32), 32)


def test_rows_are_drawn_where_they_have_settings_and_left_where_not() -> None:
    scores = torch.tensor([[0.0, 1.0, 2.0], [2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [1.0, 2.0, 0.5]])
    otherwise = torch.tensor([9, 8, 7, 6])
    draws = [
        DrawSettings(1.0, 0, 1.0, 0.0, 0.5),
        None,
        DrawSettings(0.5, 2, 1.0, 0.0, 0.999),
        DrawSettings(2.0, 0, 1.0, 0.5, 0.3),
    ]
    found = draw_rows(scores, draws, otherwise=otherwise)
    assert found.tokens.tolist() == [2, 8, 0, 0] and otherwise.tolist() == [9, 8, 7, 6]
    first = 2.0 - math.log(1 + math.e + math.e**2)  # weights of 0, 1, 2: the half is passed by the last
    third = 0.0 - math.log(math.exp(6) + 1)  # of the two best, most probable first: id 1, then 0
    weights = [math.exp(-0.5), 1.0, math.exp(-0.75)]  # the last is below half of the best, and so left out
    assert weights[0] / sum(weights) < 0.3 < weights[0] / (weights[0] + weights[1])
    fourth = math.log(weights[0] / (weights[0] + weights[1]))
    assert found.logprobs.dtype == torch.float64
    assert found.logprobs.tolist() == pytest.approx([first, 0.0, third, fourth])
    lone = draw_rows(scores[:1], draws[:1], otherwise=otherwise[:1])
    assert lone.logprobs.tolist() == [0.0], "the model's own log-prob is known anyway"


class Matcher:
    """A grammar's automaton for one text, written down: each token, and what is forced after it."""

    def __init__(
        self, allowed: list[int], *, forced: dict[int, list[int]] | None = None, ends: int = 99, error: str = ""
    ):
        self.allowed, self.forced, self.ends, self.error = allowed, forced or {}, ends, error
        self.taken: list[int] = []
        self.broken = False

    def deep_copy(self) -> Matcher:
        return Matcher(self.allowed, forced=self.forced, ends=self.ends, error=self.error)

    def consume_token(self, token: int) -> bool:
        self.taken.append(token)
        return token in self.allowed

    def consume_tokens(self, tokens: list[int]) -> bool:
        self.taken += tokens
        return 66 not in tokens

    def compute_ff_tokens(self) -> list[int]:
        return self.forced.get(self.taken[-1] if self.taken else -1, [])

    def compute_bitmask(self) -> bytes:
        return bits(self.allowed, 70).tobytes()

    def is_stopped(self) -> bool:
        return len(self.taken) >= self.ends

    def is_accepting(self) -> bool:
        return 5 not in self.taken

    def is_error(self) -> bool:
        return self.broken

    def get_error(self) -> str:
        return self.error


def guide_of(matcher: Matcher, *forced: int, allowed: Any = None) -> Guide:
    return CompiledGrammar(regex("ab"), 70, matcher, tuple(forced), allowed).guide()


def test_a_guide_takes_what_is_forced_and_then_what_is_allowed() -> None:
    matcher = Matcher([1, 2, 40], forced={2: [7, 8]}, ends=5)
    guide = guide_of(matcher, 3, 4)
    assert list(guide.forced) == [3, 4] and guide.vocab_size == 70 and guide.matcher is not matcher and guide.needs_mask
    guide.advance(3)
    with pytest.raises(AssertionError):
        guide.advance(3)
    guide.forced.clear()
    assert (
        guide.allows(40)
        and not guide.allows(41)
        and not guide.needs_mask
        and ids_of(guide.allowed).tolist() == [1, 2, 40]
    )
    guide.advance(1)
    assert guide.needs_mask and not guide.forced and guide.matcher.taken == [1]
    guide.advance(2)
    assert list(guide.forced) == [7, 8] and guide.matcher.taken == [1, 2, 7, 8] and not guide.is_done
    guide.forced.clear()
    guide.advance(1)
    assert guide.is_done and not guide.needs_mask and matcher.taken == []
    with pytest.raises(ModelError) as told:
        guide.advance(9)
    assert str(told.value) == "the grammar does not go on after token 9; the answer cannot be finished"
    stuck = guide_of(Matcher([5], ends=1))
    stuck.advance(5)
    assert not stuck.is_done, "it stopped where no text ends"
    broken = guide_of(Matcher([1], forced={1: [66]}, error="<non-verbose/> odd \n token"))
    with pytest.raises(ModelError) as told:
        broken.advance(1)
    assert (
        str(told.value)
        == "the grammar does not take the tokens that it asks for: odd token; the answer cannot be finished"
    )
    empty = guide_of(Matcher([], error="limit of states"))
    with pytest.raises(ConfigError) as told:
        empty.allowed  # noqa: B018
    assert (
        str(told.value) == "the grammar is too complex to follow: limit of states; make it simpler"
        and empty.growth.is_spoiled
    )
    known = guide_of(Matcher([1]), allowed=bits([6], 70))
    assert ids_of(known.allowed).tolist() == [6] and not known.needs_mask
    known.matcher.broken = True
    known.take_mask(bits([7], 70))
    assert ids_of(known.allowed).tolist() == [6]
    known.took(0.25)
    known.took(0.5)
    assert known.growth.seconds == 0.75


def test_a_compiled_grammar_begins_behind_what_every_text_begins_with() -> None:
    grammar = regex("ab")
    found = _begun(grammar, matcher := Matcher([1, 9], forced={-1: [3, 4]}), 70, False)
    assert (found.grammar, found.vocab_size, found.matcher, found.forced, found.forcing) == (
        grammar,
        70,
        matcher,
        (3, 4),
        False,
    )
    assert found.allowed is not None and ids_of(found.allowed).tolist() == [1, 9] and matcher.taken == [3, 4]
    assert (
        found.num_bytes == 4 * len(grammar.source) + 12 + (128 << 10) + 64 * len(grammar.source) and not found.is_in_use
    )
    whole = _begun(grammar, Matcher([], forced={-1: [3]}, ends=1), 70, True)
    assert whole.allowed is None and whole.forced == (3,) and whole.num_bytes == found.num_bytes - 12
    for matcher, says in (
        (Matcher([]), f"no text fits the {grammar.kind} grammar: {grammar.source[:100]!r}"),
        (Matcher([], forced={-1: [5]}, ends=1), f"no text fits the {grammar.kind} grammar: {grammar.source[:100]!r}"),
    ):
        with pytest.raises(ConfigError) as told:
            _begun(grammar, matcher, 70, True)
        assert str(told.value) == says
    for allowed, forced, ends in (([1], {}, 99), ([], {}, 99), ([], {-1: [5]}, 1), ([], {-1: [3]}, 1)):
        matcher = Matcher(allowed, forced=forced, ends=ends, error="x" * 300)
        matcher.broken = True
        with pytest.raises(ConfigError) as told:
            _begun(grammar, matcher, 70, True)
        assert str(told.value) == f"the {grammar.kind} grammar is too complex: {'x' * 200}; make it simpler"


def test_masks_of_several_guides_are_computed_in_rows_of_their_own() -> None:
    masks = Masks()
    masks.finish()
    masks.start([guide_of(Matcher([1]), allowed=bits([6], 70))])
    assert masks._pending is None and masks._pool is None, "nobody needs one"
    guides = [guide_of(Matcher(allowed)) for allowed in ([1, 2], [69])]

    def fill(matchers: Any, pointer: int, width: int, rows: int) -> None:
        assert (width, rows, [place for _, place in matchers]) == (12, 2, [0, 1])
        for matcher, place in matchers:
            words = np.frombuffer(matcher.compute_bitmask(), np.uint8)
            import ctypes

            ctypes.memmove(pointer + place * width, words.ctypes.data, width)

    masks._executor = SimpleNamespace(unsafe_compute_mask_ptr=fill)
    masks._fill(guides)
    assert [ids_of(guide.allowed).tolist() for guide in guides] == [[1, 2], [69]] and guides[0].growth.seconds > 0


def test_the_seconds_that_answers_spend_in_a_grammar_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    thread, wall = iter([10.0, 10.5, 20.0, 21.25]), iter([100.0, 102.0, 200.0, 203.0])
    clock = SimpleNamespace(thread_time=lambda: next(thread))
    monkeypatch.setattr("firsthand.engine.decoding.constraint.time", clock)
    guide = guide_of(Matcher([1, 2]))
    assert ids_of(guide.allowed).tolist() == ids_of(guide.allowed).tolist() == [1, 2], "computed once"
    assert guide.growth.seconds == 0.5
    guide.advance(1)
    assert guide.growth.seconds == 1.75
    compiled = CompiledGrammar(regex("ab"), 70, Matcher([1]), (), None)
    batch = [compiled.guide(), compiled.guide(), guide]
    masks = Masks(clock=lambda: next(wall))
    masks._executor = SimpleNamespace(unsafe_compute_mask_ptr=lambda *arguments: None)
    masks._fill(batch)
    told = "the time of a whole batch of two counts for each"
    assert (compiled.growth.seconds, guide.growth.seconds) == (2.0 + 2.0, 1.75 + 3.0), told
    assert compiled.growth.is_watched and guide.growth.is_watched
    assert [each.needs_mask for each in batch] == [False, False, False]


def test_the_time_in_a_grammar_is_that_of_each_mask_and_each_token_that_is_not_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = [10.0, 10.5, 20.0, 21.0, 30.0, 32.0, 40.0]
    monkeypatch.setattr(constraint, "time", SimpleNamespace(thread_time=lambda: ticks.pop(0)))
    guide = guide_of(Matcher([1, 2], forced={2: [7, 8]}), 3)
    assert guide.growth.seconds == 0
    guide.advance(3)
    assert (guide.growth.seconds, len(ticks)) == (0, 7), "what is forced costs nothing"
    assert guide.allows(1) and guide.allows(2) and guide.growth.seconds == 0.5, "the mask is computed once"
    guide.advance(1)
    assert guide.growth.seconds == 0.5 + 1.0
    guide.advance(2)
    assert list(guide.forced) == [7, 8] and guide.growth.seconds == 0.5 + 1.0 + 2.0
    guide.advance(7)
    guide.advance(8)
    assert not guide.forced and (guide.growth.seconds, ticks) == (3.5, [40.0])
