"""Steps through a model's modules, the taps of a step, drafts of a smaller model, and what the worker passes on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from engine_tiny import drain, plain_logprobs, tiny_engine, tiny_model, tokens
from firsthand.engine.compute.adapter_slots import LoadedAdapter
from firsthand.engine.compute.module_runner import kernel_error
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.compute.runner import by_adapter
from firsthand.engine.compute.source_cache import check_source
from firsthand.engine.compute.static_step import SIZES, StaticSteps, _table_width, is_static
from firsthand.engine.compute.tapped_steps import taps_of_step
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.engine_thread import EngineWorker
from firsthand.engine.core.sequence import Request, Sequence, SequenceChunk
from firsthand.engine.decoding.speculative import DraftRequest
from firsthand.engine.memory.blocks import BlockCopy
from firsthand.errors import ConfigError
from firsthand.kernels.attention import gather
from firsthand.model import Sampling

CPU = torch.device("cpu")


def test_a_kernel_is_compared_with_plain_attention_over_three_lengths() -> None:
    seen: list[Any] = []

    def off(q: Tensor, pages: Any, tables: Tensor, positions: Tensor, *, scale: float, window: int | None) -> Tensor:
        seen.append((tuple(q.shape), tuple(tables.shape), positions.tolist(), scale, window))
        return gather.decode(q, pages, tables, positions, scale=scale, window=window) - 0.25

    assert kernel_error(gather.decode, CPU, torch.float32) == 0.0
    assert kernel_error(off, CPU, torch.float32) == pytest.approx(0.25, abs=1e-5)
    assert seen == [((3, 6, 64), (3, 8), [0, 37, 127], 0.125, None)]


def chunk(index: int, start: int, end: int, taps: RequestTaps | None = None, **fields: Any) -> SequenceChunk:
    made = Sequence(index, index, list(range(end)), end, taps=taps, **fields)
    return SequenceChunk(made, start, end)


def test_each_tap_of_a_step_has_its_own_rows_and_the_engines_comes_first() -> None:
    heard: list[Any] = []

    def note(values: Tensor, positions: range, index: int) -> None:
        heard.append((values.tolist(), positions, index))
        values.zero_()

    def double(values: Tensor, positions: range, index: int) -> Tensor:
        return values * 2

    one, two = RequestTaps({"a": note, "b": double}, edits=True), RequestTaps({"a": double})
    chunks = [chunk(3, 2, 4, one), chunk(4, 0, 1), chunk(5, 5, 8, two)]
    values = torch.arange(6.0)
    found = taps_of_step(chunks, None)
    assert list(found) == ["a", "b"]
    assert found["a"](values).tolist() == [0, 1, 2, 6, 8, 10] and values.tolist() == list(range(6))
    assert heard == [([0.0, 1.0], range(2, 4), 3)]
    assert found["b"](values).tolist() == [0, 2, 2, 3, 4, 5]
    read = taps_of_step([chunk(3, 2, 4, RequestTaps({"a": note}, edits=False))], None)
    assert read["a"](torch.arange(2.0)) is None
    engine = {"a": lambda values: values + 10, "c": lambda values: None}
    found = taps_of_step(chunks, engine)
    assert list(found) == ["a", "c", "b"] and found["c"] is engine["c"]
    assert found["a"](values).tolist() == [10, 11, 12, 26, 28, 30] and heard[-1][0] == [10.0, 11.0]
    only = taps_of_step([chunk(3, 2, 4, RequestTaps({"a": note}, edits=False))], engine)
    assert only["a"](torch.arange(2.0)).tolist() == [10, 11], "the engine's edit stands"
    for wrong, said in (
        (lambda values, positions, index: values[:1], r"returned \(1,\) torch.float32: expected \(2,\) torch.float32"),
        (lambda values, positions, index: values.double(), r"returned \(2,\) torch.float64"),
    ):
        with pytest.raises(ConfigError, match=said):
            taps_of_step([chunk(0, 2, 4, RequestTaps({"a": wrong}))], None)["a"](torch.arange(2.0))
    with pytest.raises(ConfigError, match="only reads returned values"):
        taps_of_step([chunk(0, 2, 4, RequestTaps({"a": double}, edits=False))], None)["a"](torch.arange(2.0))


def test_steps_of_fixed_shapes_are_rounded_up_and_made_once() -> None:
    assert [_table_width(blocks) for blocks in (1, 16, 17, 32, 33)] == [16, 16, 32, 32, 64]
    assert is_static([chunk(0, 3, 4)]) and not is_static([]) and not is_static([chunk(0, 2, 4)])
    assert is_static([chunk(0, 3, 4)] * SIZES[-1]) and not is_static([chunk(0, 3, 4)] * (SIZES[-1] + 1))
    made: list[Any] = []

    class Step:
        def __init__(self, rows: int, width: int):
            self.rows, self.filled = rows, 0
            made.append((rows, width))

        def fill(self, chunks: Any) -> None:
            self.filled += 1

        def compute(self) -> Tensor:
            return torch.arange(self.rows)

    steps = StaticSteps(Step, lambda compute: compute)  # type: ignore[arg-type]
    for count, start, rows in (
        (3, 3, [0, 1, 2]),
        (4, 15 * 16, [0, 1, 2, 3]),
        (3, 16 * 16, [0, 1, 2]),
        (3, 16 * 16 - 1, [0, 1, 2]),
    ):
        chunks = [chunk(at, 0, 1) for at in range(count - 1)] + [chunk(9, start, start + 1)]
        assert steps.hidden(chunks, 16).tolist() == rows
    assert made == [(4, 16), (4, 32)] and len(steps) == 2
    steps.forget()
    assert len(steps) == 0


def test_a_fixed_step_pads_its_rows_and_tables() -> None:
    engine = tiny_engine(block_size=8, graphs="on", weights="float32", kv_memory_bytes=1 << 16)
    for prompt in (range(3, 20), range(30, 40), range(50, 55)):
        engine.add(Request(tuple(prompt), Sampling(max_tokens=4)))
    outputs = drain(engine)
    plain = tiny_engine(block_size=8, graphs="off", weights="float32", kv_memory_bytes=1 << 16)
    for prompt in (range(3, 20), range(30, 40), range(50, 55)):
        plain.add(Request(tuple(prompt), Sampling(max_tokens=4)))
    assert {key: tokens(each) for key, each in outputs.items()} == {
        key: tokens(each) for key, each in drain(plain).items()
    }
    steps = engine.runner.modules.steps  # type: ignore[union-attr]
    assert steps is not None and [key[0] for key in steps._steps] == [4]
    step, _ = steps._steps[4, 16]
    ids, positions, tables = step._views(step._inputs)
    assert ids[3] == positions[3] == 0 and tables.shape == (1, 4, 16)
    padding = step.padding_blocks[0]
    assert padding == engine.pool.num_blocks and (tables[0, 3] == padding).all()
    used = (positions // 8 + 1).tolist()
    assert [int((tables[0, at] != padding).sum()) for at in range(3)] == used[:3]


def test_chunks_go_by_adapter_and_blocks_are_copied_in_their_own_layers() -> None:
    first, second = (LoadedAdapter(id, str(id), 0, None) for id in (1, 2))  # type: ignore[arg-type]
    chunks = [chunk(0, 0, 1, adapter=second), chunk(1, 0, 1), chunk(2, 0, 1, adapter=first), chunk(3, 0, 1)]
    assert [each.sequence.index for each in by_adapter(chunks)] == [1, 3, 2, 0]
    assert by_adapter(chunks[1:2]) == chunks[1:2]
    engine = tiny_engine(window=32, kv_memory_bytes=1 << 18)
    runner = engine.runner
    for pages in runner.pages:
        for tensor in pages.tensors:
            tensor.copy_(torch.arange(len(tensor)).view(-1, *[1] * (tensor.dim() - 1)).expand(tensor.shape))
    runner.copy([BlockCopy(3, 4), BlockCopy(4, 5), BlockCopy(2, 1, True)])
    windowed = runner._is_windowed
    assert sorted(windowed) == [False, True]
    for pages, is_windowed in zip(runner.pages, windowed, strict=True):
        values = [float(tensor[at].float().mean()) for tensor in pages.tensors for at in (1, 4, 5)]
        assert values == ([2.0, 4.0, 5.0] if is_windowed else [1.0, 3.0, 3.0]) * len(pages.tensors)


def test_a_smaller_model_drafts_what_it_would_answer_itself() -> None:
    small = tiny_model(1)
    engine = Engine(
        tiny_model(), EngineConfig(kv_memory_bytes=1 << 20, kv_cache="float32", weights="float32"), draft=small
    )
    drafter: Any = engine.speculator.drafter  # type: ignore[union-attr]
    plain = tiny_model(1)
    prompt = list(range(3, 43))

    def greedy(ids: list[int], count: int) -> list[int]:
        ids = list(ids)
        for _ in range(count):
            ids.append(int(plain_logprobs(plain, ids)[-1].argmax()))
        return ids[-count:]

    one, two = (Sequence(0, index, list(prompt), 38, max_tokens=9) for index in range(2))
    other = Sequence(1, 0, [5, 6, 7], 2, max_tokens=9)
    drafts = drafter.propose([DraftRequest(one, 3), DraftRequest(two, 3), DraftRequest(other, 1)])
    assert drafts == [greedy(prompt, 3), [], greedy([5, 6, 7], 1)], "answers to one prompt start one after the other"
    drafts = drafter.propose([DraftRequest(one, 2), DraftRequest(two, 4)])
    assert drafts[1] == greedy(prompt, 4) and drafts[0][:2] == greedy(prompt, 2)
    one.tokens += drafts[0][:1]
    assert drafter.propose([DraftRequest(one, 2)]) == [greedy(one.tokens, 2)]
    used = drafter.pool.num_used
    drafter.forget(one)
    drafter.forget(one)
    assert drafter.pool.num_used < used
    for each in (two, other):
        drafter.forget(each)
    assert drafter.pool.num_used == 0 and drafter._shadows == {}
    drafter.max_batch_tokens = 30
    slow = Sequence(2, 0, list(range(50, 90)), 39, max_tokens=9)
    assert drafter.propose([DraftRequest(slow, 2)]) == [[]], "a long prompt takes two steps"
    assert drafter.propose([DraftRequest(slow, 2)]) == [greedy(slow.tokens, 2)]
    drafter.pool.check()


def test_only_an_encoder_decoder_reads_a_source() -> None:
    model = tiny_model()
    check_source((), model)
    with pytest.raises(ConfigError, match="the model is no encoder-decoder"):
        check_source((1,), model)


def test_the_worker_passes_every_setting_on() -> None:
    engine = tiny_engine()
    seen: list[Any] = []
    add_score, pin = engine.add_score, engine.pin_prefix

    def noted(name: str, real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            seen.append((name, args, options))
            return None if real is None else real(*args, **options)

        return call

    engine.add_score, engine.pin_prefix = noted("score", add_score), noted("pin", pin)  # type: ignore[method-assign]
    engine.load, engine.load_adapter = noted("load", None), noted("adapter", None)  # type: ignore[method-assign]
    taps = RequestTaps({}, edits=False)

    async def main(worker: EngineWorker) -> None:
        scores = await worker.score(
            (1, 2), [(3,), (4, 5)], top=2, priority=3, owner="o", salt="s", distribution=True, source=(), taps=taps
        )
        assert [len(each.logprobs) for each in scores] == [1, 2] and len(scores[1].top_logprobs[1]) == 2
        assert scores[0].distribution is not None
        prefix = await worker.pin_prefix((1, 2), salt="s")
        assert prefix.num_tokens == 2 and (await worker.stats()).pinned_prefixes == 1
        await worker.unpin_prefix(prefix)
        lease = worker.lease((1, 2), salt="t")
        assert (await worker.stats()).pinned_prefixes == 1
        del lease
        assert (await worker.stats()).pinned_prefixes == 0
        await worker.load({}, 7, recompute=False)
        added = worker.add_adapter("a", SimpleNamespace(), version=4, replace=True)  # type: ignore[arg-type]
        await asyncio.wrap_future(added)
        with pytest.raises(ConfigError, match="no adapter 'a' is loaded"):
            await worker.find_adapter("a")

    with EngineWorker(engine) as worker:
        asyncio.run(main(worker))
        assert worker.is_alive
    assert not worker.is_alive
    options = dict(top=2, priority=3, owner="o", adapter=None, salt="s", distribution=True, source=(), taps=taps)
    assert seen[0] == ("score", ((1, 2), [(3,), (4, 5)]), options)
    assert [each[2] for each in seen if each[0] == "pin"] == [
        {"adapter": None, "salt": "s"},
        {"adapter": None, "salt": "t"},
    ]
    assert [each for each in seen if each[0] == "load"] == [("load", ({}, 7), {"recompute": False})]
    (added,) = (each for each in seen if each[0] == "adapter")
    assert added[1][0] == "a" and added[2] == {"version": 4, "replace": True}
