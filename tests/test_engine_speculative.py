"""Guesses change no token and no bit of a log-prob, whoever guesses and whatever else the engine does."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import speculation
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

import tiny
from engine_tiny import VOCAB, drain, logprobs, plain_logprobs, tiny_model, tokens
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.sequence import Request, SequenceChunk
from firsthand.engine.core.sequence import Sequence as Line
from firsthand.engine.decoding.drafts import MAX_CANDIDATES, MAX_MATCH, DraftModel, PromptLookup
from firsthand.engine.decoding.speculative import MAX_REST, Drafter, DraftRequest, Pace
from firsthand.engine.memory.blocks import BlockPool
from firsthand.errors import ConfigError
from firsthand.message import user
from firsthand.model import Completion, Sampling
from firsthand.nn import weights
from firsthand.nn.blocks.attention import Attend
from firsthand.nn.decoder import Decoder
from firsthand.nn.quant import best_mode
from firsthand.providers.local import Local
from firsthand.tokens import pretrained
from firsthand.tokens.templates.chat_template import ChatTemplate

needs_equal_rows = pytest.mark.skipif(best_mode() == "float32", reason="MKL's rows depend on the batch")
BLOCK_BYTES = 16 * 512


class Answer(NamedTuple):
    """All that a caller sees of one answer, but for how it was cut into outputs."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...]
    finish_reason: str | None
    is_greedy: bool


class Oracle:
    """Knows the answers, and lies about some tokens."""

    def __init__(self, answers: dict[tuple[int, int], Answer], lies: float = 0.0, seed: int = 0):
        self.answers = answers
        self.lies = lies
        self.random = random.Random(seed)
        self.forgotten: list[tuple[int, int]] = []

    def propose(self, asks: Sequence[DraftRequest]) -> list[list[int]]:
        return [
            [self._tell(token) for token in self.answers[line.request_id, line.index].tokens[line.num_answer :][:most]]
            for line, most in asks
        ]

    def forget(self, line: Line) -> None:
        self.forgotten.append((line.request_id, line.index))

    def _tell(self, token: int) -> int:
        return self.random.randrange(VOCAB) if self.random.random() < self.lies else token


class Chatter:
    """Proposes what a function says, for each sequence and number of tokens."""

    def __init__(self, say: Callable[[Line, int], Sequence[int]]):
        self.say = say

    def propose(self, asks: Sequence[DraftRequest]) -> list[Sequence[int]]:
        return [self.say(line, most) for line, most in asks]

    def forget(self, line: Line) -> None:
        pass


class AtToken:
    """Ends an answer the third time that a token of the lower half comes."""

    def __init__(self) -> None:
        self.seen = 0

    def feed(self, token_id: int) -> bool:
        self.seen += token_id < VOCAB // 2
        return self.seen == 3


def engine_of(draft: Decoder | Drafter | None = None, **settings: object) -> Engine:
    config = EngineConfig(**{"kv_memory_bytes": 1 << 21, "speculate_below": 32, **settings})  # type: ignore[arg-type]
    return Engine(tiny_model(), config, draft=draft)


def mixed_requests(count: int, seed: int) -> list[Request]:
    """Prompts with beginnings in common, every way to sample, every way to end."""
    rng = random.Random(seed)
    shared = [rng.randrange(VOCAB) for _ in range(50)]
    made = []
    for i in range(count):
        length = rng.randrange(1, 70)
        ways = [
            Sampling(max_tokens=length),
            Sampling(max_tokens=length, temperature=0.9, seed=i, top_logprobs=3),
            Sampling(max_tokens=length, temperature=0.7, top_p=0.9, top_k=20, seed=i, repetition_penalty=1.3),
            Sampling(max_tokens=length, frequency_penalty=0.9, presence_penalty=0.4, top_logprobs=1),
            Sampling(max_tokens=length, temperature=1.2, min_p=0.05, seed=i, frequency_penalty=0.5),
        ]
        made.append(
            Request(
                tuple(
                    shared[: rng.choice([0, 16, 33, 50])] + [rng.randrange(VOCAB) for _ in range(rng.randrange(1, 30))]
                ),
                rng.choice(ways),
                n=rng.choice([1, 1, 3]),
                stop_ids=frozenset(rng.sample(range(VOCAB), rng.choice([0, 0, 4]))),
                stopper=rng.choice([None, None, AtToken]),
            )
        )
    return made


