"""The raw view and the download of a received trace: what they take goes with what they show, whatever spans share."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from cpu_time import at_most_cpu_s
from firsthand.ingest.incoming_span import IncomingSpan, StoredSpan
from firsthand.studio.incoming_rows import MAX_RAW_VALUE_CHARS, ShownSpans, downloaded_spans, raw_spans, shown_spans


def spans_of(count: int, **more: Any) -> list[StoredSpan]:
    made = (IncomingSpan("7" * 32, f"{n:016x}", "", f"é {n}", n, n, **more) for n in range(1, count + 1))
    return [StoredSpan(number, each, "span") for number, each in enumerate(made, 1)]


def whole(spans: list[StoredSpan]) -> str:
    return json.dumps({"spans": [*raw_spans(spans)]}, ensure_ascii=False, indent=1)


@pytest.mark.slow
def test_the_raw_view_of_fifty_thousand_spans_that_share_a_resource_costs_what_it_shows() -> None:
    spans = spans_of(50_000, resource={"a": [{}] * 970})
    tracemalloc.start()
    try:
        with at_most_cpu_s(5):  # 49 s and 4.6 GB: the resource was copied for each span
            shown = shown_spans(spans, 20_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(shown.text) == 20_000 and shown.ends_in == 3 and peak < 2_000_000
    assert shown.text == whole(spans[:3])[:20_000]


@pytest.mark.parametrize(
    "attributes",
    [
        {"a": "line\nof\x01text" * 9, "b": [1, None, {"c": [], "d": {}}, ""]},
        {"l": [""] * 300},
        {"n": [0] * 300},
        {"o": [{}] * 300},
        {"k" * 90: {"k" * 90: {"k" * 90: {}}}},
    ],
)
def test_the_shown_text_is_the_beginning_of_the_whole_at_every_length(attributes: dict[str, Any]) -> None:
    spans = spans_of(3, attributes=attributes, resource={"service.name": "shop"})
    text = whole(spans)
    starts = [len(whole(spans[:count])) - len("\n ]\n}") for count in (1, 2)]
    for most in (0, 1, 20, *range(100, len(text), 97), *starts, len(text) - 1):
        shown = shown_spans(spans, most)
        assert shown.text == text[:most]
        assert shown.ends_in == 1 + sum(most >= start for start in starts), most
    assert shown_spans(spans, len(text)) == ShownSpans(text, 0) == shown_spans(spans, 10**9)


def test_one_span_of_many_values_is_read_as_far_as_it_is_shown() -> None:
    class Counted(list[Any]):
        read = 0

        def __iter__(self) -> Any:
            for each in super().__iter__():
                Counted.read += 1
                yield each

    for value in ("", 0, {}, "x" * 50, {"k" * 20: ""}):
        Counted.read = 0
        (one,) = spans_of(1, attributes={"list": Counted([value] * 100_000), "last": "x"})
        shown = shown_spans([one], 3000)
        assert len(shown.text) == 3000 and shown.ends_in == 1 and Counted.read < 1100, value
    names = {f"{'k' * 500}{number}": 1 for number in range(100)}
    assert shown_spans(spans_of(2, attributes=names), 4000).ends_in == 1, "names that are cut to one name end it too"
    long = shown_spans(spans_of(1, attributes={"a": "v" * (MAX_RAW_VALUE_CHARS + 1)}), 10**6)
    assert "v… (1 more characters)" in long.text and long.ends_in == 0
    cut = shown_spans(spans_of(1, attributes={"a": "v" * (2 * MAX_RAW_VALUE_CHARS), "b": "last"}), 250_000)
    assert '"b": "last"' in cut.text and cut.ends_in == 0, "a text takes what is shown of it"


def test_a_download_is_the_whole_in_pieces_and_a_long_resource_of_spans_of_one_id_stands_once() -> None:
    spans = spans_of(50, resource={"r": "x" * 1000})
    text = json.dumps({"spans": [*raw_spans(spans)]})
    for most in (1, 3000, len(text), 1 << 20):
        pieces = [*downloaded_spans(spans, most)]
        assert "".join(pieces) == text and all(len(each) < most + 1500 for each in pieces)
    assert len([*downloaded_spans(spans, 3000)]) > 10 and len([*downloaded_spans(spans)]) == 1
    assert "".join(downloaded_spans([])) == '{"spans": []}'
    copies = spans_of(1, resource={"r": "x" * 5000}) * 3
    told = [each["resource"] for each in raw_spans(copies)]
    assert told == [{"r": "x" * 5000}] + [{"as of span": f"{1:016x}"}] * 2, "it was written for each of them"
