"""Drafts and their pace, one function at a time, with a draft model whose next token is known."""

from __future__ import annotations

from collections import Counter, deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from engine_tiny import tiny_model
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Sequence
from firsthand.engine.decoding import sampler
from firsthand.engine.decoding.drafts import DraftModel, PromptLookup, Shadow, speculator
from firsthand.engine.decoding.speculative import DraftRequest, Pace, Speculator
from firsthand.engine.memory.blocks import BlockCopy, BlockPool
from firsthand.errors import ConfigError
from firsthand.model import Sampling
from firsthand.nn.compiled_decoder import Logits

V = 10


class NextOne:
    """A runner of a draft model that is sure of the last token plus one."""

    def __init__(self, max_position: int = 20):
        self.model = SimpleNamespace(architecture=SimpleNamespace(max_position=max_position))
        self.copied: list[BlockCopy] = []
        self.ran: list[list[tuple[int, int, int]]] = []

    def copy(self, copies: list[BlockCopy]) -> None:
        self.copied += copies

    def hidden(self, chunks: Any) -> torch.Tensor:
        self.ran.append([(chunk.sequence.request_id, chunk.start, chunk.end) for chunk in chunks])
        last = [[chunk.tokens[-1]] for chunk in chunks if chunk.logit_positions]
        return torch.tensor(last).reshape(-1, 1)

    def logits(self, hidden: torch.Tensor) -> Logits:
        best = [(int(token) + 1) % V for token in hidden[:, 0]]
        values = torch.nn.functional.one_hot(torch.tensor(best), V).float()
        return Logits(values, best, np.zeros(len(best), np.float32))


def drafter(num_blocks: int = 12, *, most: int = 20, **options: Any) -> DraftModel:
    return DraftModel(NextOne(**options), BlockPool(num_blocks, 4), max_batch_tokens=most)  # type: ignore[arg-type]


def answer(id: int, *tokens: int, index: int = 0, **fields: Any) -> Sequence:
    return Sequence(id, index, list(tokens), fields.pop("prompt", 1), max_tokens=99, **fields)


def test_a_draft_model_drafts_for_all_together_and_each_as_far_as_it_was_asked() -> None:
    made = drafter()
    a, b, c = answer(1, 1, 2, 3), answer(2, 5, 6, 7, 8, 9), answer(3, 4)
    assert made.propose([DraftRequest(a, 2), DraftRequest(b, 3), DraftRequest(c, 1)]) == [[4, 5], [0, 1, 2], [5]]
    assert made.runner.ran == [[(1, 0, 3), (2, 0, 5), (3, 0, 1)], [(1, 3, 4), (2, 5, 6)], [(2, 6, 7)]]  # type: ignore[attr-defined]
    assert [made._shadows[each].own.num_computed for each in (a, b, c)] == [4, 7, 1]
    assert made.pool.match([1, 2, 3, 4]) == [] and len(made.pool.match([5, 6, 7, 8, 9])) == 1, "drafts are not cached"
    a.tokens += [4, 9]
    made.runner.ran.clear()  # type: ignore[attr-defined]
    assert made.propose([DraftRequest(a, 2)]) == [[0, 1]]
    assert made.runner.ran == [[(1, 4, 5)], [(1, 5, 6)]], "what was drafted right is not computed again"  # type: ignore[attr-defined]
    made.pool.check()
    made.forget(a)
    made.forget(a)
    assert a not in made._shadows and made.pool.num_used == 3
    made.forget(b)
    made.forget(c)
    assert made.pool.num_used == 0 and made.propose([]) == []


def test_prompts_are_caught_up_within_a_step_and_answers_to_one_prompt_one_after_another() -> None:
    made = drafter(most=6)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    a, b, c = answer(1, *prompt, prompt=9), answer(1, *prompt, index=1, prompt=9), answer(2, 3, 4)
    asked = [DraftRequest(each, 2) for each in (a, b, c)]
    ran = made.runner.ran  # type: ignore[attr-defined]
    assert made.propose(asked) == [[], [], []] and ran == [[(1, 0, 6)]]
    assert made.propose(asked) == [[0, 1], [], []] and ran[1:] == [[(1, 6, 9), (1, 4, 7)], [(1, 9, 10)]]
    ran.clear()
    made = drafter(most=6)
    ran = made.runner.ran  # type: ignore[attr-defined]
    assert made.propose([DraftRequest(c, 1), *asked[:2]]) == [[5], [], []] and ran == [[(2, 0, 2), (1, 0, 4)]]
    assert made._shadows[a].own.num_committed == 1 and made._shadows[b].own.table == []
    made = drafter()
    ran = made.runner.ran  # type: ignore[attr-defined]
    assert made.propose([*asked[:2], DraftRequest(c, 1)]) == [[0, 1], [], [5]] and ran[0] == [(1, 0, 9), (2, 0, 2)]
    same = answer(5, *prompt[:8])
    assert made.propose([DraftRequest(same, 1)]) == [[9]] and ran[2] == [(5, 4, 8)], (
        "the last token's logits are wanted"
    )
    long = answer(4, *range(7), 7)
    short = drafter(max_position=8)
    assert short.propose([DraftRequest(long, 3)]) == [[8]], "the position after the last is not there"
    long.tokens.append(8)
    assert short.propose([DraftRequest(long, 3)]) == [[]]