GROWING = [Request((i, 1), Sampling(max_tokens=120, temperature=1.0, seed=i)) for i in range(4)]
"""Requests that start small, so that many are admitted, and grow until memory is short."""


def run(engine: Engine, work: Sequence[Request], *, seed: int | None = None) -> dict[tuple[int, int], Answer]:
    """The answers, added all at once, or a few now and then."""
    rng, outputs = random.Random(seed), dict[tuple[int, int], list[Output]]()
    waiting = list(work)
    while waiting or engine.has_work:
        for _ in range(len(waiting) if seed is None else rng.choice([0, 0, 1, 3])):
            if waiting:
                engine.add(waiting.pop(0))
        for output in engine.step():
            assert output.error is None
            assert len(output.token_ids) == len(output.logprobs) > 0
            outputs.setdefault((output.request_id, output.index), []).append(output)
        engine.pool.check()
    assert engine.stats().running == engine.stats().waiting == 0
    assert engine.pool.num_available == engine.pool.num_usable
    return {key: whole(found) for key, found in outputs.items()}


def whole(outputs: list[Output]) -> Answer:
    assert [output.is_last for output in outputs] == [False] * (len(outputs) - 1) + [True]
    return Answer(
        tokens(outputs),
        logprobs(outputs),
        tuple(top for output in outputs for top in output.top_logprobs),
        outputs[-1].finish_reason,
        all(output.is_greedy for output in outputs),
    )


