"""Values of a forged graph: extractions, reports and communities of another form are one sentence, for every reader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, ModelError, StoreError
from firsthand.retrieval.graph.community_reports import CommunityReport
from firsthand.retrieval.graph.graph_build import GraphSettings, _checked_reader, estimate
from firsthand.retrieval.graph.graph_file import MAX_PART_VALUES, GraphFile, graph_path
from firsthand.retrieval.graph.graph_state import load_state, verify_graph
from firsthand.retrieval.graph.leiden import Community
from firsthand.retrieval.store.sqlite_index import SqliteIndex
from graph_handmade import COMMUNITIES, handmade, report_of

HUGE = "1" + "0" * 400
DEEP = '{"a":' + "[" * 60_000


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[GraphFile, SqliteIndex]]:
    path, index = handmade(tmp_path)
    file = GraphFile(graph_path(path))
    yield file, index
    file.close()
    index.close()


def refused(file: GraphFile, index: SqliteIndex) -> list[str]:
    found = []
    for read in (lambda: load_state(file, index), lambda: verify_graph(file, index)):
        with pytest.raises(StoreError) as raised:
            read()
        assert str(raised.value).startswith(str(file.path))
        assert str(raised.value).endswith("elete it and build the graph again")
        found.append(str(raised.value))
    return found


EXTRACTIONS = {
    '{"entities":[],"relations":[["A","B","d",' + HUGE + "]]}": "int too large to convert to float",
    '{"entities":[],"relations":[["A","B","d",1e999]]}': "the weight of a relation is no number",
    '{"entities":[[]],"relations":[]}': "not enough values to unpack",
    '{"entities":5,"relations":[]}': "not iterable",
    "[5]": "an object of JSON was expected, and there is list",
    "5": "an object of JSON was expected, and there is int",
    DEEP: "nested deeper",
    '{"entities":[' + "0," * MAX_PART_VALUES + "0]}": "its JSON holds more than 100,000 values",
}


@pytest.mark.parametrize("place", range(len(EXTRACTIONS)))
def test_an_extraction_of_another_form_is_damage(made: tuple[GraphFile, SqliteIndex], place: int) -> None:
    body, told = [*EXTRACTIONS.items()][place]
    made[0]._execute("UPDATE extractions SET body = ? WHERE state = 'done'", (body,))
    for said in refused(*made):
        assert "an extraction cannot be read: " in said and told in said


@pytest.mark.parametrize(
    "built",
    [
        {"communities": 5},
        {"communities": [5]},
        {"communities": [[0, 0, None, [[]]]], "reports": [5]},
        {"reports": 5},
        {"phrases": {"other": 1}},
        {"phrases": {"min_frequency": "x"}},
        {"phrases": {"min_frequency": 0}},
    ],
)
def test_communities_of_another_form_are_damage(made: tuple[GraphFile, SqliteIndex], built: dict[str, Any]) -> None:
    file, _ = made
    whole = file.meta("built")
    assert whole is not None
    file.put_meta("built", whole | built)
    assert all("is damaged" in said for said in refused(*made))


@pytest.mark.parametrize("body", ["5", "[]", "null", DEEP, b"\xff"])
def test_what_is_no_object_is_no_state_of_a_graph(made: tuple[GraphFile, SqliteIndex], body: Any) -> None:
    file, index = made
    file._execute("UPDATE meta SET body = ? WHERE key = 'built'", (body,))
    assert all("cannot be used: built cannot be read: " in said for said in refused(file, index))


@pytest.mark.parametrize("change", [{"rating": int(HUGE)}, {"findings": [[]]}, {"title": None, "findings": 5}])
def test_a_report_of_another_form_is_damage(made: tuple[GraphFile, SqliteIndex], change: dict[str, Any]) -> None:
    file, index = made
    file._execute("UPDATE texts SET body = ?", (json.dumps(report_of("x", 1.0) | change),))
    with pytest.raises(StoreError, match="is damaged"):
        load_state(file, index)


def test_a_rating_of_400_digits_is_none_of_a_report() -> None:
    with pytest.raises(ModelError, match="the report is not of the schema: OverflowError"):
        CommunityReport.from_json(Community(0, 0, None, ()), report_of("x", int(HUGE)))


def test_a_report_that_communities_share_is_decoded_once(made: tuple[GraphFile, SqliteIndex]) -> None:
    file, index = made
    built = file.meta("built")
    assert built is not None
    key = next(iter(built["reports"].values()))
    file.put_meta("built", built | {"reports": {str(each[0]): key for each in COMMUNITIES}})
    reports = load_state(file, index).reports
    assert reports is not None and len(reports) == len(COMMUNITIES)
    assert {(each.community, each.level) for each in reports.values()} == {(each[0], each[1]) for each in COMMUNITIES}
    assert len({id(each.findings) for each in reports.values()}) == 1


def test_a_reader_without_its_values_is_no_traceback(made: tuple[GraphFile, SqliteIndex]) -> None:
    file, index = made
    file.put_meta("reader", {"x": 1})
    assert estimate(file, index, GraphSettings(extractor="noun_phrases")).calls == 0
    with pytest.raises(ConfigError, match=r"was made with extractor None \(now 'noun_phrases'\)"):
        _checked_reader(file, GraphSettings(extractor="noun_phrases"), None)


def test_an_ordinary_graph_is_read_as_it_was_built(made: tuple[GraphFile, SqliteIndex]) -> None:
    file, index = made
    state = load_state(file, index)
    assert state.reports is not None and [each.title for each in state.reports.values()] == [
        "All three", "Two far", "A pair", "The baker",
    ]  # fmt: skip
    assert not any("cannot" in fault or "damaged" in fault for fault in verify_graph(file, index))
