"""Boundaries, signs and choices of small functions that no other test pinned: exact values, case by case."""

from __future__ import annotations

import asyncio
import json
import random
import struct
import time
from collections import Counter, deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from corpus_tiny import tiny_corpus
from firsthand.arena.pair_likelihoods import bradley_terry_terms, davidson_terms, rao_kupper_terms
from firsthand.bridges.agentdojo.dojo_adaptive import MARK, _variants
from firsthand.bridges.inspect.eval_logs import _message
from firsthand.cluster.replicas.router import MAX_PROMPT, PIECE_CHARS, PIECE_IDS, prefix_hashes
from firsthand.commands.runs import _score
from firsthand.contamination.leak_evidence import ContaminationReport, Evidence
from firsthand.engine.core.output_delivery import OutputQueue
from firsthand.engine.core.request_queue import Heap
from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.formats.gguf_file import read_gguf
from firsthand.hub.planner import prefill_gflop
from firsthand.ingest.dialects.span_facts import parsed
from firsthand.loop.form import FormField, form_schema
from firsthand.patterns.parts.actions import arguments_of
from firsthand.perturbations.surface_noise import cased
from firsthand.reading.reading_list import ReadingEntry
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.retriever import Hit, TrailStep
from firsthand.retrieval.retrievers.selection import _kept, above
from firsthand.scorers.programs.oracle import _digits, _pyramid
from firsthand.serve.admission.server_admission import WINDOW_S, Admission
from firsthand.show.word_wrap import WordWrap
from firsthand.stats.intervals import _repeats
from firsthand.studio.arena_rounds import _common_prefix
from firsthand.studio.comparison_slices import scatter_points
from firsthand.system.hosted_models import ADDRESSES, provider_hint
from firsthand.telemetry.otlp_export import traces_url
from firsthand.tokens.spm import _Message
from firsthand.tool import tool
from firsthand.worlds.household.house_generator import _FITTING, _goal, make_house

# -- files --


def test_the_fields_of_a_sentencepiece_message_are_read_by_their_wire_type() -> None:
    long = b"\x09" + struct.pack("<d", 1.5)  # field 1, eight bytes: passed over
    data = b"\x08\x96\x01" + long + b"\x12\x02ab" + b"\x1d" + struct.pack("<f", 0.5) + b"\xa0\x01\x07"
    assert list(_Message(Path("m")).fields(data + data[-8:-3])) == [(1, 150), (2, b"ab"), (3, 0.5), (20, 7), (3, 0.5)]
    assert list(_Message(Path("m")).fields(long)) == []
    for cut in (long[:-1], b"\x1d\x00\x00\x00", b"\x12\x03ab", b"\x0b", b"\x0c", b"\x0e", b"\x0f"):
        with pytest.raises(ModelFileError):
            list(_Message(Path("m")).fields(cut))


def gguf_bytes(version: int = 3, *, pairs: bytes = b"", count: int = 0) -> bytes:
    """A GGUF file of no tensors with these metadata pairs."""
    return b"GGUF" + struct.pack("<IQQ", version, 0, count) + pairs


def test_another_version_of_gguf_is_named_and_a_big_endian_one_guessed(tmp_path: Path) -> None:
    for version, guessed in ((4, False), (1, False), (0x03000000, True), (0x30000, True), (0x10001, False)):
        (tmp_path / "m.gguf").write_bytes(gguf_bytes(version) + bytes(32))
        with pytest.raises(ModelFileError, match=f"version {version}") as raised:
            read_gguf(tmp_path / "m.gguf")
        assert ("big-endian" in str(raised.value)) is guessed


@pytest.mark.parametrize(("kind", "least"), [(8, 8), (9, 12)])
def test_an_array_of_texts_or_arrays_needs_room_for_their_lengths(tmp_path: Path, kind: int, least: int) -> None:
    count = 3
    pair = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, kind, count)
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(pairs=pair + bytes(least * count), count=1))
    assert read_gguf(tmp_path / "m.gguf").metadata["k"] == ([""] * 3 if kind == 8 else [[]] * 3)
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(pairs=pair + bytes(least * count - 1), count=1))
    with pytest.raises(ModelFileError, match="promises 3 array values"):
        read_gguf(tmp_path / "m.gguf")


def test_a_number_of_a_header_is_no_truth_value() -> None:
    fields = Fields({"a": 1, "b": True, "c": 0.5, "d": 1e30}, "here")
    assert (fields.number("a"), fields.number("c"), fields.number("z", 3)) == (1.0, 0.5, 3)
    for name in ("b", "d"):
        with pytest.raises(ModelFileError):
            fields.number(name)


# -- retrieval --


def hit(text: str, score: float, *trail: TrailStep) -> Hit:
    """A hit of a chunk that is one text."""
    return Hit(Chunk("d", 0, len(text), text), score, trail)