@pytest.mark.slow
@needs_equal_rows
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("roomy", {}),
        ("chunked prompts", {"max_batch_tokens": 13, "max_sequences": 5}),
        ("preempted", {"kv_memory_bytes": BLOCK_BYTES * 10, "max_sequences": 8}),
        ("both", {"kv_memory_bytes": BLOCK_BYTES * 10, "max_batch_tokens": 21, "max_sequences": 9}),
        ("long drafts", {"draft_tokens": 40, "speculate_below": 200}),
        ("compiled step", {"weights": "int8"}),
        pytest.param("small keys", {"weights": "int8", "kv_cache": "int8"}, marks=pytest.mark.slow),  # another kernel
    ],
)
@pytest.mark.parametrize("lies", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_answers_are_the_same_bit_for_bit_with_guesses_right_and_wrong(
    name: str, settings: dict[str, Any], lies: float
) -> None:
    work = [*GROWING, *mixed_requests(30, seed=3)]
    expected = run(engine_of(**{k: v for k, v in settings.items() if k in ("weights", "kv_cache")}), work)
    engine = engine_of(Oracle(expected, lies), **settings)
    assert run(engine, work, seed=5) == expected
    stats = engine.stats()
    assert stats.accepted_tokens > 0 and (lies == 0 or stats.accepted_tokens < stats.drafted_tokens)
    assert (stats.preemptions > 0) == ("kv_memory_bytes" in settings)
    if name == "roomy":
        assert stats.decode_tokens == sum(len(answer.tokens) - 1 for answer in expected.values())


@pytest.mark.slow
@needs_equal_rows
def test_guesses_that_are_all_wrong_change_nothing_and_become_rare() -> None:
    work = [Request((1, 2, 3, i), Sampling(max_tokens=200), stop_ids=frozenset()) for i in range(2)]
    expected = run(engine_of(), work)
    wrong = Oracle({key: answer._replace(tokens=tuple((t + 1) % VOCAB for t in answer.tokens)) for key, answer in
                    expected.items()})  # fmt: skip
    engine = engine_of(wrong)
    assert run(engine, work) == expected
    stats = engine.stats()
    assert stats.accepted_tokens == 0
    assert stats.drafted_tokens < 2 * 200 * 1.3 / MAX_REST + 12


@needs_equal_rows
def test_one_step_brings_all_right_guesses_in_one_output() -> None:
    work = [Request((5, 6, 7), Sampling(max_tokens=60, top_logprobs=2))]
    expected = run(engine_of(), work)
    engine = engine_of(Oracle(expected))
    engine.add(work[0])
    sizes = [len(output.token_ids) for output in drain(engine)[0, 0]]
    assert sizes == [1, 5, 8, 8, 8, 8, 8, 8, 6]
    assert engine.stats().steps == 9
    assert engine.stats().accepted_tokens == 60 - 9


@pytest.mark.slow
@needs_equal_rows
@pytest.mark.parametrize("end", range(2, 14))
def test_an_answer_that_ends_within_a_draft_drops_what_was_guessed_beyond(end: int) -> None:
    """By a stop token, by a stopper, and by max_tokens, at every place of a draft."""

    class After:
        def __init__(self) -> None:
            self.left = end

        def feed(self, token_id: int) -> bool:
            self.left -= 1
            return self.left == 0

    base = Request((8, 9), Sampling(max_tokens=40, temperature=1.0, seed=3, top_logprobs=1))
    expected = run(engine_of(), [base])[0, 0]
    stop_id = expected.tokens[end - 1]
    first = expected.tokens.index(stop_id) + 1
    work = [
        Request(base.prompt, base.sampling, stop_ids=frozenset({stop_id})),
        Request(base.prompt, base.sampling, stopper=After),
        Request(base.prompt, Sampling(max_tokens=end, temperature=1.0, seed=3, top_logprobs=1)),
    ]
    found = run(engine_of(Oracle({(i, 0): expected for i in range(3)})), work)
    for i, (length, reason) in enumerate([(first, "stop"), (end, "stop"), (end, "length")]):
        assert found[i, 0].tokens == expected.tokens[:length]
        assert found[i, 0].logprobs == expected.logprobs[:length]
        assert found[i, 0].top_logprobs == expected.top_logprobs[:length]
        assert found[i, 0].finish_reason == reason


@needs_equal_rows
def test_the_prefix_tree_holds_accepted_text_only() -> None:
    """A second turn finds the whole answer, and what it finds has the bits of a fresh computation."""
    work = [Request(tuple(range(20)), Sampling(max_tokens=60))]
    expected = run(engine_of(), work)
    engine = engine_of(Oracle(expected, lies=0.4))
    assert run(engine, work) == expected
    assert engine.stats().accepted_tokens < engine.stats().drafted_tokens
    history = (*range(20), *expected[0, 0].tokens)
    assert len(engine.pool.match(history)) == 79 // 16, "the last token was chosen but never computed"
    assert engine.pool.num_cached <= engine.pool.blocks_for(79), "nothing else is in the tree"
    before = engine.stats().prefill_tokens
    scores = engine.score(history, [[1, 2], [3]])
    assert engine.stats().prefill_tokens - before <= len(history) - 79 // 16 * 16 + 1
    fresh = engine_of().score(history, [[1, 2], [3]])
    assert [score.logprobs for score in scores] == [score.logprobs for score in fresh]


@needs_equal_rows
def test_every_answer_under_way_gets_a_token_in_every_step_however_much_is_guessed() -> None:
    work = [Request((i, i + 1), Sampling(max_tokens=30)) for i in range(6)]
    expected = run(engine_of(), work)
    engine = engine_of(Oracle(expected), max_sequences=6, max_batch_tokens=16, speculate_below=1000, draft_tokens=200)
    for request in work:
        engine.add(request)
    long = engine.add(Request(tuple([7] * 200), Sampling(max_tokens=1)))
    engine.step()
    lengths = dict.fromkeys(range(6), 0)
    while any(engine.is_live(i) for i in range(6)):
        live = [i for i in range(6) if engine.is_live(i)]
        found = {output.request_id for output in engine.step()}
        assert found >= set(live) - {long}
        for i in live:
            lengths[i] += 1
    assert drain(engine)[long, 0], "and the long prompt got on"


@needs_equal_rows
def test_guesses_take_no_memory_that_an_answer_needs() -> None:
    """As many steps and as many preemptions as without guesses, or fewer."""
    work = [Request((i,) * 15, Sampling(max_tokens=60)) for i in range(4)]
    settings = {"kv_memory_bytes": BLOCK_BYTES * 12, "max_sequences": 4}
    plain = engine_of(**settings)
    expected = run(plain, work)
    engine = engine_of(Oracle(expected, lies=0.2), **settings)
    assert run(engine, work) == expected
    assert engine.stats().preemptions <= plain.stats().preemptions
    assert engine.stats().steps < plain.stats().steps


@needs_equal_rows
@pytest.mark.parametrize("index", [None, 0, 1])
def test_aborting_between_steps_frees_everything_and_leaves_the_others_as_they_were(index: int | None) -> None:
    work = [Request((1, 2, 3), Sampling(max_tokens=50, temperature=1.0, seed=1), n=2), Request((4, 5), Sampling())]
    work[1] = Request((4, 5), Sampling(max_tokens=50))
    expected = run(engine_of(), work)
    oracle = Oracle(expected)
    engine = engine_of(oracle)
    for request in work:
        engine.add(request)
    early = [output for _ in range(4) for output in engine.step()]
    engine.abort(0, index)
    found = drain(engine)
    for key in expected:
        mine = [output for output in early if (output.request_id, output.index) == key] + found[key]
        if key[0] == 1 or index not in (None, key[1]):
            assert whole(mine) == expected[key]
    assert engine.pool.num_available == engine.pool.num_usable
    assert set(oracle.forgotten) == set(expected)
    assert not engine.speculator._paces


@pytest.mark.slow
@pytest.mark.parametrize(
    "say",
    [
        lambda line, most: [VOCAB],
        lambda line, most: [-1] * most,
        lambda line, most: [1, 2**70],
        lambda line, most: [1.5],
        lambda line, most: ["a"],
        lambda line, most: [None],
        lambda line, most: range(10**9),
        lambda line, most: [torch.tensor(3)],
        lambda line, most: [3] * 100_000,
        lambda line, most: [],
        lambda line, most: list(line.tokens[-1:]) * most,
    ],
)
def test_a_mad_drafter_changes_nothing(say: Callable[[Line, int], Sequence[int]]) -> None:
    work = [Request((1, 2, 3), Sampling(max_tokens=30, temperature=1.0, seed=1), n=2)]
    expected = run(engine_of(weights="float32"), work)
    found = run(engine_of(Chatter(say), weights="float32"), work)
    assert {key: answer.tokens for key, answer in found.items()} == {k: answer.tokens for k, answer in expected.items()}


@pytest.mark.parametrize("method", ["propose", "forget", "too few"])
def test_a_drafter_that_fails_is_dismissed_with_a_warning(method: str) -> None:
    class Broken(Chatter):
        def propose(self, asks: Sequence[DraftRequest]) -> list[Sequence[int]]:
            if method == "propose":
                raise ZeroDivisionError("no")
            return [] if method == "too few" else [[1]] * len(asks)

        def forget(self, line: Line) -> None:
            raise ZeroDivisionError("no")

    work = [Request((1, 2, i), Sampling(max_tokens=5)) for i in range(2)]
    expected = run(engine_of(), work)
    with pytest.warns(UserWarning, match="speculation is off"):
        found = run(engine_of(Broken(lambda line, most: [])), work)
    assert {key: answer.tokens for key, answer in found.items()} == {k: answer.tokens for k, answer in expected.items()}


@pytest.mark.slow
def test_a_guess_that_the_model_cannot_compute_does_not_fail_the_answer() -> None:
    class Fussy(Decoder):
        def forward(self, ids_N: torch.Tensor, positions_N: torch.Tensor, attend: Attend) -> torch.Tensor:
            if (ids_N == 13).any():
                raise MemoryError("not for a 13")
            return super().forward(ids_N, positions_N, attend)

    model = Fussy(tiny_model().architecture)
    model.load_state_dict(tiny_model().state_dict())
    expected = run(engine_of(), [Request((1, 2), Sampling(max_tokens=12))])[0, 0].tokens
    assert 13 not in expected
    engine = Engine(model, EngineConfig(kv_memory_bytes=1 << 21), draft=Chatter(lambda line, most: [13]))
    assert run(engine, [Request((1, 2), Sampling(max_tokens=12))])[0, 0].tokens == expected


@needs_equal_rows
def test_a_guess_whose_numbers_are_nan_does_no_harm() -> None:
    model = tiny_model(tied=False)
    with torch.no_grad():
        model.embed.weight[5] = float("nan")
    request = Request((1, 2), Sampling(max_tokens=12))
    plain = Engine(model, EngineConfig(kv_memory_bytes=1 << 21))
    expected = run(plain, [request])
    assert 5 not in expected[0, 0].tokens
    engine = Engine(model, EngineConfig(kv_memory_bytes=1 << 21), draft=Chatter(lambda line, most: [5] * most))
    assert run(engine, [request]) == expected
    assert engine.stats().drafted_tokens > 0


@pytest.mark.slow
@needs_equal_rows
@pytest.mark.parametrize("window", [9, 40])
def test_windows_that_give_back_memory_go_with_guesses(window: int) -> None:
    work = mixed_requests(20, seed=8)
    expected = run(Engine(windowed(window), EngineConfig(kv_memory_bytes=1 << 21)), work)
    config = EngineConfig(kv_memory_bytes=BLOCK_BYTES * 20, speculate_below=32)
    engine = Engine(windowed(window), config, draft=Oracle(expected, lies=0.3))
    assert run(engine, work, seed=1) == expected
    assert 0 < engine.stats().accepted_tokens < engine.stats().drafted_tokens


def windowed(window: int) -> Decoder:
    """The tiny model with a window in both layers."""
    architecture = replace(tiny_model().architecture, windows=(window, window))
    model = Decoder(architecture)
    model.load_state_dict(tiny_model().state_dict())
    return model


@pytest.mark.slow
@needs_equal_rows
@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_random_operations_leave_every_answer_as_it_would_be_alone(seed: int) -> None:
    """Requests, scores and aborts at random, little memory, guesses at random."""
    rng = random.Random(seed)
    work = mixed_requests(60, seed=seed)
    expected = run(engine_of(), work)
    scores = [tuple(rng.randrange(VOCAB) for _ in range(9)) for _ in range(3)]
    expected_scores = engine_of().score(work[0].prompt, scores)
    ids: dict[int, int] = {}

    def say(line: Line, most: int) -> Sequence[int]:
        """Often what comes, for a while."""
        true = expected[ids[line.request_id], line.index].tokens[line.num_answer :]
        right = rng.choice([0, 1, 3, most])
        return [*true[:right], *(rng.randrange(VOCAB) for _ in range(most - right))]

    engine = engine_of(Chatter(say), kv_memory_bytes=BLOCK_BYTES * 16, max_batch_tokens=40, max_sequences=10)
    outputs: dict[tuple[int, int], list[Output]] = {}
    dropped: set[tuple[int, int]] = set()
    scored: list[int] = []
    waiting = list(range(len(work)))
    while waiting or engine.has_work:
        action = rng.random()
        if action < 0.3 and waiting:
            place = waiting.pop()
            ids[engine.add(work[place])] = place
        elif action < 0.34 and ids:
            request_id = rng.choice(list(ids))
            index = rng.choice([None, 0, 1])
            engine.abort(request_id, index)
            dropped |= {(ids[request_id], i) for i in range(3) if index in (None, i)}
        elif action < 0.36:
            scored.append(engine.add_score(work[0].prompt, scores))
        for output in engine.step():
            assert output.error is None
            key = (ids.get(output.request_id, -output.request_id), output.index)
            outputs.setdefault(key, []).append(output)
        engine.pool.check()
    assert engine.pool.num_available == engine.pool.num_usable
    assert engine.stats().accepted_tokens > 0
    for key, answer in expected.items():
        if key not in dropped:
            assert whole(outputs[key]) == answer
    for request_id in scored:
        for index, score in enumerate(expected_scores):
            assert logprobs(outputs[-request_id, index]) == score.logprobs


@pytest.mark.slow
def test_answers_through_the_worker_are_the_same_with_guesses(tmp_path: Path) -> None:
    """Tokens, text, log-probs and alternatives of a Model, streamed and whole, several tokens to an output."""
    folder = tiny.write_model(tmp_path)
    sampling = Sampling(max_tokens=60, temperature=1.0, seed=2, frequency_penalty=-2, top_logprobs=2, stop=("zzz",))

    async def answers(config: EngineConfig) -> list[Completion]:
        model = Local(folder, config=config)
        try:
            streamed = [delta async for delta in model.stream([user("What is 12 + 30?")], sampling)]
            whole = await model.complete([user("What is 12 + 30?")], sampling, n=2)
            assert streamed[-1].completion is not None
            assert "".join(delta.text for delta in streamed) == streamed[-1].completion.message.text
            if config.speculation != "off":
                stats = await model._loaded.worker.stats()
                assert stats.accepted_tokens > 0
            return [streamed[-1].completion, *whole]
        finally:
            model.close()

    plain = asyncio.run(answers(EngineConfig(kv_memory_bytes=8 << 20, threads=1)))
    guessed = asyncio.run(answers(EngineConfig(kv_memory_bytes=8 << 20, threads=1, speculation="prompt_lookup")))
    assert [each.message.text for each in guessed] == [each.message.text for each in plain]
    if best_mode() != "float32":
        assert [(e.message, e.finish_reason, e.top_logprobs) for e in guessed] == [
            (e.message, e.finish_reason, e.top_logprobs) for e in plain
        ]


def test_the_bench_compares_answers_and_counts_guesses() -> None:
    plain, engine = engine_of(), engine_of(speculation="prompt_lookup")
    work = {"batch": 2, "max_tokens": 40, "clock": time.perf_counter}
    sides = [[speculation.measure(e, (1, 2, 3) * 5, frozenset(), **work)] for e in (plain, engine)]
    row = speculation.compare(*sides, "text", 2, bits=best_mode() != "float32")
    assert row.tokens == 78 and row.tokens_per_step >= 1 and "| text | 2 | 78 |" in speculation.table([row])
    other = replace(sides[1][0], answers=(((1,), (0.0,)),) * 2)
    with pytest.raises(AssertionError, match="changed an answer"):
        speculation.compare(sides[0], [other], "text", 2, bits=True)


@pytest.mark.weights
def test_a_real_model_quotes_a_text_in_a_third_of_the_steps_with_the_same_bits(smollm2: Path) -> None:
    tokenizer = pretrained.load(smollm2)
    chat = ChatTemplate(tokenizer, tokenizer.chat_template)
    prompt = tuple(chat.encode([user(speculation.TEXTS["repeats: quote"])]))
    request = Request(prompt, Sampling(max_tokens=60), stop_ids=tokenizer.eos_ids)
    config = EngineConfig(kv_memory_bytes=1 << 27, speculation="prompt_lookup")
    engine = Engine(weights.load(smollm2, keep_blocks=True), config)
    guessed, with_guesses = run(engine, [request])[0, 0], engine.stats()
    engine.speculator = None
    plain = next(iter(run(engine, [request]).values()))
    assert guessed == plain
    assert with_guesses.steps < 60 / 3 and with_guesses.accepted_tokens > 0.8 * with_guesses.drafted_tokens


def line_of(text: Sequence[int], num_prompt: int = 1) -> Line:
    return Line(0, 0, list(text), num_prompt, max_tokens=1000)


def look_up(text: Sequence[int], most: int = 8) -> list[int]:
    (draft,) = PromptLookup().propose([DraftRequest(line_of(text), most)])
    return draft


def test_prompt_lookup_proposes_what_followed_the_longest_match() -> None:
    assert look_up([1, 2, 3, 4, 5, 6, 9, 1, 2, 3]) == [4, 5, 6]
    assert look_up([1, 2, 3, 4, 5, 6, 9, 1, 2, 3], most=2) == [4, 5]
    longer_but_older = [7, 1, 2, 3, 50, 51, 8, 1, 2, 3, 60, 61, 7, 1, 2, 3]
    assert look_up(longer_but_older) == [50, 51, 8, 1]
    latest_of_equals = [7, 1, 2, 3, 50, 51, 7, 1, 2, 3, 60, 61, 7, 1, 2, 3]
    assert look_up(latest_of_equals) == [60, 61, 7, 1]


def test_prompt_lookup_says_nothing_where_nothing_matches() -> None:
    for text in ([1], [1, 2], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 9, 1, 2], list(range(90))):
        assert look_up(text) == []