def test_a_sequence_without_a_request_loses_its_memory_to_one_that_has_none() -> None:
    made = drafter(2)
    old, new, same = answer(1, 1, 2, 3, 4, 5), answer(2, 5, 6), answer(3, 7)
    assert made.propose([DraftRequest(old, 1)]) == [[6]] and made.pool.num_available == 0
    assert made.propose([DraftRequest(old, 1), DraftRequest(new, 1)]) == [[6], []], "both are asked for"
    assert made.propose([DraftRequest(new, 1), DraftRequest(same, 1)]) == [[7], [8]] and old not in made._shadows
    assert not made._make_room([made._shadows[new], made._shadows[same]]) and len(made._shadows) == 2
    assert made._make_room([made._shadows[new]]) and list(made._shadows) == [new]
    made._shadow(same)
    assert not made._make_room([made._shadows[new]]) and list(made._shadows) == [new, same], "it had no memory"


def test_a_shadow_samples_as_its_target_would_and_counts_the_drafted_tokens() -> None:
    greedy = Sampling(temperature=0.0, frequency_penalty=0.6)
    shadow = Shadow(answer(1, 3, 4, sampling=greedy, counts=Counter({4: 1})), Sequence(1, 0, [3, 4, 5], 1), 2)
    scores = torch.zeros(V)
    scores[4], scores[5], scores[6] = 1.0, 1.1, 0.45
    shadow.choose(scores)
    assert shadow.own.tokens == [3, 4, 5, 5] and shadow.draft == [5, 5], "1.1 - 0.6 for the one that was drafted"
    shadow.choose(scores)
    assert shadow.own.tokens[-1] == 6, "1.1 - 1.2, 1 - 0.6, 0.45"
    hot = answer(1, 3, 4, 9, index=2, seed=8, sampling=Sampling(temperature=1.0))
    shadow = Shadow(hot, Sequence(1, 2, [3, 4, 9, 1], 1), 3)
    shadow.choose(torch.zeros(1000))
    assert shadow.own.tokens[-1] == int(sampler.uniform(8, 2, 4) * 1000) and hot.tokens == [3, 4, 9]


def test_a_repetition_penalty_of_a_draft_is_of_the_prompt_and_of_what_was_counted_or_drafted() -> None:
    sampling = Sampling(temperature=0.0, repetition_penalty=2.0)

    def drafted(counts: Counter[int], *scores: float, draft: tuple[int, ...] = ()) -> int:
        target = answer(1, 0, 1, 2, prompt=2, sampling=sampling, counts=counts)
        shadow = Shadow(target, Sequence(1, 0, [0, 1, 2, *draft], 2), 3)
        shadow.choose(torch.tensor(scores))
        assert target.tokens == [0, 1, 2] and target.counts == counts and shadow.own.tokens[:3] == [0, 1, 2]
        return shadow.own.tokens[-1]

    for counts, draft, seen in (
        (Counter({2: 1}), (), {0, 1, 2}), (Counter(), (), {0, 1}), (Counter({2: 1}), (3, 3), {0, 1, 2, 3}),
        (Counter(), (4,), {0, 1, 4}),
    ):  # fmt: skip
        for token in range(5):
            scores = [0.5] * 5
            scores[token] = 0.9  # halved where it was seen
            others = min(set(range(5)) - seen - {token}, default=token)
            assert drafted(counts, *scores, draft=draft) == (others if token in seen else token), (token, seen)
    assert drafted(Counter({2: 1}), -1.0, -1.0, -1.0, -1.5, -1.9) == 3, "below zero it doubles"


def test_the_speculator_is_what_was_asked_for() -> None:
    a = tiny_model().architecture
    options: dict[str, Any] = {"num_blocks": 5, "kv_dtype": torch.float16}
    assert speculator(None, EngineConfig(), a, **options) is None
    config = EngineConfig(speculation="prompt_lookup", draft_tokens=3, speculate_below=6, max_batch_tokens=66)
    made = speculator(None, config, a, **options)
    assert made is not None and isinstance(made.drafter, PromptLookup)
    assert (made.vocab_size, made.draft_tokens, made.max_rows, made.num_drafted, made.num_accepted) == (96, 3, 6, 0, 0)
    with pytest.raises(ConfigError) as told:
        speculator(made.drafter, config, a, **options)
    assert str(told.value) == "speculation is 'prompt_lookup' and a draft is given: choose one of them"
    with pytest.raises(ConfigError) as told:
        speculator(tiny_model(vocab_size=64), EngineConfig(), a, **options)
    assert str(told.value) == "the draft model has 64 tokens and the model 96: they must share one vocabulary"
    narrow = EngineConfig(max_batch_tokens=7, max_sequences=2, block_size=8)
    drafting = speculator(tiny_model(1), narrow, a, **options)
    assert (
        drafting is not None
        and isinstance(drafting.drafter, DraftModel)
        and drafting.max_rows == 3
        and drafting.draft_tokens == 7
    )
    model, pool = drafting.drafter, drafting.drafter.pool
    assert (pool.num_blocks, pool.block_size, model.max_batch_tokens, model.runner.block_size) == (5, 8, 7, 8)
    assert [page.values.dtype for page in model.runner.pages] == [torch.float16] * 2 and len(
        model.runner.pages[0].values
    ) == 5