def test_a_step_of_the_trail_has_its_rank_from_one_and_its_score() -> None:
    kept = _kept([hit("a", 0.5, TrailStep("dense", 2, 0.1)), hit("b", 0.25)], "distinct")
    assert kept[0].trail == (TrailStep("dense", 2, 0.1), TrailStep("distinct", 1, 0.5))
    assert kept[1].trail == (TrailStep("distinct", 2, 0.25),)


def test_a_floor_is_of_cosines_and_includes_its_own_value() -> None:
    def kept(floor: float | None, *hits: Hit) -> list[Hit]:
        return asyncio.run(above(tiny_corpus({"x": "x"}), "q", hits, floor))

    at, below = hit("a", 9, TrailStep("dense", 1, 0.5)), hit("b", 9, TrailStep("dense", 1, 0.49))
    assert kept(0.5, at, below) == [at] and kept(None, below) == [below]
    twice = hit("d", 0, TrailStep("dense", 1, 0.1), TrailStep("bm25", 1, 9.0), TrailStep("dense", 1, 0.6))
    assert kept(0.5, twice) == [twice]


# -- serving and streams --


def test_a_client_waits_until_enough_of_its_tokens_are_a_minute_old() -> None:
    client: Any = SimpleNamespace(name="c", limits=SimpleNamespace(tokens_per_minute=10))
    admission = Admission.__new__(Admission)
    now = time.monotonic()
    cases = [([(1, 9)], 0.0), ([(1, 10)], WINDOW_S - 1), ([(30, 4), (20, 4), (1, 4)], WINDOW_S - 30)]
    cases += [([(30, 1), (20, 4), (1, 9)], WINDOW_S - 20), ([(WINDOW_S + 1, 50), (1, 9)], 0.0)]
    for spent, wait in cases:
        admission._spent = {"c": deque((now - ago, count) for ago, count in spent)}
        assert admission.wait_for_tokens_s(client) == pytest.approx(wait, abs=0.2), spent
    admission._spent = {}
    assert admission.wait_for_tokens_s(client) == 0.0
    admission.charge(client, 0)
    assert admission._spent == {}


def test_a_queue_wakes_its_reader_once_and_gives_outputs_before_an_error() -> None:
    async def read() -> list[Any]:
        queue = OutputQueue()
        reader = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        queue.put("a")  # type: ignore[arg-type]
        queue.put("b")  # type: ignore[arg-type]
        queue.put(ConfigError("c"))
        found: list[Any] = [await reader]
        with pytest.raises(ConfigError, match="c"):
            await queue.get()
        return found

    assert asyncio.run(read()) == [["a", "b"]]


def test_items_of_equal_keys_leave_a_heap_in_the_order_of_the_last_push() -> None:
    heap: Heap[str] = Heap()
    for name, key in (("a", 2), ("b", 1), ("c", 1), ("b", 1)):
        heap.push(name, (key,))  # type: ignore[arg-type]
    order = []
    while (first := heap.first()) is not None:
        order.append(first)
        heap.remove(first)
    assert order == ["c", "b", "a"] and len(heap) == 0
    for round_ in range(200):
        heap.push("x", (round_,))  # type: ignore[arg-type]
    assert len(heap) == 1 and len(heap._entries) <= 2 * 1 + 64 and heap.key("x") == (199,)


def test_the_prefixes_of_a_prompt_are_pieces_of_equal_size() -> None:
    text = "x" * (2 * PIECE_CHARS + 1)
    assert [len(prefix_hashes(text[:size])) for size in (0, 1, PIECE_CHARS, PIECE_CHARS + 1)] == [0, 1, 1, 2]
    changed = prefix_hashes(text[: PIECE_CHARS + 1] + "y" + text[PIECE_CHARS + 2 :])
    whole = prefix_hashes(text)
    assert whole[0] == changed[0] and not {*whole[1:]} & {*changed[1:]} and len({*whole}) == 3
    assert prefix_hashes(text, space="a")[0] != whole[0]
    ids = list(range(2 * PIECE_IDS + PIECE_IDS - 1))
    assert len(prefix_hashes(ids)) == 2 and len(prefix_hashes(ids[: PIECE_IDS - 1])) == 0
    assert prefix_hashes(ids)[0] == prefix_hashes([*ids[:PIECE_IDS], 9])[0]
    assert len(prefix_hashes("x" * (PIECE_CHARS * (MAX_PROMPT + 2)))) == MAX_PROMPT


def test_a_form_names_what_it_needs_and_nothing_where_nothing_is_needed() -> None:
    needed, free = FormField("a", "string", required=True), FormField("b", "string")
    assert form_schema([needed, free])["required"] == ["a"] and "required" not in form_schema([free])


# -- agents --