def test_prompt_lookup_goes_on_with_a_loop() -> None:
    assert look_up([4, 5, 5, 5, 5, 5, 5]) == [5] * 5
    assert look_up([1, 2, 3] * 6 + [1]) == [2, 3, 1, 2, 3, 1, 2, 3]


def test_prompt_lookup_takes_in_an_answer_token_by_token_as_it_would_the_whole() -> None:
    rng = random.Random(0)
    text = [rng.randrange(3) for _ in range(400)]
    lookup, line = PromptLookup(), line_of(text[:5])
    for token in text[5:]:
        assert lookup.propose([DraftRequest(line, 8)])[0] == look_up(line.tokens)
        line.append(token)
    lookup.forget(line)
    assert not lookup._indexes
    lookup.forget(line)


def naive_look_up(text: list[int], most: int) -> list[int]:
    """The plain definition, over all places."""

    def matched(place: int) -> int:
        length = 0
        while length < min(place, MAX_MATCH) and text[place - 1 - length] == text[-1 - length]:
            length += 1
        return length

    length, place = max(((matched(place), place) for place in range(1, len(text))), default=(0, 0))
    ahead = list(text)
    while len(ahead) < len(text) + most:
        ahead.append(ahead[len(ahead) - len(text) + place])
    return ahead[len(text) :][: min(most, length)] if length >= 3 else []


