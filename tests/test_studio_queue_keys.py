"""Each person's rating of each item is a row of its own, whatever the place of an attempt is and however long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, StoreError
from firsthand.studio.annotation_queue import LABEL, OPEN, AnnotationQueue, Queues
from firsthand.studio.studio_store import SqliteStore, StoredItem

LONG = "p" * 195
PLACES = (LONG + "1", LONG + "2", "p", f"{LONG}1 {LONG}", "p\n\x1b", "\ud800")


@pytest.fixture
def queues(tmp_path: Path) -> Iterator[Queues]:
    """A queue of a stranger's attempts."""
    store = SqliteStore(tmp_path)
    made = Queues(store)
    made.make(AnnotationQueue("q", "r", PLACES, "good", raters=3))
    yield made
    store.close()


def test_what_one_rater_says_of_one_item_is_shown_to_nobody_as_theirs_and_overwritten_by_no_one(queues: Queues) -> None:
    raters = ("human:ann", "human:bob", LONG, f"{LONG} {LONG}")
    said = {(place, rater): f"{at}" for at, (place, rater) in enumerate((p, r) for p in PLACES for r in raters)}
    for (place, rater), text in said.items():
        assert queues.label("q", place, rater) is None
        queues.rate("q", place, rater, 1.0, text, version=0)
    assert {(each.place, each.rater): each.text for each in queues.labels("q")} == said
    for (place, rater), text in said.items():
        label = queues.label("q", place, rater)
        assert label is not None and (label.text, label.version) == (text, 1)


def test_a_row_of_an_older_version_stays_its_raters_own_and_is_edited_in_place(queues: Queues) -> None:
    for place, rater in (("p", "human:ann"), (LONG + "1", "human:bob")):
        key = f"{place} {rater}"[:190]
        queues.store.put(f"{LABEL} q", key, {"place": place, "rater": rater, "value": 1.0, "text": "old"})
        queues.store.put(f"{OPEN} q", key, {"place": place, "rater": rater, "until": 9e12})
        label = queues.label("q", place, rater)
        assert label is not None and label.text == "old"
        queues.rate("q", place, rater, 0.0, "new", version=1)
    assert queues.label("q", LONG + "1", "human:ann") is queues.label("q", LONG + "2", "human:bob") is None
    assert sorted((each.rater, each.text, each.version) for each in queues.labels("q")) == [
        ("human:ann", "new", 2), ("human:bob", "new", 2),
    ]  # fmt: skip
    assert queues.store.items(f"{OPEN} q") == []


def test_the_second_of_two_tabs_is_told_with_the_beginning_of_the_place(queues: Queues) -> None:
    queues.rate("q", "p", "human:ann", 1.0, version=0)
    with pytest.raises(ConfigError, match=r"^the label q 'p human:ann' is there already: open it again"):
        queues.rate("q", "p", "human:ann", 0.0, version=0)


def test_an_item_that_somebody_has_open_is_counted_for_each_of_them(queues: Queues) -> None:
    assert queues.next_item("q", "human:ann", skip=PLACES[1:], now=0.0) == LONG + "1"
    assert queues.next_item("q", "human:bob", skip=PLACES[1:], now=0.0) == LONG + "1"
    assert len(queues.store.items(f"{OPEN} q")) == 2


def test_a_person_has_one_item_of_a_queue_open_whatever_they_skip(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    queues = Queues(store)
    queues.make(AnnotationQueue("q", "run", ("a", "b", "c"), "good", raters=1, shared=0, guide=""))
    skipped: list[str] = []
    while (place := queues.next_item("q", "ann", skip=skipped, now=0.0)) is not None:
        skipped.append(place)
    assert skipped == ["a", "b", "c"]
    assert queues.next_item("q", "ann", skip=["a"], now=1.0) == "b"
    assert queues.next_item("q", "bob", now=1.0) == "a", "what was skipped is free"
    assert queues.next_item("q", "cat", now=1.0) == "c"
    assert queues.next_item("q", "dan", now=1.0) is None and queues.next_item("q", "ann", now=2.0) == "b"
    store.close()


def test_who_asks_while_another_is_being_given_an_item_is_given_another_one(tmp_path: Path) -> None:
    beside = Queues(SqliteStore(tmp_path))
    given: dict[str, str | None] = {}
    thread = threading.Thread(target=lambda: given.update(bob=beside.next_item("q", "bob")))

    class Slow(SqliteStore):
        """A store where somebody else asks after labels and open items were read."""

        def items(self, kind: str) -> list[StoredItem]:
            found = super().items(kind)
            if kind == f"{OPEN} q":
                thread.start()
                thread.join(0.3)
            return found

    beside.make(AnnotationQueue("q", "run", ("a", "b"), "good"))
    store = Slow(tmp_path)
    given["ann"] = Queues(store).next_item("q", "ann")
    thread.join()
    assert given == {"ann": "a", "bob": "b"}
    for each in (store, beside.store):
        each.close()


def test_a_rating_gives_its_item_back_or_is_not_kept(tmp_path: Path) -> None:
    names: list[str] = []

    class Full(SqliteStore):
        """A store that cannot remove anything."""

        def remove(self, kind: str, key: str, *, version: int | None = None) -> bool:
            raise StoreError("full")

        def exclusive(self, name: str) -> AbstractContextManager[None]:
            names.append(name)
            return super().exclusive(name)

    store = Full(tmp_path)
    queues = Queues(store)
    queues.make(AnnotationQueue("q", "run", ("a", "b"), "good"))
    assert queues.next_item("q", "ann") == "a"
    with pytest.raises(StoreError, match="full"):
        queues.rate("q", "a", "ann", 1.0, version=0)
    assert queues.labels("q") == [] and len(store.items(f"{OPEN} q")) == 1
    assert names == ["queue q"] * 2, "ratings and items of a queue wait for each other"
    store.close()


def test_what_is_rated_after_its_time_is_kept_although_another_has_rated_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    queues = Queues(store)
    queues.make(AnnotationQueue("q", "run", ("a",), "good"))
    assert (queues.next_item("q", "ann", now=0.0), queues.next_item("q", "bob", now=700.0)) == ("a", "a")
    queues.rate("q", "a", "bob", 1.0, version=0)
    queues.rate("q", "a", "ann", 0.5, version=0)
    state = queues.state("q")
    assert (state.done, len(state.labels)) == (1, 2) and queues.next_item("q", "cat", now=701.0) is None
    store.close()