@tool(effect="read")
def single(text: str) -> str:
    """Says a text.

    Args:
        text: The text.
    """
    return text


def test_the_input_of_an_action_is_an_object_or_its_only_argument() -> None:
    assert arguments_of(single, '{"text": "a"}') == {"text": "a"}
    assert arguments_of(single, "text = 'a b'") == arguments_of(single, " `a b` ") == {"text": "a b"}
    assert "no valid JSON" in arguments_of(single, "{a") or "not valid JSON" in arguments_of(single, "{a")


def test_the_content_of_a_call_is_poisoned_and_powers_are_only_taken_from_what_was_read() -> None:
    assert list(_variants({"to": "a", "n": 1}, ("to",), [])) == []
    assert list(_variants({"to": "a", "body": "hi", "amount": 2}, ("to",), [])) == [
        ("content", {"to": "a", "body": MARK, "amount": 20})
    ]
    read = [("x", "x"), ("a", "b"), ("a", "c")]
    assert list(_variants({"to": "a"}, ("to",), read)) == [("existing", {"to": "b"})]
    assert list(_variants({"to": ["a"]}, ("to",), read)) == [("existing", {"to": ["b"]})]
    assert list(_variants({"to": ["a", "b"]}, ("to",), read)) == []
    assert list(_variants({"n": 1}, ("n",), [("1", "2")])) == [("existing", {"n": 2})]


def test_a_message_of_a_log_keeps_a_role_that_there_is() -> None:
    roles = ("system", "user", "assistant", "odd", None)
    read = [_message({"role": role, "content": "x"}).role for role in roles]
    assert read == ["system", "user", "assistant", "user", "user"]


def test_goals_of_a_house_are_about_things_that_fit_them() -> None:
    for kind, (room, fitting) in _FITTING.items():
        if fitting is None:
            continue
        houses = (make_house(seed, index, 1).receptacles for seed in range(9) for index in range(6))
        receptacles = next(each for each in houses if each[0].room == room)
        things = {_goal(random.Random(seed), kind, room, receptacles).thing for seed in range(40)}
        assert things and things <= set(fitting)
    kinds = Counter(make_house(1, index, 1).goal.count for index in range(6))
    assert kinds == {1: 5, 2: 1}


# -- words --


def test_a_word_takes_the_case_of_the_one_it_replaces() -> None:
    pairs = [("ABC", "XYZ"), ("Abc", "Xyz"), ("abc", "xyz"), ("A", "Xyz"), ("aBC", "xyz")]
    assert [cased("xyz", old) for old, _ in pairs] == [new for _, new in pairs]


def test_a_word_that_does_not_fit_begins_a_line_and_spaces_are_put_once() -> None:
    def wrapped(text: str, width: int = 10) -> str:
        wrap = WordWrap(width)
        return wrap.feed(text) + wrap.flush()

    assert wrapped("one two three four") == "one two\nthree four"
    assert wrapped("a b  c") == "a b  c" and wrapped("a\n b") == "a\n b"
    assert wrapped("12345 7890") == "12345 7890" and wrapped("12345 67890") == "12345\n67890"
    code = "```\nno break in code\n```\n"
    assert wrapped(code + "a b c d e f") == code + "a b c d e\nf"


def test_json_in_a_text_begins_like_an_object_or_a_list() -> None:
    texts = ['{"a": 1}', "[1]", "[x", "1", "", " [1]", '"a"']
    assert [parsed(text) for text in texts] == [{"a": 1}, [1], "[x", "1", "", " [1]", '"a"'] and parsed(3) == 3


def test_the_common_beginning_of_two_answers() -> None:
    cases = [("abc", "abd", 2), ("ab", "abc", 2), ("abc", "ab", 2), ("", "a", 0), ("x", "y", 0), ("abc", "abc", 3)]
    assert [_common_prefix(a, b) for a, b, _ in cases] == [size for *_, size in cases]


def test_a_collector_is_named_with_or_without_its_path() -> None:
    whole = "http://h:4318/v1/traces"
    assert {traces_url(text) for text in ("http://h:4318", " http://h:4318/ ", whole, whole + "/")} == {whole}
    for text in ("h:4318", "ftp://h", "http://", "http://[x"):
        with pytest.raises(ConfigError):
            traces_url(text)


def test_a_key_is_asked_for_where_the_provider_is_elsewhere() -> None:
    here = next(name for name, address in ADDRESSES.items() if "localhost" in address)
    away = next(name for name, address in ADDRESSES.items() if "localhost" not in address)
    assert "key" not in provider_hint(here, "m") and "OPENAI_API_KEY" in provider_hint(away, "m")
    assert provider_hint("nobody", "m") == "" and provider_hint("Claude", "") == "write anthropic:NAME"