@pytest.mark.slow
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 12))
def test_prompt_lookup_equals_its_plain_definition(text: list[int], most: int) -> None:
    places = sum(text[i : i + 3] == text[-3:] for i in range(len(text) - 3))
    if places <= MAX_CANDIDATES:
        assert look_up(text, most) == naive_look_up(text, most)


@pytest.mark.slow
@needs_equal_rows
@pytest.mark.parametrize("seed", range(4))
def test_prompt_lookup_changes_no_bit_and_saves_steps_on_text_that_repeats(seed: int) -> None:
    stuck = Sampling(max_tokens=80, temperature=1.0, seed=seed, frequency_penalty=-3)  # what was said is said again
    work = [Request((seed, 1, 2), stuck), *mixed_requests(6, seed)]
    plain, engine = engine_of(), engine_of(speculation="prompt_lookup")
    assert run(engine, work, seed=seed) == run(plain, work, seed=seed)
    assert engine.stats().accepted_tokens > 0
    alone, plain_alone = engine_of(speculation="prompt_lookup"), engine_of()
    assert run(alone, work[:1]) == run(plain_alone, work[:1])
    assert alone.stats().steps < plain_alone.stats().steps * 0.7


def test_the_pace_grows_with_success_and_rests_after_failure() -> None:
    pace = Pace(2)
    pace.learn(2, 2, num_tokens=10, longest=7)
    assert pace.length == 4
    pace.learn(4, 4, num_tokens=15, longest=7)
    assert (pace.length, pace.rest_until) == (7, 0)
    pace.learn(7, 3, num_tokens=19, longest=7)
    assert (pace.length, pace.rest_until) == (3, 0)
    rests = []
    for _ in range(6):
        pace.learn(1, 0, num_tokens=100, longest=7)
        rests.append(pace.rest_until - 100)
    assert rests == [2, 4, 8, MAX_REST, MAX_REST, MAX_REST] and pace.length == 1
    pace.learn(1, 1, num_tokens=200, longest=7)
    pace.learn(1, 0, num_tokens=300, longest=7)
    assert pace.rest_until == 302, "one right guess ends the long pauses"


