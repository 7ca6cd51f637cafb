"""Facts of documents that are changed for `firsthand rag decide`: whole words alone, and no names."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from firsthand.errors import DataError
from firsthand.experiment.rag_decision import FactChange, FactQuestion, changed_index, choose_changes
from firsthand.experiment.stated_fact import AROUND, can_be_restated, places, restated
from firsthand.retrieval.benchmark_corpus import build_index
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.document import Document
from firsthand.retrieval.store.sqlite_index import open_index


@pytest.mark.parametrize(
    ("text", "fact", "changed"),
    [
        ("It has 118 members. 18 men began it, 18.", "18", "It has 118 members. Dora men began it, Dora."),
        ("1.18 or 18.5, 1,180, -18, 18", "18", "1.18 or 18.5, 1,180, -18, Dora"),
        ("Annex of Ann, Ann's, Joanna, ann", "Ann", "Annex of Dora, Dora's, Joanna, ann"),
        ("ANN OF GRAZ. She is Ann.", "Ann", "ANN OF GRAZ. She is Dora."),
        ("Oslo", "Oslo", "Dora"),
        ("Oslo Oslo", "Oslo", "Dora Dora"),
        ("na na na", "na na", "Dora na"),
        ("New York is not New Yorkshire: **New York**!", "New York", "Dora is not New Yorkshire: **Dora**!"),
        ("東京です。京都", "東京", "Doraです。京都"),
        ("24 million, 24 and twenty-four", "24", "24 million, Dora and twenty-four"),
        ("18.00 or 18.0, 18.05, 118.0, 18. 0", "18", "Dora or Dora, 18.05, 118.0, Dora. 0"),
        ("$1.50, 1.5, 1.500, 1.505, 1.5.0", "1.5", "$Dora, Dora, Dora, 1.505, 1.5.0"),
        ("Fig.0 is a Fig", "Fig", "Dora.0 is a Dora"),
        ("qq qqq QQ", "qq", "Dora qqq QQ"),
        ("New Yorkshire and New\nYork", "New York", "New Yorkshire and New\nYork"),
        ("twenty-four and four", "four", "twenty-four and Dora"),
        ("C++ and C", "C", "C++ and Dora"),
        ("nothing here", "Oslo", "nothing here"),
        ("nothing here", "", "nothing here"),
        ("a.b", ".", "a.b"),
    ],
)
def test_a_fact_is_changed_where_it_stands_as_whole_words(text: str, fact: str, changed: str) -> None:
    assert restated(text, fact, "Dora") == changed


def test_what_stands_far_from_the_fact_tells_nothing_of_it() -> None:
    far = "x " * AROUND
    assert restated(f"18{far}18 118{far}18", "18", "7") == f"18{far}7 118{far}7"
    assert list(places("77 7 77", "7")) == [(3, 4)]


def test_a_fact_that_names_what_is_asked_about_is_not_changed() -> None:
    club = "Club 18 has 118 members. It was begun by 18 men."
    assert not can_be_restated(club, "18", "How many men began Club 18?")
    assert not can_be_restated("The 18 Club was begun by 18 men.", "18", "How many began 18 club?")
    assert can_be_restated(club, "18", "How many men began the club?")
    assert can_be_restated("The badge is violet.", "violet", "Has it a violet or a green badge?")
    assert not can_be_restated("It has 118 members.", "18", "How many?")
    assert can_be_restated("18", "18", "18 or 19?") and not can_be_restated("", "18", "How many?")


def test_another_fact_is_chosen_where_one_cannot_be_changed() -> None:
    asked = [
        FactQuestion("1", "How many men began Club 18?", "18", ("club",)),
        FactQuestion("2", "Who directs Veldane?", "Dora", ("veldane",)),
        FactQuestion("3", "Where is Tormik?", "Porto", ("tormik",)),
    ]
    texts = {"club": "Club 18 has 118 members, begun by 18 men.", "veldane": "It is Dora.", "tormik": "It is in Porto."}
    for seed in range(4):
        found = {change.document: change.new for change in choose_changes(asked, texts, 1.0, seed=seed)}
        assert found == {"veldane": "Porto", "tormik": "Dora"}
    with pytest.raises(DataError, match="no fact can be changed"):
        choose_changes(asked[:1], texts, 1.0, seed=0)


def test_the_changed_index_states_the_new_fact_and_keeps_names_and_numbers(tmp_path: Path) -> None:
    path, target = tmp_path / "i", tmp_path / "changed"
    asyncio.run(
        build_index(path, [Document("club", "It has 118 members and 18.5 rooms. 18 men began it.")], embedder="")
    )
    change = FactChange(FactQuestion("1", "How many?", "18", ("club",)), "club", "Dora")
    asyncio.run(
        changed_index(path, target, [change], None, lambda each: [Chunk(each.id, 0, len(each.text), each.text)])
    )
    with closing(open_index(target)) as index:
        assert index.document("club").text == "It has 118 members and 18.5 rooms. Dora men began it."