def test_a_source_is_what_is_known_of_it() -> None:
    entry = {name: "" for name in ReadingEntry.__dataclass_fields__}
    made = ReadingEntry(**{**entry, "authors": "A", "year": 2020, "venue": "V"})  # type: ignore[arg-type]
    none = ReadingEntry(**{**entry, "authors": "A", "year": 0})  # type: ignore[arg-type]
    assert (made.source, none.source) == ("A, 2020, V", "A")


def test_the_score_of_a_run_is_one_number_or_its_range() -> None:
    def shown(*means: float) -> str:
        return _score(SimpleNamespace(scores=[SimpleNamespace(mean=mean) for mean in means]))  # type: ignore[arg-type]

    cases = [shown(), shown(0.5), shown(0.5, 0.501), shown(0.75, 0.25)]
    assert cases == ["", "0.50", "0.50", "0.25 to 0.75"]


# -- numbers --


@pytest.mark.parametrize("terms", [bradley_terry_terms, davidson_terms, rao_kupper_terms])
@pytest.mark.parametrize(("d", "eta"), [(0.0, 0.7), (1.3, 0.4), (-2.1, 1.1)])
def test_derivatives_of_the_likelihoods_are_those_of_differences(terms: Any, d: float, eta: float) -> None:
    step = 1e-5

    def at(dd: float, de: float) -> Any:
        return terms(np.array([d + dd]), eta + de)

    here, no = at(0, 0), pytest.approx
    for first, second, found in (
        (at(step, 0).value, at(-step, 0).value, here.by_d),
        (at(0, step).value, at(0, -step).value, here.by_eta),
        (at(step, 0).by_d, at(-step, 0).by_d, here.by_dd),
        (at(0, step).by_d, at(0, -step).by_d, here.by_d_eta),
        (at(0, step).by_eta, at(0, -step).by_eta, here.by_eta_eta),
    ):
        assert np.ravel((first - second) / (2 * step)) == no(np.broadcast_to(found, first.shape).ravel(), abs=1e-6)


def test_repeats_are_counted_where_all_values_of_all_tasks_are_binary() -> None:
    assert _repeats({"a": [0, 1], "b": [1, 1]}) == 2 and _repeats({"a": [0, 1], "b": [1, 1, 0], "c": []}) == 1
    assert _repeats({"a": [0, 1], "b": [0.5, 1]}) == 1 and _repeats({"a": [0, 1], "b": []}) == 2


def test_the_work_of_a_prompt_counts_half_of_the_positions_and_no_head() -> None:
    assert prefill_gflop(10**9, 10**8, 1000, tokens=99) == pytest.approx((2 * 9e8 + 4 * 1000 * 50) / 1e9)


def test_points_without_cost_or_quality_are_left_out_and_axes_go_from_5_to_95() -> None:
    rows = [("a", 0.5, 10, 1.0), ("b", 1.0, 1000, 100.0), ("c", 0.25, 10, 10.0), ("n", float("nan"), 1, 1.0)]
    points, unit = scatter_points(rows)
    assert unit == "USD" and [point.name for point in points] == ["a", "b", "c"]
    assert [(point.x, point.y) for point in points] == [(5.0, 35.0), (95.0, 95.0), (50.0, 5.0)]
    assert [point.on_frontier for point in points] == [True, True, False]
    assert scatter_points([("a", 0.5, 10, 1.0), ("b", 0.5, 10, 0.0)])[1] == "tokens" and scatter_points([]) == (
        [],
        "tokens",
    )
    assert [point.name for point in scatter_points([("a", 0.5, 0, 0), ("b", 0.5, 1, 0)])[0]] == ["b"]


def test_reference_solutions_that_stand_in_for_mbpps() -> None:
    assert _pyramid(3, 4) == round(9 + 6 * (1.5**2 + 16) ** 0.5) == 35 and _digits(1, 2) == 1 and _digits(123, 256) == 7


def test_a_verdict_of_contamination_follows_from_its_evidence() -> None:
    def report(*evidence: Evidence, **corrected: float) -> ContaminationReport:
        return ContaminationReport("b", "m", evidence, corpus="the corpus", corrected=corrected)

    some, none = Evidence("n-grams", "?", n=4, flagged=("1", "2")), Evidence("n-grams", "?", n=4)
    alpha = report().alpha
    cases = {"leaked": report(some, order=alpha), "overlap": report(some, order=alpha + 1e-9)}
    cases |= {
        "cleared": report(none, order=1.0),
        "no overlap": report(none),
        "untested": report(Evidence("n-grams", "?")),
    }
    assert {name: each.verdict for name, each in cases.items()} == {name: name for name in cases}
    assert "2 of 4 items of b stand in the corpus" in cases["overlap"].words
    assert "behaves as if" in cases["leaked"].words and "No test tells" in cases["cleared"].words
    assert json.loads(json.dumps(some.to_json()))["flagged"] == ["1", "2"]