def test_no_guesses_with_as_many_answers_under_way_as_there_are_rows() -> None:
    work = [Request((i, i + 1, i + 2) * 4, Sampling(max_tokens=20)) for i in range(9)]
    engine = engine_of(Chatter(lambda line, most: [1] * most), speculate_below=9)
    for request in work:
        engine.add(request)
    drain(engine)
    assert engine.stats().drafted_tokens == 0
    for request in work[:8]:
        engine.add(request)
    drain(engine)
    assert engine.stats().drafted_tokens > 0


def cousin(noise: float) -> Decoder:
    """The tiny model with noise on its weights, as a share of their size."""
    model, generator = tiny_model(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += noise * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return model


def draft_pool(engine: Engine) -> BlockPool:
    assert engine.speculator is not None
    drafter = engine.speculator.drafter
    assert isinstance(drafter, DraftModel)
    return drafter.pool


@pytest.mark.slow
@needs_equal_rows
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("roomy", {}),
        ("chunked prompts", {"max_batch_tokens": 13, "max_sequences": 5}),
        ("preempted", {"kv_memory_bytes": 2 * BLOCK_BYTES * 10, "max_sequences": 8}),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_draft_model_changes_no_bit_whether_it_agrees_or_not(
    name: str, settings: dict[str, int], noise: float
) -> None:
    work = [*GROWING, *mixed_requests(20, seed=4)]
    expected = run(engine_of(), work)
    engine = engine_of(cousin(noise), **settings)
    assert run(engine, work, seed=6) == expected
    stats, pool = engine.stats(), draft_pool(engine)
    pool.check()
    assert pool.num_available == pool.num_blocks, "an ended answer leaves no memory behind"
    share = stats.accepted_tokens / stats.drafted_tokens
    assert share > 0.8 if noise == 0 else 0.1 < share < 0.8
    assert (stats.preemptions > 0) == (name == "preempted")


@needs_equal_rows
def test_a_draft_model_that_is_the_model_itself_guesses_everything_right() -> None:
    ways = [
        Sampling(max_tokens=60),
        Sampling(max_tokens=60, temperature=1.0, seed=1),
        Sampling(max_tokens=60, temperature=1.3, top_p=0.8, seed=2, repetition_penalty=1.2, frequency_penalty=0.3),
    ]
    for sampling in ways:
        engine = engine_of(tiny_model())
        run(engine, [Request((3, 4, 5), sampling)])
        stats = engine.stats()
        assert stats.accepted_tokens == stats.drafted_tokens == 60 - stats.steps
        assert stats.steps == 9


@needs_equal_rows
def test_a_draft_model_computes_a_prompt_once_for_all_answers_and_leaves_aborted_ones() -> None:
    engine = engine_of(tiny_model())
    computed: list[int] = []
    drafter = engine.speculator.drafter
    hidden = drafter.runner.hidden

    class Counting:
        model, copy, logits = drafter.runner.model, drafter.runner.copy, drafter.runner.logits

        def hidden(self, chunks: list[SequenceChunk]) -> torch.Tensor:
            computed.append(sum(chunk.end - chunk.start for chunk in chunks))
            return hidden(chunks)

    drafter.runner = Counting()
    request_id = engine.add(Request(tuple(range(64)), Sampling(max_tokens=40, temperature=1.0, seed=1), n=4))
    for _ in range(4):
        engine.step()
    assert sum(size for size in computed if size >= 48) < 2 * 64
    assert engine.stats().accepted_tokens > 0
    engine.abort(request_id, 2)
    engine.step()
    engine.abort(request_id)
    assert drafter.pool.num_available == drafter.pool.num_blocks
    drafter.pool.check()
    assert not drafter._shadows


def test_a_draft_model_with_a_shorter_context_falls_silent_beyond_it() -> None:
    draft = tiny_model(max_position=64)
    expected = run(engine_of(), [Request((1, 2), Sampling(max_tokens=150))])[0, 0].tokens
    engine = engine_of(draft)
    assert run(engine, [Request((1, 2), Sampling(max_tokens=150))])[0, 0].tokens == expected
    assert 0 < engine.stats().drafted_tokens <= 64


def test_drafts_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 50 tokens and the model 96"):
        engine_of(tiny_model(vocab_size=50))
    with pytest.raises(ConfigError, match="choose one"):
        engine_of(tiny_model(), speculation="prompt_lookup")
    for settings in ({"speculation": "magic"}, {"draft_tokens": 0}, {"draft_tokens": 10**9}, {"speculate_below": -1}):
        with pytest.raises(ConfigError):
            EngineConfig(**settings)  # type: ignore[arg-type]


def test_new_weights_under_a_draft_still_give_the_answers_of_the_new_weights() -> None:
    engine = engine_of(tiny_model(0))
    engine.add(Request((1, 2, 3), Sampling(max_tokens=40)))
    for _ in range(3):
        engine.step()
    engine.load(tiny_model(1).state_dict(), version=1)
    drain(engine)
    found = run(engine, [Request((1, 2, 3), Sampling(max_tokens=40))])
    fresh = Engine(tiny_model(1), EngineConfig(kv_memory_bytes=1 << 21))
    assert next(iter(found.values())) == run(fresh, [Request((1, 2, 3), Sampling(max_tokens=40))])[0, 0]


def pairs_of(engine: Engine, count: int, temperature: float) -> list[tuple[int, ...]]:
    """The first three sampled tokens of `count` answers, each with a seed of its own."""
    for seed in range(count):
        engine.add(Request((1, 2), Sampling(max_tokens=3, temperature=temperature, seed=seed)))
    return [tokens(outputs) for outputs in drain(engine).values()]


@pytest.mark.slow
@pytest.mark.parametrize("drafter", ["constant", "model"])
def test_the_distribution_is_the_models(drafter: str) -> None:
    """Chi-square of sampled sequences of three tokens over a vocabulary of 6 against their exact probabilities."""
    vocab, count, temperature = 6, 6000, 3.0
    model, other = (tiny_model(seed, vocab_size=vocab) for seed in (0, 1))
    draft = other if drafter == "model" else Chatter(lambda line, most: [4] * most)
    exact: dict[tuple[int, ...], float] = {}
    for first in range(vocab):
        for second in range(vocab):
            rows = (plain_logprobs(model, [1, 2, first, second])[1:].double() / temperature).softmax(-1)
            for third in range(vocab):
                exact[first, second, third] = float(rows[0, first] * rows[1, second] * rows[2, third])
    assert sum(exact.values()) == pytest.approx(1)
    engine = Engine(model, EngineConfig(kv_memory_bytes=1 << 22, speculate_below=200), draft=draft)
    found = Counter(pairs_of(engine, count, temperature))
    stats = engine.stats()
    assert 0.02 * count < stats.accepted_tokens < stats.drafted_tokens - 0.02 * count, "both verdicts are common"
    common = [key for key, share in exact.items() if share * count >= 5]
    rest = count - sum(found[key] for key in common)
    observed = [*(found[key] for key in common), rest]
    expected = [*(exact[key] * count for key in common), count - sum(exact[key] * count for key in common)]
    assert chisquare(observed, expected).pvalue > 1e-3
    skewed = [*observed[1:], observed[0]]
    assert chisquare(skewed, expected).pvalue < 1e-6, "the test would see another distribution"
