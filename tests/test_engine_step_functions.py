"""Each function of a step on its own: what it drafts, computes, samples, counts, ends, and says of what failed."""

from __future__ import annotations

import math
from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from firsthand.engine.core import step
from firsthand.engine.core.engine_stats import StepCounts
from firsthand.engine.core.outputs import Output
from firsthand.engine.core.scheduler import Scheduler
from firsthand.engine.core.sequence import Sequence, SequenceChunk, SequenceState
from firsthand.engine.memory.blocks import BlockCopy, BlockPool
from firsthand.errors import ConfigError, ModelError
from firsthand.model import Sampling
from firsthand.nn.compiled_decoder import Logits

V = 10
RUNNING, FINISHED = SequenceState.RUNNING, SequenceState.FINISHED


def normaliser() -> float:
    return math.log((V - 1) + math.exp(3.0))


class ByHand:
    """A runner whose most probable token is the last one plus one: score 3, and 0 for all others. It fails for token 9."""

    def __init__(self, *, is_compiled: bool = True):
        self.is_compiled = is_compiled
        self.copied: list[BlockCopy] = []
        self.hidden_of: list[list[tuple[int, int, int]]] = []
        self.asked: list[tuple[int, list[Any], list[Any]]] = []

    def copy(self, copies: list[BlockCopy]) -> None:
        self.copied += copies

    def hidden(self, chunks: list[SequenceChunk]) -> Tensor:
        self.hidden_of.append([(chunk.sequence.request_id, chunk.start, chunk.end) for chunk in chunks])
        rows = []
        for chunk in chunks:
            if 9 in chunk.tokens:
                raise ValueError("nine")
            rows += [[chunk.tokens[position - chunk.start]] for position in chunk.logit_positions]
        return torch.tensor(rows).reshape(-1, 1)

    def logits(self, hidden_MD: Tensor, adapters: list[Any], draws: list[Any]) -> Logits:
        self.asked.append((len(hidden_MD), adapters, draws))
        if 8 in hidden_MD:
            raise ConfigError("eight")
        best = [(int(token) + 1) % V for token in hidden_MD[:, 0]]
        values = torch.zeros(len(best), V)
        for row, token in enumerate(best):
            values[row, token] = 3.0
        return Logits(values, best, np.full(len(best), normaliser(), np.float32))


class Stepped:
    """What a step needs of an engine: a real scheduler, and a list of those that ended."""

    def __init__(self, **settings: Any):
        self.runner: Any = ByHand(**settings)
        self.scheduler = Scheduler(BlockPool(32, 4), max_batch_tokens=11, max_sequences=6, clock=lambda: 1.0)
        self.speculator: Any = None
        self.version = 5
        self.masks: Any = Masked()
        self.counts = StepCounts()
        self.ended: list[tuple[int, int]] = []

    def end(self, sequence: Sequence) -> None:
        self.ended.append((sequence.request_id, sequence.index))
        self.scheduler.finish(sequence)


