"""What is never computed twice, what is held, and what a window gives back."""

import pytest
import torch

from engine_tiny import VOCAB, drain, logprobs, plain_logprobs, tiny_engine, tiny_model, tokens
from firsthand.engine.core.sequence import Request
from firsthand.engine.memory.blocks import BlockPool
from firsthand.engine.memory.window_pool import SlidingWindowPool, divide
from firsthand.model import Sampling

PROMPTS = [tuple((7 * i + 3 * j) % VOCAB for j in range(1 + 11 * i)) for i in range(5)]


@pytest.mark.parametrize("num_prompt", [5, 15, 16, 17, 40])
def test_a_second_turn_computes_only_its_new_tokens(num_prompt: int) -> None:
    """The last sampled token ends the answer, so its keys and values are not computed: it counts as new."""
    engine = tiny_engine()
    prompt, answer = tuple(range(num_prompt)), 21
    engine.add(Request(prompt, Sampling(max_tokens=answer)))
    (outputs,) = drain(engine).values()
    assert outputs[0].cached_tokens == 0
    before = engine.stats().prefill_tokens
    history = (*prompt, *tokens(outputs))
    engine.add(Request((*history, 1, 2, 3), Sampling(max_tokens=1)))
    (second,) = drain(engine).values()
    assert second[0].cached_tokens == num_prompt + answer - 1
    assert second[0].prompt_tokens == len(history) + 3
    assert engine.stats().prefill_tokens - before == 1 + 3


def test_a_conversation_of_many_turns_and_branches_computes_each_token_once() -> None:
    engine = tiny_engine()
    texts, computed = [tuple(range(9))], set[tuple[int, ...]]()
    for turn in range(7):
        branches = []
        for text in texts[-2:]:
            question = (*text, 90, turn)
            engine.add(Request(question, Sampling(max_tokens=6, temperature=9.0, seed=turn), n=2))
            for outputs in drain(engine).values():
                branches.append((*question, *tokens(outputs)))
                computed |= {branches[-1][:end] for end in range(1, len(branches[-1]))}
        texts = branches
    stats = engine.stats()
    assert stats.prefill_tokens + stats.decode_tokens == len(computed), "each text that differs, to each of its tokens"
    assert stats.cached_tokens == stats.prompt_tokens - stats.prefill_tokens > 300


def test_the_same_prompt_again_computes_its_last_token_only() -> None:
    engine = tiny_engine()
    for expected in (0, 33, 33):
        engine.add(Request(PROMPTS[3], Sampling(max_tokens=3)))
        (outputs,) = drain(engine).values()
        assert outputs[0].cached_tokens == expected == (len(PROMPTS[3]) - 1) * bool(expected)
    assert engine.stats().prefill_tokens == len(PROMPTS[3]) + 2
    scores = engine.score(PROMPTS[3], [[1], [2, 3]])
    assert [(score.prompt_tokens, score.cached_tokens) for score in scores] == [(34, 33)] * 2


def test_a_request_finds_the_prompt_of_one_that_is_still_running() -> None:
    engine = tiny_engine()
    engine.add(Request(PROMPTS[3], Sampling(max_tokens=30)))
    engine.step()
    later = engine.add(Request((*PROMPTS[3], 5), Sampling(max_tokens=2)))
    assert drain(engine)[later, 0][0].cached_tokens == len(PROMPTS[3])


@pytest.mark.slow
def test_what_is_held_is_still_there_after_others_used_all_the_memory() -> None:
    engine = tiny_engine(kv_memory_bytes=16 * 512 * 12)
    engine.add(Request(PROMPTS[3], Sampling(max_tokens=10)))
    (outputs,) = drain(engine).values()
    history = (*PROMPTS[3], *tokens(outputs))

    def flood_and_go_on() -> int:
        for i in range(12):
            engine.add(Request((i, i + 1, i + 2), Sampling(max_tokens=60)))
        drain(engine)
        engine.add(Request((*history, 3), Sampling(max_tokens=1)))
        return next(iter(drain(engine).values()))[0].cached_tokens

    hold = engine.pin_prefix(history)
    assert hold.is_pinned and hold.num_tokens == len(history) - 1
    assert engine.stats().pinned_blocks == 3 == engine.stats().used_blocks
    assert flood_and_go_on() == len(history) - 1
    engine.unpin_prefix(hold)
    engine.unpin_prefix(hold)
    assert not hold.is_pinned and engine.stats().used_blocks == 0
    assert flood_and_go_on() < len(history) - 1


def test_the_oldest_holds_are_dropped_when_half_the_memory_is_held() -> None:
    engine = tiny_engine(kv_memory_bytes=16 * 512 * 10)
    texts = [tuple((i + j) % VOCAB for j in range(40)) for i in range(3)]
    holds = []
    for text in texts:
        engine.add(Request(text, Sampling(max_tokens=1)))
        drain(engine)
        holds.append(engine.pin_prefix(text))
    assert [hold.is_pinned for hold in holds] == [False, False, True], "3 blocks each, 5 may be held"
    same = engine.pin_prefix(texts[2])
    assert holds[2].is_pinned and same.is_pinned and engine.stats().pinned_blocks == 3, (
        "a block that two hold counts once"
    )
    engine.load(tiny_model(seed=1).state_dict(), version=1)
    assert not same.is_pinned and engine.pin_prefix(texts[2]).num_tokens == 0


