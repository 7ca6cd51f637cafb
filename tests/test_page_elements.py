"""Elements of Mind2Web's pages are read in time linear in the page, whatever the page is made of."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import DataError
from firsthand.worlds.browsing import mind2web
from firsthand.worlds.browsing.mind2web import read_steps
from firsthand.worlds.browsing.page_elements import PageElements


def steps(page: str) -> int:
    """The lines of Python that reading a page takes, which no busy machine changes."""
    taken = 0

    def trace(*_: Any) -> Any:
        nonlocal taken
        taken += 1
        return trace

    sys.settrace(trace)
    try:
        found = PageElements(page)
        [found[each] for each in list(found)[:5]]
    finally:
        sys.settrace(None)
    return taken


@pytest.mark.parametrize("piece", [
    "<a ", "<b backend_node_id='1'>x", "<b backend_node_id='1' />x", "<!--", "<a b='>'", "</i>", "<", "<b>", "&#1", "</b ",
])  # fmt: skip
def test_hostile_pages_take_time_in_proportion(piece: str) -> None:
    assert steps("<b>" * 400 + piece * 400) < 2.2 * steps("<b>" * 200 + piece * 200)


@pytest.mark.slow
def test_a_hundred_kilobytes_of_open_tags_and_quotes_are_read_at_once() -> None:
    for piece in ("<a ", "<a b='>'", "<a b=\"'>", "a=' ", "</i>", "<!-- "):
        assert len(PageElements("<b>" + piece * 100_000)) == 0  # minutes, if any character were read again for each tag


def test_nested_elements_have_their_own_words_and_those_inside() -> None:
    page = (
        '<DIV backend_node_id=1 ROLE="a &amp; b">x &lt; y <!-- <p backend_node_id="9"> -->'
        '<p backend_node_id="2" title=\'it "is"\'>'
        'in<span backend_node_id="3"/> a < b </i></p> after</div>'
        '<p backend_node_id="4">not closed<p backend_node_id="2">again'
        '<br backend_node_id="5">'
    )
    assert PageElements(page) == {
        "1": "<div a & b> x < y in a < b after", "2": "<p> again", "3": "<span>", "4": "<p> not closed again", "5": "<br>",
    }  # fmt: skip
    broken = PageElements('<p title="no end><b backend_node_id="1">one</b><b backend_node_id="2">two</b>')
    assert broken["2"] == "<b> two"
    assert PageElements("<p backend_node_id='1'>&#" + "1" * 9000 + ";")["1"].startswith("<p> ")


def session(**changes: Any) -> dict[str, Any]:
    action = {
        "pos_candidates": [{"backend_node_id": "1"}], "neg_candidates": [], "operation": {"op": "CLICK", "value": ""},
        "cleaned_html": "<a backend_node_id='1'>go</a>",
    }  # fmt: skip
    return {"confirmed_task": "t", "annotation_id": "a", "actions": [action] * 30, **changes}


def test_a_step_holds_the_actions_that_its_question_tells(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps([session(action_reprs=[str(n) for n in range(30)])]))
    found = read_steps(file, 0)
    assert [found[3].before, found[5].before] == [("0", "1", "2"), ("0", "1", "2", "3", "4")]
    assert found[29].before == ("24", "25", "26", "27", "28")


def test_a_file_of_more_values_than_its_bytes_allow_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "p.json"
    candidates = [{"backend_node_id": str(n), "attributes": "x" * 200} for n in range(3000)]
    text = json.dumps([session(actions=[{**session()["actions"][0], "neg_candidates": candidates}])])
    monkeypatch.setattr(mind2web, "_FEW_VALUES", 10)
    file.write_text(text)
    assert len(read_steps(file, 0)) == 1
    file.write_text(text[:-1] + ", {}" * 40_000 + "]")
    with pytest.raises(
        DataError, match=r"p\.json holds more than [\d,]+ JSON values in [\d,]+ bytes: it is no file of"
    ):
        read_steps(file, 0)


def test_references_are_resolved_before_a_text_is_cut() -> None:
    assert PageElements(f'<p backend_node_id="1">{"&amp;" * 100}</p>')["1"] == f"<p> {'&' * 100}"
