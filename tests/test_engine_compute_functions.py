"""A step as numbers, one function at a time: fixed shapes, packed rows, summaries, taps of requests, sources, adapters."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from engine_tiny import tiny_model
from firsthand.engine.compute.module_runner import decode_on, summary
from firsthand.engine.compute.request_taps import RequestTaps
from firsthand.engine.compute.runner import Runner
from firsthand.engine.compute.source_cache import SourceCache, check_replaceable, check_source
from firsthand.engine.compute.static_step import StaticAttend, StaticStep, StaticSteps, without_capture
from firsthand.engine.compute.tapped_steps import taps_of_step
from firsthand.engine.core.sequence import Sequence, SequenceChunk, Source
from firsthand.engine.decoding.batched_sampler import DrawSettings
from firsthand.engine.memory.blocks import BlockCopy
from firsthand.engine.memory.window_pool import BlockTable
from firsthand.errors import ConfigError
from firsthand.kernels.attention import gather
from firsthand.nn.batched_lora import PackedAdapter
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.compiled_decoder import Cache
from firsthand.nn.encoder_decoder import Sources

CPU = torch.device("cpu")


def chunk(tokens: list[int], start: int, end: int, table: Any, **fields: Any) -> SequenceChunk:
    return SequenceChunk(Sequence(0, fields.pop("index", 0), tokens, len(tokens), table=table, **fields), start, end)


def runner(*, window: int | None = None, **options: Any) -> Runner:
    """One that runs by its modules, in blocks of 4."""
    near = None if window is None else 7
    return Runner(tiny_model(window=window), num_blocks=8, block_size=4, num_window_blocks=near, **options)


@torch.no_grad()
def plain_hidden(ids: list[int], window: int | None = None) -> torch.Tensor:
    found: torch.Tensor = tiny_model(window=window)(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)]))
    return found


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_fixed_step_holds_its_chunks_and_padding_behind_them() -> None:
    step = StaticStep(tiny_model(), None, rows=3, width=3, padding_blocks=[9, 5], block_size=4, decode=gather.decode)  # type: ignore[arg-type]
    one = chunk([7, 8, 9, 10, 11], 4, 5, BlockTable([3, 1, 8], [2, 4, 6]))
    two = chunk([5], 0, 1, BlockTable([6, 0], [1, 3]))
    step.fill([one, two])
    ids, positions, tables = step._views(step._inputs)
    assert (ids.tolist(), positions.tolist()) == ([11, 5, 0], [4, 0, 0])
    assert tables.tolist() == [[[3, 1, 9], [6, 9, 9], [9, 9, 9]], [[2, 4, 5], [1, 5, 5], [5, 5, 5]]]
    step.fill([chunk([7, 8, 9, 10], 3, 4, BlockTable([3, 1], [2, 4]))])
    assert (ids.tolist(), positions.tolist()) == ([10, 0, 0], [3, 0, 0])
    assert tables.tolist() == [[[3, 9, 9], [9, 9, 9], [9, 9, 9]], [[2, 5, 5], [5, 5, 5], [5, 5, 5]]]
    alone = StaticStep(tiny_model(), None, rows=2, width=2, padding_blocks=(8,), block_size=4, decode=gather.decode)  # type: ignore[arg-type]
    alone.fill([chunk([1, 2, 3, 4, 5], 4, 5, [7, 6])])
    assert alone._inputs.tolist() == [5, 0, 4, 0, 7, 6, 8, 8] and alone.padding_blocks == (8,)


def test_a_fixed_step_writes_each_row_into_its_block_and_slot_and_attends_with_its_own_tables() -> None:
    model = tiny_model(window=6)
    cache = Cache.empty(model.architecture, 6, 4, torch.float32, CPU, num_near=5)
    for pages in cache.pages:
        for tensor in pages.tensors:
            tensor.zero_()
    tables = torch.tensor([[[1, 2], [3, 5]], [[0, 4], [2, 3]]])
    asked: list[Any] = []

    def decode(q: Any, pages: Any, tables_CB: Any, positions: Any, *, scale: Any, window: Any) -> torch.Tensor:
        asked.append((pages, tables_CB.tolist(), positions.tolist(), scale, window))
        return torch.as_tensor(q * 2)

    attend = StaticAttend(cache, tables, torch.tensor([6, 3]), 4, decode)
    assert attend.blocks_TN.tolist() == [[2, 3], [4, 2]] and attend.slots_N.tolist() == [2, 3]
    q, k, v = (
        torch.arange(2.0 * heads * 16).reshape(2, heads, 16) + first for heads, first in ((6, 0), (2, 100), (2, 900))
    )
    for layer, blocks, own in ((0, (4, 2), [[0, 4], [2, 3]]), (1, (2, 3), [[1, 2], [3, 5]])):
        assert torch.equal(attend(layer, q, k, v, scale=0.5, window=7), q * 2)
        pages = cache.pages[layer]
        assert asked[-1] == (pages, own, [6, 3], 0.5, 7)
        for row, (block, slot) in enumerate(zip(blocks, (2, 3), strict=True)):
            assert torch.equal(pages.keys[block, :, :, slot], k[row]) and torch.equal(
                pages.values[block, :, slot], v[row]
            )
        assert int((pages.values != 0).sum()) == 2 * 2 * 16
    terms: Any = SimpleNamespace(source_lengths=[1])
    with pytest.raises(ConfigError, match="cross-attention has no fixed shape: run such a model with graphs='off'"):
        attend(0, q, k, v, scale=1.0, window=None, terms=terms)


def test_steps_are_made_once_for_each_rounded_size() -> None:
    made: list[tuple[int, int]] = []
    filled: list[int] = []

    def make(rows: int, width: int) -> Any:
        made.append((rows, width))
        return SimpleNamespace(fill=lambda chunks: filled.append(len(chunks)), compute=lambda: torch.arange(rows))

    steps = StaticSteps(make, without_capture)
    for count, start, size in (
        (1, 0, (1, 16)),
        (3, 63, (4, 16)),
        (4, 64, (4, 32)),
        (4, 127, (4, 32)),
        (3, 60, (4, 16)),
        (5, 128, (8, 64)),
    ):
        found = steps.hidden([chunk([0], start, start + 1, []), *[chunk([0], 0, 1, [])] * (count - 1)], 4)
        assert found.tolist() == list(range(count)) and size in made
    assert made == [(1, 16), (4, 16), (4, 32), (8, 64)] and len(steps) == 4
    assert filled == [1, 1, 3, 3, 4, 4, 4, 3, 5, 5], "filled before it is captured, and before each replay"
    steps.forget()
    assert len(steps) == 0


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 4])
def test_padded_steps_compute_what_plain_ones_do(window: int | None) -> None:
    ids = [3, 14, 15, 92, 6, 5, 35, 8]
    expected = plain_hidden(ids, window)
    other = plain_hidden([9, 9, 7], window)
    for graphs in (True, False, None):
        run = runner(window=window, graphs=graphs)
        tables = [BlockTable([5, 2], [6, 1]), BlockTable([3], [4])] if window else [[5, 2], [3]]
        close(run.hidden([chunk(ids[:7], 0, 7, tables[0]), chunk([9, 9], 0, 2, tables[1])])[0], expected[6])
        last = [chunk([9, 9, 7], 2, 3, tables[1]), chunk(ids, 7, 8, tables[0])]
        close(run.hidden(last), torch.stack([other[2], expected[7]]))
        assert run.modules is not None and (run.modules.steps is not None) is (graphs is True)
        if run.modules.steps is not None:
            assert len(run.modules.steps) == 1 and [len(pages.keys) for pages in run.pages] == (
                [8, 9] if window else [9, 9]
            )
            with torch.inference_mode():
                close(run.modules.hidden(last, [], [1]), expected[7:8])
                assert run.modules.hidden(last, [], []).shape == (0, 32)
            (step,) = (step for step, _ in run.modules.steps._steps.values())
            assert step.padding_blocks == ((8, 7) if window else (8,)), "behind the blocks of each kind of layers"
            assert (step.rows, step.width, step.block_size) == (2, 16, 4) and step.cache is run.cache
            run.refresh()
            assert len(run.modules.steps) == 0
        else:
            assert [len(pages.keys) for pages in run.pages] == ([7, 8] if window else [8, 8])


def test_a_step_that_cannot_be_captured_is_given_up_on_a_gpu_alone() -> None:
    modules = runner(graphs=True).modules
    assert modules is not None
    one = [chunk([3], 0, 1, [0])]

    def fails(rows: int, width: int) -> Any:
        raise RuntimeError("no graph")

    modules.steps = broken = StaticSteps(fails, without_capture)
    with pytest.raises(RuntimeError, match="no graph"):
        modules.hidden(one, [], [0])
    modules.device = torch.device("cuda")
    broken._steps[1, 16] = SimpleNamespace(fill=lambda chunks: None), lambda: fails(0, 0)  # type: ignore[assignment]
    with pytest.raises(ValueError):
        broken._make = lambda rows, width: (_ for _ in ()).throw(ValueError("other"))
        modules._static(broken, [chunk([3] * 99, 98, 99, [0])])
    captured = StaticSteps(
        lambda rows, width: SimpleNamespace(fill=lambda chunks: None, compute=None),  # type: ignore[arg-type,return-value]
        lambda compute: lambda: fails(0, 0),
    )
    with pytest.raises(RuntimeError, match="no graph"):
        modules._static(captured, one)
    assert modules.steps is broken, "one that was captured failed for another reason"
    assert modules._static(broken, one) is None and modules.steps is None, "no graph will be tried again"
    assert decode_on(CPU) is gather.decode


def test_blocks_of_each_kind_of_layers_are_copied_by_themselves() -> None:
    run = runner(window=4)
    for pages in run.pages:
        pages.values.copy_(torch.arange(len(pages.values)).float()[:, None, None, None].expand_as(pages.values))
    run.copy([BlockCopy(1, 2, True), BlockCopy(3, 4, False), BlockCopy(4, 5, False)])
    assert [pages.values[:, 0, 0, 0].tolist() for pages in run.pages] == [
        [0, 1, 1, 3, 4, 5, 6],
        [0, 1, 2, 3, 3, 3, 6, 7],
    ]
    plain = runner(kv_dtype=torch.float16)
    assert {pages.values.dtype for pages in plain.pages} == {torch.float16} and {p.values.dtype for p in run.pages} == {
        torch.float32
    }


def test_taps_of_the_engine_and_of_a_request_come_one_after_the_other_and_none_stays() -> None:
    run = runner()
    ids = [3, 14, 15]
    seen: list[Any] = []
    taps = RequestTaps(
        {"norm": lambda values, positions, index: seen.append((values[:, 0].tolist(), positions, index))}, edits=False
    )  # type: ignore[func-returns-value]
    run.tap({"norm": lambda values: values * 0 + 7})
    assert not run.is_compiled and run.modules is not None and run.modules.taps is run.taps is not None
    found = run.hidden([chunk(ids, 0, 3, [2], taps=taps, index=4), chunk([1, 2], 0, 2, [1])])
    assert seen == [([7.0, 7.0, 7.0], range(3), 4)] and found.tolist() == [[7.0] * 32] * 2
    run.tap(None)
    assert run.taps is None and run.modules.taps is None and run._engine_taps is None
    close(run.hidden([chunk(ids, 0, 3, [2])]), plain_hidden(ids)[2:])


def test_logits_have_their_best_token_their_normaliser_and_the_draws_that_were_asked_for() -> None:
    run = runner()
    hidden = plain_hidden([3, 14, 15])
    scores = tiny_model().logits(hidden).detach()
    plain = run.logits(hidden)
    close(plain.values, scores)
    assert plain.best == scores.argmax(-1).tolist() and plain.drawn is None and plain.drawn_logprobs is None
    np.testing.assert_allclose(plain.normalisers, scores.logsumexp(-1), rtol=1e-5)
    draws = [None, DrawSettings(0.5, 0, 1.0, 0.0, 0.999999), None]
    drawn = run.logits(hidden, (), draws)
    weights = (scores[1].double() / 0.5).softmax(-1)
    token = int(torch.searchsorted(weights.cumsum(-1), 0.999999))
    assert drawn.drawn == [None, token, None] and drawn.best == plain.best and token != plain.best[1]
    assert drawn.drawn_logprobs == pytest.approx([0.0, math.log(float(weights[token])), 0.0], abs=1e-6)
    assert drawn.known is not None and list(drawn.known[1]) == [plain.best[1], token]
    assert drawn.known[1][token] == pytest.approx(float(scores[1, token]), abs=1e-4)
    run.tap({"logits": lambda values: values * 0 + torch.arange(96.0)})
    assert run.logits(hidden).best == [95] * 3


def test_rows_with_an_adapter_have_its_logits_and_their_own_draws() -> None:
    model = tiny_model(tied=False)
    run = Runner(model, num_blocks=8, block_size=4)
    hidden, scores = plain_hidden([3, 14, 15]), model.logits(plain_hidden([3, 14, 15])).detach()
    low, up = torch.linspace(-0.5, 0.5, 32)[None], torch.linspace(3.0, -3.0, 96)[:, None]
    changed = scores + (hidden @ low.T) @ up.T
    adapter = PackedAdapter({"lm_head": (low, up)}, np.zeros(0, np.int64), {}, 1, 0)
    draws = [DrawSettings(1.0, 0, 1.0, 0.0, each) for each in (0.25, 0.5, 0.75)]
    for adapters in ((None, adapter, adapter), (adapter, None, adapter), (adapter,) * 3, (None,) * 3, ()):
        expected = torch.stack([changed[n] if adapters and adapters[n] else scores[n] for n in range(3)])
        found = run.logits(hidden, adapters, draws)
        close(found.values, expected)
        tokens = [
            int(torch.searchsorted(row.double().softmax(-1).cumsum(-1), (n + 1) / 4)) for n, row in enumerate(expected)
        ]
        assert (found.drawn, found.best) == (tokens, expected.argmax(-1).tolist())
        assert run.logits(hidden, adapters).drawn is None
    alone = run.logits(hidden, (adapter,) * 3, [None, draws[1], None]).drawn
    assert alone == [None, int(torch.searchsorted(changed[1].double().softmax(-1).cumsum(-1), 0.5)), None]
    close(run.logits(hidden).values, scores)


def test_a_summary_has_a_row_for_each_of_its_six_numbers() -> None:
    scores = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 0.5]])
    whole = [math.log(sum(math.exp(each) for each in row)) for row in scores.tolist()]
    found = summary(scores, [])
    assert found.dtype == torch.float64
    close(found, torch.tensor([[1, 0], [1, 0], [2, 3], [2, 3], whole, [0, 0]], dtype=torch.float64))
    assert torch.equal(summary(scores, [None, None]), found)
    found = summary(scores, [None, DrawSettings(2.0, 0, 1.0, 0.0, 0.9)])
    weights = [math.exp(each / 2) for each in (3.0, -1.0, 0.5)]
    assert (weights[0] + weights[1]) / sum(weights) < 0.9
    logprob = math.log(weights[2] / sum(weights))
    close(found, torch.tensor([[1, 0], [1, 2], [2, 3], [2, 0.5], whole, [0, logprob]], dtype=torch.float64))


def test_each_request_sees_its_own_rows_after_the_engines_tap_and_edits_no_others() -> None:
    seen: list[Any] = []

    def add(amount: float) -> Any:
        def tap(values: torch.Tensor, positions: range, index: int) -> torch.Tensor:
            seen.append((values.tolist(), positions, index))
            return values.add_(amount)

        return tap

    def look(values: torch.Tensor, positions: range, index: int) -> None:
        values.zero_()

    one = chunk([0] * 5, 3, 5, [], taps=RequestTaps({"norm": add(10.0)}), index=2)
    plain = chunk([0], 0, 1, [])
    other = chunk([0], 0, 1, [], taps=RequestTaps({"norm": add(100.0), "embed": look}))
    values = torch.tensor([1.0, 2.0, 3.0, 4.0])
    taps: dict[str, Any] = dict(taps_of_step([one, plain, other], {"norm": lambda values: values * 2, "mid": look}))
    assert list(taps) == ["norm", "mid", "embed"] and taps["mid"] is look
    assert taps["norm"](values).tolist() == [12.0, 14.0, 6.0, 108.0] and values.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert seen == [([2.0, 4.0], range(3, 5), 2), ([8.0], range(1), 0)]
    assert taps["embed"](values) is None and values.tolist() == [1.0, 2.0, 3.0, 4.0]
    held = torch.full((4,), 5.0)
    assert taps_of_step([one, plain, other], {"norm": lambda values: held})["norm"](values) is not held
    assert held.tolist() == [5.0] * 4, "the engine's tap may keep what it returned"
    only: dict[str, Any] = dict(taps_of_step([plain, other], None))
    assert only["norm"](values[:2]).tolist() == [1.0, 102.0]
    reads = chunk([0], 0, 1, [], taps=RequestTaps({"norm": add(1.0)}, edits=False))
    with pytest.raises(ConfigError) as told:
        taps_of_step([reads], {})["norm"](values[:1])
    assert str(told.value) == "a tap on norm that only reads returned values: return None, or say edits=True"
    for wrong, says in (
        (lambda values, *_: values[:1], "(1,) torch.float32"),
        (lambda values, *_: values.double(), "(2,) torch.float64"),
    ):
        bad = chunk([0, 0], 0, 2, [], taps=RequestTaps({"norm": wrong}))
        with pytest.raises(ConfigError) as told:
            taps_of_step([bad], {})["norm"](values[:2])
        assert str(told.value) == (
            f"the request's tap on norm returned {says}: expected (2,) torch.float32, or None to leave it as it is"
        )


def test_each_source_is_encoded_once_and_packed_again_only_if_the_batch_changed() -> None:
    asked: list[Any] = []

    def encoded(texts: list[tuple[int, ...]]) -> list[Sources]:
        asked.append(texts)
        return [Sources((torch.tensor(text),), (torch.tensor(text) * 10,), (len(text),)) for text in texts]

    cache = SourceCache(SimpleNamespace(encoded=encoded))  # type: ignore[arg-type]
    a, b = Source((1, 2)), Source((3,))
    chunks = [chunk([0] * 3, 0, 3, [], source=b), chunk([0], 0, 1, [], source=a), chunk([0] * 2, 0, 2, [], source=b)]
    own: Any = object()
    made = cache.over(chunks, own)
    assert asked == [[(3,), (1, 2)]] and len(cache) == 2 and made.own is own and made.lengths == [3, 1, 2]
    assert made.sources.keys[0].tolist() == [3, 1, 2, 3] and made.sources.values[0].tolist() == [30, 10, 20, 30]
    assert made.sources.lengths == (1, 2, 1) and cache.over(chunks, own).sources is made.sources
    assert cache.over(chunks[:2], own).sources.lengths == (1, 2) and len(asked) == 1
    assert cache.over([chunks[1], chunks[0]], own).sources.lengths == (2, 1)
    cache.forget(b)
    cache.forget(Source((9,)))
    assert len(cache) == 1 and cache._latest is None
    cache.over(chunks, own)
    assert asked[1:] == [[(3,)]]
    model = tiny_model()
    check_source((), model)
    check_replaceable(model)
    with pytest.raises(
        ConfigError, match="a source is given, and the model is no encoder-decoder: give its text as the prompt"
    ):
        check_source((1,), model)


def test_the_compiled_step_takes_blocks_of_sixteen_slots_or_a_multiple() -> None:
    sizes = (1, 4, 8, 15, 16, 17, 24, 31, 32, 40, 48)
    found = {size: Runner(tiny_model(), num_blocks=2, block_size=size) for size in sizes}
    told = {
        size: f"blocks have {size} slots, which is not a multiple of 16" for size in sizes if size not in (16, 32, 48)
    }
    assert {size: run.not_compiled for size, run in found.items()} == {**dict.fromkeys((16, 32, 48)), **told}
    assert [size for size, run in found.items() if run.is_compiled] == [16, 32, 48]
    assert [size for size, run in found.items() if run.modules is None] == [16, 32, 48]