def test_exactly_half_of_the_blocks_may_be_held() -> None:
    engine = tiny_engine(kv_memory_bytes=16 * 512 * 10)
    holds = []
    for start, length in ((0, 40), (50, 30), (20, 10)):  # 3, 2 and 1 blocks, of which 5 may be held
        text = tuple((start + i) % VOCAB for i in range(length))
        engine.add(Request(text, Sampling(max_tokens=1)))
        drain(engine)
        holds.append(engine.pin_prefix(text))
        if length == 30:
            assert [hold.is_pinned for hold in holds] == [True, True] and engine.stats().pinned_blocks == 5
    assert [hold.is_pinned for hold in holds] == [False, True, True] and engine.stats().pinned_blocks == 3


def test_a_text_longer_than_may_be_held_is_held_in_part() -> None:
    engine = tiny_engine(kv_memory_bytes=16 * 512 * 10)
    engine.add(Request(tuple(range(90)), Sampling(max_tokens=1)))
    drain(engine)
    hold = engine.pin_prefix(tuple(range(90)))
    assert hold.is_pinned and hold.num_tokens == 80 and engine.stats().pinned_blocks == 5


def test_holds_give_way_to_a_request_that_needs_all_the_memory() -> None:
    engine = tiny_engine(kv_memory_bytes=16 * 512 * 8)
    engine.add(Request(PROMPTS[4], Sampling(max_tokens=1)))
    drain(engine)
    hold = engine.pin_prefix(PROMPTS[4])
    request_id = engine.add(Request(tuple(range(60)), Sampling(max_tokens=68)))
    assert len(tokens(drain(engine)[request_id, 0])) == 68
    assert not hold.is_pinned


@pytest.mark.parametrize("only_windows", [True, False])
def test_windowed_layers_keep_no_more_than_their_window(only_windows: bool) -> None:
    model = tiny_model(window=20, only_windows=only_windows)
    engine = tiny_engine(window=20, only_windows=only_windows)
    *far, near = engine.pool.pools
    assert near.window == 20 and [part.window for part in far] == ([] if only_windows else [None])
    engine.add(Request(PROMPTS[4], Sampling(max_tokens=150)))
    most_near = most_far = 0
    found = []
    while engine.has_work:
        found += engine.step()
        engine.pool.check()
        most_near = max(most_near, near.num_used)
        most_far = max([most_far, *(part.num_used for part in far)])
    assert most_near <= near.blocks_for(len(PROMPTS[4])) <= 3 and engine.stats().used_blocks == 0
    assert most_far == (0 if only_windows else far[0].blocks_for(len(PROMPTS[4]) + 149))
    answer = tokens(found)
    plain = plain_logprobs(model, [*PROMPTS[4], *answer])[len(PROMPTS[4]) - 1 : -1]
    expected = plain.gather(1, torch.tensor(answer)[:, None])[:, 0]
    assert torch.allclose(torch.tensor(logprobs(found)), expected, atol=2e-2), "packed weights are float16"
    engine.add(Request((*PROMPTS[4], *answer, 1), Sampling(max_tokens=1)))
    assert next(iter(drain(engine).values()))[0].cached_tokens == len(PROMPTS[4]) + 149


def test_memory_is_divided_so_that_long_conversations_fit_and_one_can_always_run() -> None:
    assert divide(1 << 20, 1000, 5000, alone=10, useful=1000) == (468, 116), "a quarter; alike for both would be 174"
    assert divide(1 << 20, 1000, 5000, alone=10, useful=50) == ((1 << 20) // 1000 - 250, 50), "no more than are of use"
    assert divide(100_000, 1000, 5000, alone=14, useful=1000) == (30, 14), "enough for one"
    assert divide(60_000, 1000, 5000, alone=14, useful=1000) == (10, 10), "too little for a window: the same for both"


def test_a_window_as_wide_as_the_context_is_none() -> None:
    for window, part in ((256, BlockPool), (255, SlidingWindowPool)):
        assert type(tiny_engine(window=window).pool) is part


@pytest.mark.slow
@pytest.mark.parametrize("only_windows", [True, False])
@pytest.mark.parametrize("block_size", [16, pytest.param(8, marks=pytest.mark.slow)])
def test_windows_change_no_bit_when_blocks_are_given_back(block_size: int, only_windows: bool) -> None:
    """Too little memory for the texts, against enough for all of them; blocks of 8 take the plain kernel."""
    answers = []
    for blocks in (8 if only_windows else 12, 60):
        engine = tiny_engine(
            window=20,
            only_windows=only_windows,
            block_size=block_size,
            max_batch_tokens=17,
            max_sequences=16,
            kv_memory_bytes=block_size * 512 * blocks * 16 // block_size,
            weights="float32",
        )
        for i in range(6):
            engine.add(Request((i, *PROMPTS[4]), Sampling(max_tokens=150, temperature=1.0, seed=i)))
        answers.append({key: tokens(outputs) for key, outputs in drain(engine).items()})
    assert answers[0] == answers[1] and all(len(answer) == 150 for answer in answers[0].values())