class Masked:
    """Records when masks are begun and waited for."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self, guides: Any) -> None:
        self.calls.append(list(guides))

    def finish(self) -> None:
        self.calls.append("finish")


def answer(id: int, *tokens: int, prompt: int | None = None, index: int = 0, **fields: Any) -> Sequence:
    options: dict[str, Any] = {"max_tokens": 9, "sampling": Sampling(temperature=0.0), **fields}
    return Sequence(id, index, list(tokens), len(tokens) if prompt is None else prompt, **options)


def started(engine: Stepped, *sequences: Sequence) -> None:
    """Let them run, with all but their last token computed."""
    for each in sequences:
        engine.scheduler.add(each)
        engine.scheduler._start(each)
        end = max(each.num_needed - 1, 1)
        assert engine.scheduler.pool.extend(each.table, 0, end) == []
        each.num_computed = end


def said(outputs: list[Output]) -> list[tuple[int, int, tuple[int, ...], str | None]]:
    return [(each.request_id, each.index, each.token_ids, each.finish_reason) for each in outputs]


def test_forced_tokens_are_drafted_in_equal_shares_of_half_a_step_and_never_beyond_the_answer() -> None:
    engine = Stepped()
    forced = [SimpleNamespace(forced=deque(ids)) for ids in ([1, 2, 3, 4], [5, 6, 7], [1, 2], [])]
    long, short, unready, free = (
        answer(id, 3, 4, 5, prompt=2, guide=guide, max_tokens=most)
        for id, (guide, most) in enumerate(zip(forced, (9, 3, 9, 9), strict=True))
    )
    engine.scheduler.running = [long, short, unready, free]
    for each in (long, short, free):
        each.num_computed = 2
    step.jump_ahead(engine.scheduler)  # type: ignore[arg-type]
    assert [each.draft for each in (long, short, unready, free)] == [(1, 2), (5,), (), ()], "11 // 2 // 2, 3 - 1 - 1"
    engine.scheduler.running = [long]
    step.jump_ahead(engine.scheduler)
    assert long.draft == (1, 2, 3, 4), "half of 11, and there are four"
    forced[0].forced.extend([6, 7])
    step.jump_ahead(engine.scheduler)
    assert long.draft == (1, 2, 3, 4, 6)
    engine.scheduler.running = []
    step.jump_ahead(engine.scheduler)


@pytest.mark.parametrize(
    ("tokens", "prompt", "start", "end", "draft", "goal", "decode", "prefill"),
    [
        ([1, 2, 3, 4], 2, 3, 4, (), "generate", 1, 0),
        ([1, 2, 3, 4], 2, 3, 6, (7, 8), "generate", 1, 0),
        ([1, 2, 3, 4], 2, 2, 4, (), "generate", 0, 2),
        ([1, 2, 3, 4], 4, 3, 4, (), "generate", 0, 1),
        ([1, 2, 3, 4], 2, 2, 3, (), "score", 0, 1),
        ([1, 2, 3, 4], 4, 0, 4, (), "prefix", 0, 4),
    ],
)
def test_a_single_known_token_of_an_answer_counts_as_decoded_and_all_others_as_prefill(
    tokens: Any, prompt: Any, start: Any, end: Any, draft: Any, goal: Any, decode: Any, prefill: Any
) -> None:
    counts = StepCounts(decode_tokens=10, prefill_tokens=20)
    step._count(counts, SequenceChunk(Sequence(0, 0, tokens, prompt, goal=goal), start, end, draft))
    assert counts == StepCounts(0, 20 + prefill, 10 + decode, 0)


def test_accepted_drafts_are_counted_and_only_those_that_were_guessed_are_told() -> None:
    engine = Stepped()
    told: list[tuple[Any, ...]] = []
    engine.speculator = SimpleNamespace(learn=lambda *details: told.append(details))
    two = answer(1, 1, 2, 3, 4, 5, 6, prompt=2)  # of 3 draft tokens after position 2, two were right, and one came
    none = answer(2, 1, 2, 3, prompt=2)
    step._report_draft(engine, SequenceChunk(two, 2, 6, (4, 5, 7)))
    step._report_draft(engine, SequenceChunk(none, 2, 6, (8, 8, 8)))
    step._report_draft(engine, SequenceChunk(none, 2, 7, (8, 8, 8)))
    assert told == [(two, 3, 2), (none, 3, 0), (none, 3, 0)] and engine.counts == StepCounts(decode_tokens=2)
    engine.speculator = None
    step._report_draft(engine, SequenceChunk(two, 3, 6, (5, 7), is_forced=True))
    assert engine.counts == StepCounts(decode_tokens=3, forced_tokens=1) and len(told) == 3


def test_masks_are_begun_for_the_answers_that_get_a_token_alone() -> None:
    guides: list[Any] = [SimpleNamespace(forced=deque()) for _ in range(5)]
    lead = answer(1, 1, 2, 3, guide=guides[0])
    gone = answer(1, 1, 2, 3, index=1, guide=guides[1], state=FINISHED)
    lead.followers = [gone, answer(1, 1, 2, 3, index=2, guide=guides[2]), answer(1, 1, 2, 3, index=3)]
    halfway, plain = answer(2, 1, 2, 3, guide=guides[3]), answer(3, 1, 2)
    last = answer(4, 1, 2, guide=guides[4])
    chunks = [
        SequenceChunk(halfway, 0, 2),
        SequenceChunk(lead, 1, 3),
        SequenceChunk(plain, 0, 2),
        SequenceChunk(last, 1, 2),
    ]
    assert list(step._guides(chunks)) == [guides[0], guides[2], guides[4]]
    lead.state = FINISHED
    assert list(step._guides(chunks)) == [guides[2], guides[4]]


def test_a_failed_sequence_ends_with_its_followers_and_each_that_has_a_caller_gets_the_error() -> None:
    engine = Stepped()
    lead = Sequence(7, -1, [1, 2], 2, goal="prefix")
    lead.followers = [Sequence(7, index, [1, 2, index], 2, goal="score") for index in (0, 1)]
    outputs = step._fail(engine, lead, KeyError("x"))
    assert [(each.request_id, each.index, each.version, type(each.error), str(each.error)) for each in outputs] == [
        (7, 0, 5, ModelError, "the request failed: KeyError: 'x'"),
        (7, 1, 5, ModelError, "the request failed: KeyError: 'x'"),
    ]
    assert engine.ended == [(7, -1), (7, 0), (7, 1)]
    own = ConfigError("mine")
    (output,) = step._fail(engine, answer(8, 1, index=3), own)
    assert output.error is own and (output.request_id, output.index, output.prompt_tokens) == (8, 3, 1)
    assert (output.token_ids, output.logprobs, output.finish_reason, output.is_greedy) == ((), (), None, False)


def row(token: int) -> Any:
    (found,) = ByHand().logits(torch.tensor([[token]]), [], []).rows()
    return found


def test_a_row_is_sampled_scored_or_left_by_the_goal_and_the_last_token_ends_the_sequence() -> None:
    engine = Stepped()
    going, over = answer(1, 1, 2, 3), answer(2, 1, 2, 3, 4, prompt=2, max_tokens=3)
    (output,) = step._apply_row(engine, going, 2, row(3))
    assert (output.token_ids, output.version, output.is_greedy, output.finish_reason) == ((4,), 5, True, None)
    assert output.logprobs[0] == pytest.approx(3 - normaliser()) and going.tokens == [1, 2, 3, 4] and engine.ended == []
    assert said(step._apply_row(engine, over, 3, row(4))) == [(2, 0, (5,), "length")] and engine.ended == [(2, 0)]
    scored = answer(3, 1, 2, 3, 9, prompt=2, goal="score")
    assert step._apply_row(engine, scored, 1, row(2)) == [] and engine.ended == [(2, 0)]
    (output,) = step._apply_row(engine, scored, 2, row(3))
    assert said([output]) == [(3, 0, (3, 9), "stop")] and not output.is_greedy and engine.ended == [(2, 0), (3, 0)]
    assert output.logprobs == pytest.approx([3 - normaliser(), -normaliser()])
    assert step._apply_row(engine, answer(4, 1, 2, goal="prefix"), 1, row(2)) == [] and len(engine.ended) == 2
    broken = answer(5, 1, 2, stopper=SimpleNamespace(feed=lambda token: 1 // 0))
    (output,) = step._apply_row(engine, broken, 1, row(2))
    assert str(output.error) == "the request failed: ZeroDivisionError: integer division or modulo by zero"
    assert engine.ended[2:] == [(5, 0)]


def test_draft_tokens_after_the_first_wrong_one_give_nothing() -> None:
    engine = Stepped()
    right, wrong, gone = answer(1, 1, 2, prompt=1), answer(2, 1, 4, prompt=1), answer(3, 1, 6, prompt=1)
    started(engine, right, wrong, gone)
    gone.state = FINISHED
    chunks = [SequenceChunk(right, 1, 4, (3, 4)), SequenceChunk(wrong, 1, 4, (6, 7)), SequenceChunk(gone, 1, 2)]
    for each, chunk in zip((right, wrong), chunks, strict=False):
        engine.scheduler.pool.extend(each.table, 1, 4)
        engine.scheduler.advance(chunk)
    wanted = [step.LogitPosition(chunk, position) for chunk in chunks for position in chunk.logit_positions]
    hidden = torch.tensor([[2], [3], [4], [4], [6], [7], [6]])
    outputs = step._compute_logits(engine, wanted, hidden)
    assert said(outputs) == [(1, 0, (3,), None), (1, 0, (4,), None), (1, 0, (5,), None), (2, 0, (5,), None)]
    assert (right.tokens, wrong.tokens, gone.tokens) == ([1, 2, 3, 4, 5], [1, 4, 5], [1, 6])
    assert (right.num_computed, wrong.num_computed) == (4, 2), "one more for each accepted draft token"


def test_followers_get_the_row_of_their_lead_and_a_prefix_ends_with_it() -> None:
    engine = Stepped()
    lead = Sequence(1, -1, [1, 2], 2, goal="prefix")
    lead.followers = [
        answer(1, 1, 2, *more, prompt=2, index=index, goal="score") for index, more in enumerate(((3,), (5,), (3, 4)))
    ]
    lead.followers[1].state = FINISHED
    first, third = lead.followers[0], lead.followers[2]
    started(engine, lead)
    engine.scheduler.pool.extend(lead.table, 1, 2)
    lead.num_computed = 2
    outputs = step._compute_logits(engine, [step.LogitPosition(SequenceChunk(lead, 1, 2), 1)], torch.tensor([[2]]))
    assert said(outputs) == [(1, 0, (3,), "stop")] and engine.ended == [(1, 0), (1, -1)]
    assert third.logprobs == pytest.approx([3 - normaliser()]) and third.state is RUNNING and third.num_computed == 2
    assert first.state is lead.state is FINISHED and engine.scheduler.running == [third] and lead.followers == []


def test_draws_are_asked_for_where_the_device_samples_and_failing_logits_end_each_sequence_once() -> None:
    packed = SimpleNamespace(packed="lora", name="red", version=4)
    for is_compiled in (True, False):
        engine = Stepped(is_compiled=is_compiled)
        hot = answer(1, 1, 2, prompt=1, sampling=Sampling(temperature=0.5, seed=3), adapter=packed)
        cold = answer(2, 1, 8, prompt=1)
        wanted = [step.LogitPosition(SequenceChunk(hot, 1, 2), 1)]
        wanted += [step.LogitPosition(SequenceChunk(cold, 0, 2), place) for place in (0, 1)]
        outputs = step._compute_logits(engine, wanted, torch.tensor([[2], [1], [8]]))
        assert [(each.request_id, str(each.error), each.adapter) for each in outputs] == [
            (1, "eight", "red"),
            (2, "eight", None),
        ]
        ((rows, adapters, draws),) = engine.runner.asked
        assert (rows, adapters) == (3, ["lora", None, None]) and engine.ended == [(1, 0), (2, 0)]
        assert [None if each is None else each.temperature for each in draws] == (
            [] if is_compiled else [0.5, None, None]
        )


def test_a_token_has_the_version_of_the_weights_beside_that_of_the_adapter() -> None:
    engine = Stepped()
    adapter = SimpleNamespace(packed="lora", name="red", version=4, id=1)
    asked = answer(1, 1, 2, prompt=1, adapter=adapter)
    scored = answer(2, 1, 3, prompt=1, goal="score", adapter=adapter)
    plain = answer(3, 1, 2, prompt=1)
    started(engine, asked, scored, plain)
    chunks = [(SequenceChunk(asked, 1, 2), 1), (SequenceChunk(scored, 0, 1), 0), (SequenceChunk(plain, 1, 2), 1)]
    wanted = [step.LogitPosition(chunk, place) for chunk, place in chunks]
    outputs = step._compute_logits(engine, wanted, torch.tensor([[2], [2], [2]]))
    failed = step._fail(engine, answer(4, 8, adapter=adapter), ConfigError("no"))
    assert [(each.request_id, each.version, each.adapter, each.adapter_version) for each in outputs + failed] == [
        (1, 5, "red", 4), (2, 5, "red", 4), (3, 5, None, 0), (4, 5, "red", 4),
    ]  # fmt: skip


def test_a_step_that_fails_as_a_whole_is_computed_again_one_by_one_without_drafts() -> None:
    engine = Stepped()
    good, bad, drafted = answer(1, 1, 2, prompt=1), answer(2, 1, 9, prompt=1), answer(3, 4, 5, prompt=1)
    started(engine, good, bad, drafted)
    for each in (good, bad, drafted):
        engine.scheduler.pool.extend(each.table, 1, 3)
    chunks = [SequenceChunk(good, 1, 2), SequenceChunk(bad, 1, 2), SequenceChunk(drafted, 1, 3, (9,))]
    outputs = step._compute(engine, chunks)
    assert engine.runner.hidden_of == [[(1, 1, 2), (2, 1, 2), (3, 1, 3)], [(1, 1, 2)], [(2, 1, 2)], [(3, 1, 2)]]
    assert said(outputs) == [(1, 0, (3,), None), (2, 0, (), None), (3, 0, (6,), None)]
    assert str(outputs[1].error) == "the request failed: ValueError: nine" and engine.ended == [(2, 0)]
    assert engine.counts == StepCounts(decode_tokens=2) and [each.num_computed for each in (good, drafted)] == [2, 2]
    alone = answer(4, 1, 2, prompt=1)
    started(engine, alone)
    engine.runner.hidden_of.clear()
    engine.scheduler.pool.extend(alone.table, 1, 3)
    assert said(step._compute(engine, [SequenceChunk(alone, 1, 3, (9,))])) == [(4, 0, (3,), None)]
    assert engine.runner.hidden_of == [[(4, 1, 3)], [(4, 1, 2)]]


def test_rows_of_logits_come_64_at_a_time_and_the_tokens_of_a_draft_in_one_output() -> None:
    engine = Stepped()
    engine.scheduler.pool = BlockPool(400, 4)
    many = [answer(id, 1, 2 + id % 6, prompt=1) for id in range(65)]
    engine.scheduler.max_sequences = 99
    started(engine, *many)
    outputs = step._compute(engine, [SequenceChunk(each, 1, 2) for each in many])
    assert [each[0] for each in engine.runner.asked] == [64, 1]
    assert said(outputs) == [(id, 0, (3 + id % 6,), None) for id in range(65)]
    engine = Stepped()
    told: list[Any] = []
    engine.speculator = SimpleNamespace(learn=lambda sequence, *numbers: told.append((sequence.request_id, *numbers)))
    plain, drafted = answer(1, 1, 2, prompt=1), answer(2, 3, 4, prompt=1, max_tokens=4)
    started(engine, plain, drafted)
    engine.scheduler.pool.extend(drafted.table, 1, 4)
    outputs = step._compute(engine, [SequenceChunk(plain, 1, 2), SequenceChunk(drafted, 1, 4, (5, 6))])
    assert said(outputs) == [(1, 0, (3,), None), (2, 0, (5, 6, 7), "length")] and told == [(2, 2, 2)]
    assert engine.masks.calls == ["finish"] and engine.counts == StepCounts(decode_tokens=4)


def test_a_step_drafts_first_copies_before_it_computes_and_always_waits_for_its_masks() -> None:
    engine = Stepped()
    log = engine.masks.calls
    engine.speculator = SimpleNamespace(draft=lambda running: log.append([each.request_id for each in running]))
    assert step.take_step(engine) == [] and engine.counts.steps == 0 and log == [[]], "no masks without chunks"
    log.clear()
    guide: Any = SimpleNamespace(forced=deque())
    one = answer(1, 1, 2, prompt=1)
    started(engine, one)
    table = engine.scheduler.pool.fork(one.table)
    engine.scheduler.add(answer(2, 4, 5, 6, guide=guide, max_tokens=1, stop_ids=frozenset({7})))
    engine.runner.copy = lambda copies: log.append(copies)
    engine.runner.hidden = lambda chunks: (log.append("hidden"), ByHand().hidden(chunks))[1]
    guide.advance, guide.is_done, guide.allowed = log.append, False, np.array([1023], np.uint32)
    outputs = step.take_step(engine)
    assert said(outputs) == [(1, 0, (3,), None), (2, 0, (7,), "stop")]
    assert log == [[1], [BlockCopy(table[0], one.table[0], False)], [guide], "hidden", "finish", 7, "finish"]
    assert engine.counts == StepCounts(steps=1, prefill_tokens=3, decode_tokens=1) and engine.ended == [(2, 0)]
    log.clear()
    engine.end = None  # type: ignore[method-assign,assignment]
    one.tokens.append(9)
    with pytest.raises(TypeError):
        step.take_step(engine)
    assert log == [[1], [], [], "hidden", "finish"] and engine.counts.steps == 2
