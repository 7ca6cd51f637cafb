"""Fields of records that filters do not see, and quotes that are never closed, are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from firsthand.errors import DataError
from firsthand.retrieval.documents.file_content import FileContent, ReadSettings
from firsthand.retrieval.documents.json_reader import _LEFT_OUT, _TOO_MANY_FIELDS, _WHOLE, read_json, read_jsonl
from firsthand.retrieval.documents.table_reader import read_table

PLAIN = ReadSettings()


def records(*rows: dict[str, Any]) -> FileContent:
    return read_jsonl("\n".join(json.dumps({"text": "t", **row}) for row in rows).encode(), "r.jsonl", PLAIN)


def test_a_field_that_filters_do_not_see_is_told_by_name_and_count() -> None:
    made = records({"access": "a" * 1001, "n": 1 << 63}, {"access": "b" * 1001, "kind": "k", "none": None})
    assert made.notes == (f"{_LEFT_OUT}: access (2), n (1), kind (1)",)
    assert [each.meta for each in made.documents] == [{"kind": "record"}] * 2
    many = records({f"f{n:02}": "x" * 1001 for n in range(21)})
    assert many.notes[0].endswith("f19 (1) and 1 more")


def test_a_list_is_kept_for_filters_and_told() -> None:
    made = records({"access": ["private", "h\u200br"], "long": ["x" * 1000], "o": {"a": 1}})
    assert made.documents[0].meta == {"kind": "record", "access": ["private", "hr"], "o": {"a": 1}}
    assert made.notes == (f"{_WHOLE}: access (1), o (1)", f"{_LEFT_OUT}: long (1)")


def test_a_record_of_more_fields_than_filters_see_is_refused() -> None:
    made = records({f"f{n}": n for n in range(199)}, {f"f{n}": n for n in range(200)})
    assert len(made.documents) == 1 and made.documents[0].meta["f198"] == 198
    assert made.failed == (("r.jsonl:2", _TOO_MANY_FIELDS),)
    with pytest.raises(DataError, match="more than 200 fields"):
        read_json(json.dumps({"text": "t"} | {f"f{n}": n for n in range(200)}).encode(), "a.json", PLAIN)


def test_a_quote_that_is_never_closed_takes_no_row_with_it() -> None:
    made = read_table(b'id,note\n0,"a\nb, c"\n1,"size 5\n2,x\n3,y\n', "t.csv", PLAIN)
    assert (
        made.documents[0].text
        == 'id: 0\nnote: a\n  b, c\n\nid: 1\nnote: "size 5\n\nid: 2\nnote: x\n\nid: 3\nnote: y\n\n'
    )
    assert [place.label for place in made.documents[0].locations] == ["1", "2", "3", "4"]
    assert made.notes == ("a quote in line 4 or behind it is never closed: from there on quotes are characters",)
    for whole in (b'a,b\n1,"x"', b'a,b\n1,"x"\n', b'a,b\n"1\n",2', b"a"):
        assert read_table(whole, "t.csv", PLAIN).notes == ()
    with pytest.raises(DataError, match="more than 10000 columns"):
        read_table(b'a,"b\n' + b"," * 10_000, "t.csv", PLAIN)


def test_the_delimiter_that_a_first_line_states_is_taken() -> None:
    for data in (b"sep=;\nname;a,b\nBob;5\n", b"SEP=|\r\nname|a,b\r\nBob|5\r\n"):
        assert read_table(data, "t.csv", PLAIN).documents[0].text == "name: Bob\na,b: 5\n\n"


def test_records_without_text_are_told_by_their_numbers() -> None:
    made = records({"id": "1"}, {"id": "2", "text": ""}, {"id": "3", "text": " \u200b"}, {"id": "2"})
    assert made.notes == ("2 records without text, not indexed: number 2, 3",)
    texts = {each.id: each.text for each in made.documents}
    assert texts["r.jsonl:2"] == "t" and not made.failed, "the id of a record without text is still free"
    again = records({"id": "1"}, {"id": "1", "text": ""})
    assert [each.text for each in again.documents] == ["t"] and not again.failed and "number 2" in again.notes[0]
    failed = read_jsonl(b'{"text": ""}\n5', "r.jsonl", PLAIN)
    assert failed.notes and failed.failed, "only a file that is empty is told as a whole"
    assert read_json(b'[{"text": "a"}, {"text": ""}]', "r.json", PLAIN).notes == (
        "1 record without text, not indexed: number 2",
    )
    assert records(*[{"text": ""}] * 20, {}).notes[0].endswith("19, 20")
    assert records(*[{"text": ""}] * 21, {}).notes[0].endswith("19, 20 and 1 more")
    assert records({}).notes == records({"text": ""}).notes == ()
