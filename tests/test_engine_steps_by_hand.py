"""The runner and what is around it: aborts within a prompt, rows of tapped requests, copies, and queues of outputs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine_tiny import VOCAB, drain, tiny_engine, tiny_model, tokens
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.compute.runner import Runner, by_adapter, packed_adapter
from firsthand.engine.core.output_delivery import OutputQueue, deliver
from firsthand.engine.core.outputs import Output, join_outputs, score_output
from firsthand.engine.core.sequence import Request, Sequence, SequenceChunk
from firsthand.engine.memory.blocks import BlockCopy
from firsthand.errors import ConfigError, ModelError
from firsthand.model import Sampling


def output(index: int, *ids: int, **fields: Any) -> Output:
    return Output(1, index, ids, tuple(-float(id) for id in ids), **{"is_greedy": True, **fields})


def test_an_answer_that_is_aborted_while_its_prompt_is_computed_gets_no_token() -> None:
    prompt = tuple(range(1, 41))
    alone = tiny_engine()
    whole = alone.add(Request(prompt, Sampling(max_tokens=3, temperature=1.0, seed=5), n=3))
    expected = {index: tokens(found) for (id, index), found in drain(alone).items() if id == whole}
    assert sorted(expected) == [0, 1, 2]
    for index in (0, 1, 2):
        engine = tiny_engine(max_batch_tokens=16, max_sequences=8)
        id = engine.add(Request(prompt, Sampling(max_tokens=3, temperature=1.0, seed=5), n=3))
        assert engine.step() == [] and engine.is_live(id), "16 of 40 tokens"
        engine.abort(id, index)
        found = {place: tokens(outputs) for (_, place), outputs in drain(engine).items()}
        assert found == {place: each for place, each in expected.items() if place != index}
        assert engine.stats().used_blocks == 0 and not engine.is_live(id)


def runner(**options: Any) -> Runner:
    return Runner(tiny_model(), num_blocks=8, block_size=16, kv_dtype=torch.float32, **options)


def chunk(id: int, ids: list[int], block: int, taps: RequestTaps | None = None, adapter: Any = None) -> SequenceChunk:
    made = Sequence(id, 0, ids, len(ids), table=[block], taps=taps, adapter=adapter)
    return SequenceChunk(made, 0, len(ids))


def test_rows_of_tapped_and_other_requests_come_in_the_order_of_their_chunks() -> None:
    made = runner()
    assert made.is_compiled and made.computed_by.startswith("compiled for ") and made.not_compiled is None
    alone = [made.hidden([chunk(n, ids, n)]) for n, ids in enumerate(([1, 2, 3], [9, 8], [4, 5, 6, 7]))]
    assert [len(each) for each in alone] == [1, 1, 1] and not torch.allclose(alone[0], alone[1], atol=1e-3)
    seen: list[int] = []

    def look(values: torch.Tensor, *_: Any) -> None:
        seen.append(values.shape[-2])

    taps = RequestTaps({"norm": look}, edits=False)
    both = made.hidden([chunk(0, [1, 2, 3], 0), chunk(1, [9, 8], 1, taps), chunk(2, [4, 5, 6, 7], 2)])
    torch.testing.assert_close(both, torch.cat(alone), atol=2e-2, rtol=2e-2)
    assert len(seen) == 1 and both.dtype == torch.float32
    reversed_ = made.hidden([chunk(2, [4, 5, 6, 7], 2, taps), chunk(1, [9, 8], 1), chunk(0, [1, 2, 3], 0)])
    torch.testing.assert_close(reversed_, torch.cat(alone[::-1]), atol=2e-2, rtol=2e-2)
    made.tap({"norm": look})
    assert not made.is_compiled
    torch.testing.assert_close(made.hidden([chunk(1, [9, 8], 1)]), alone[1], atol=2e-2, rtol=2e-2)
    made.tap(None)
    assert made.is_compiled and made.taps is None and made.modules is not None and made.modules.taps is None
    for sites, says in (
        ("logits", "a request's taps do not reach logits: change them by logit_bias, or tap norm"),
        ("nowhere", ""),
    ):
        with pytest.raises(ConfigError) as told:
            made.check_request_taps(RequestTaps({sites: look}, edits=False))
        assert says in str(told.value)
    made.check_request_taps(taps)


def test_a_model_that_the_compiled_step_cannot_run_says_why() -> None:
    odd = Runner(tiny_model(), num_blocks=4, block_size=8, kv_dtype=torch.float32)
    assert odd.not_compiled == "blocks have 8 slots, which is not a multiple of 16" and not odd.is_compiled
    assert odd.modules is not None and not odd.computed_by.startswith("compiled")
    assert len(odd.pages) == 2
    torch.testing.assert_close(
        odd.hidden([chunk(1, [9, 8], 1)]), runner().hidden([chunk(1, [9, 8], 1)]), atol=2e-2, rtol=2e-2
    )


def test_blocks_are_copied_in_order_and_chunks_of_the_base_model_come_first() -> None:
    made = runner()
    first = made.hidden([chunk(0, [1, 2, 3], 0)])
    made.copy([BlockCopy(0, 3, False), BlockCopy(3, 5, False)])
    more = Sequence(1, 0, [1, 2, 3, 4], 4, table=[5])
    after = made.hidden([SequenceChunk(more, 3, 4)])
    whole = made.hidden([chunk(2, [1, 2, 3, 4], 6)])
    torch.testing.assert_close(after, whole, atol=1e-4, rtol=1e-4)
    assert first.shape == after.shape == (1, 32)
    adapters = [None, SimpleNamespace(id=2, packed="two"), SimpleNamespace(id=1, packed="one"), None]
    chunks = [chunk(n, [1], n, adapter=each) for n, each in enumerate(adapters)]
    assert [each.sequence.request_id for each in by_adapter(chunks)] == [0, 3, 2, 1]
    assert by_adapter(chunks[:1]) is not None and [packed_adapter(each) for each in chunks] == [
        None,
        "two",
        "one",
        None,
    ]


def test_a_queue_gives_outputs_before_the_error_that_ended_them() -> None:
    async def main() -> None:
        queue, other = OutputQueue(), OutputQueue()
        assert (
            deliver([(queue, output(0, 1)), (other, output(1, 5)), (queue, output(0, 2)), (queue, ModelError("gone"))])
            == []
        )
        assert [each.token_ids for each in await queue.get()] == [(1,), (2,)]
        for _ in range(2):
            with pytest.raises(ModelError, match="gone"):
                await asyncio.wait_for(queue.get(), 3)
        assert [each.token_ids for each in await other.get()] == [(5,)]
        waiting = asyncio.create_task(other.get())
        await asyncio.sleep(0)
        assert not waiting.done()
        other.put(output(1, 6))
        other.put(output(1, 7))
        assert [each.token_ids for each in await waiting] == [(6,), (7,)]
        other.put(ModelError("first"))
        other.put(output(1, 8))
        for _ in range(3):
            with pytest.raises(ModelError, match=r"^first$"):
                await asyncio.wait_for(other.get(), 3)

    asyncio.run(main())
    loop = asyncio.new_event_loop()

    async def made() -> OutputQueue:
        return OutputQueue()

    dead, also = loop.run_until_complete(made()), loop.run_until_complete(made())
    loop.close()
    assert deliver([(dead, output(0, 1)), (also, output(0, 2)), (dead, output(0, 3))]) == [dead, also]


def test_outputs_of_one_answer_in_a_row_are_joined_and_an_error_stands_alone() -> None:
    found = [
        output(0, 1),
        output(0, 2, finish_reason="stop"),
        output(1, 3),
        output(0, 4),
        output(0, error=ModelError("x")),
    ]
    joined = join_outputs(found)
    assert [(each.index, each.token_ids, each.finish_reason) for each in joined] == [
        (0, (1, 2), "stop"), (1, (3,), None), (0, (4,), None), (0, (), None),
    ]  # fmt: skip
    assert joined[0].logprobs == (-1.0, -2.0) and joined[3].error is not None and join_outputs([]) == []
    with pytest.raises(ModelError, match="x"):
        score_output(joined[3])
    assert score_output(joined[0]).logprobs == (-1.0, -2.0)


def test_a_request_in_an_engine_gives_no_output_after_its_abort_and_unknown_ids_are_ignored() -> None:
    engine = tiny_engine()
    gone, kept = (engine.add(Request((first, 2, 3), Sampling(max_tokens=4))) for first in (1, VOCAB - 1))
    engine.step()
    engine.abort(gone)
    engine.abort(99)
    engine.abort(kept, 5)
    assert {id for id, _ in drain(engine)} == {kept} and engine.stats().used_blocks == 0