class Told:
    """A drafter whose drafts are written down, or that raises."""

    def __init__(self, *drafts: Any):
        self.drafts, self.asked, self.forgotten = list(drafts), [], []  # type: ignore[var-annotated]

    def propose(self, requests: Any) -> Any:
        self.asked.append([(each.sequence.request_id, each.most) for each in requests])
        if not self.drafts:
            raise ValueError("empty")
        return self.drafts.pop(0)

    def forget(self, sequence: Sequence) -> None:
        if sequence.request_id == 9:
            raise KeyError(9)
        self.forgotten.append(sequence.request_id)


def ready(id: int, count: int = 4, **fields: Any) -> Sequence:
    made = answer(id, *range(count), **fields)
    made.num_computed = count - 1
    return made


def test_free_rows_are_shared_and_a_pace_is_kept_for_each_sequence() -> None:
    told = Told([[1, 2, 3, 4, 5], [6, 96, 7]], [[1], [2]])
    made = Speculator(told, vocab_size=96, draft_tokens=7, max_rows=7)
    one, two, unready = ready(1), ready(2), answer(3, 1, 2, 3)
    forced = ready(4, guide=SimpleNamespace(forced=deque([1])))
    made.draft([one, unready, two, forced])
    assert told.asked == [[(1, 3), (2, 2)]] and [each.draft for each in (one, two, unready, forced)] == [
        (1, 2, 3),
        (6,),
        (),
        (),
    ]
    made.learn(one, 3, 3)
    made.learn(two, 1, 0)
    made.learn(unready, 5, 2)
    assert (made.num_drafted, made.num_accepted) == (9, 5)
    assert made._paces == {one: Pace(7, 1, 0), two: Pace(2, 2, 6)}
    made._paces[one].learn(7, 3, num_tokens=9, longest=7)
    assert made._paces.pop(one) == Pace(3, 1, 0)
    made._paces[one] = Pace(7)
    short = ready(5)
    short.max_tokens = 5
    made._paces[short] = Pace(4, 1, 4)
    assert made._requests([one, two, short], 8) == [(one, 4), (short, 1)], "two rests, and one needs one token more"
    two.tokens += [1, 1]
    assert made._requests([two, one], 3) == [(two, 2), (one, 1)] and made._requests([two, one], 0) == []
    made.forget(one)
    assert one not in made._paces and told.forgotten == [1]
    assert [made._usable(draft) for draft in ([1, 95], [-1, 2], [1, "x", 2], [True, 96], [])] == [
        (1, 95),
        (),
        (1,),
        (True,),
        (),
    ]


@pytest.mark.filterwarnings("error")
def test_a_drafter_that_fails_is_not_asked_again() -> None:
    made = Speculator(Told(), vocab_size=96, draft_tokens=2, max_rows=4)
    with pytest.warns(UserWarning, match="^speculation is off: the drafter failed with ValueError: empty$"):
        made.draft([ready(1)])
    assert made.drafter is None
    made.draft([ready(1)])
    made.forget(ready(9))
    made = Speculator(Told([[1], [2]]), vocab_size=96, draft_tokens=2, max_rows=4)
    with pytest.warns(UserWarning, match="failed with ValueError"):
        made.draft([ready(1)])
    made = Speculator(told := Told(), vocab_size=96, draft_tokens=2, max_rows=1)
    made.draft([ready(1)])
    assert told.asked == [], "no row is free"
    with pytest.warns(UserWarning, match="failed with KeyError: 9"):
        made.forget(ready(9))
    with pytest.raises(AssertionError):
        Speculator(told, vocab_size=96, draft_tokens=0, max_rows=1)


def test_a_block_that_another_table_holds_is_copied_before_the_draft_model_writes_to_it() -> None:
    made = drafter()
    a, b = answer(1, 1, 2, 3, 4, 5), answer(2, 6)
    assert made.propose([DraftRequest(a, 1)]) == [[6]] and made.runner.copied == []  # type: ignore[attr-defined]
    own = made._shadows[a].own
    held = made.pool.fork(own.table)
    a.tokens.append(6)
    assert made.propose([DraftRequest(a, 2), DraftRequest(b, 1)]) == [[7, 8], [7]]
    assert (held, own.table) == ([0, 1], [0, 2])
    assert made.runner.copied == [BlockCopy(1, 2)], "the full block before it is not written to"  # type: ignore[attr-defined]
    made.pool.release(held)
    made.forget(a)
    made.forget(b)
    assert made.pool.num_used == 0
    made.pool.check()
