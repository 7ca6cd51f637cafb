"""Queues whose labels are of older versions, of attempts that are no part of them, or tied; items that are left open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.stats.rater_agreement import krippendorff_alpha
from firsthand.studio.annotation_queue import LABEL, OPEN, OPEN_S, AnnotationQueue, Label, Queues
from firsthand.studio.studio_store import SqliteStore


@pytest.fixture
def queues(tmp_path: Path) -> Iterator[Queues]:
    """A queue of four, the first three of which three people rate, and the last of them one."""
    store = SqliteStore(tmp_path)
    made = Queues(store)
    made.make(AnnotationQueue("q", "r", ("p2", "p1", "p10", "p3"), "good", raters=3, shared=3))
    yield made
    store.close()


def test_an_item_that_several_have_rated_comes_before_those_of_fewer_only_by_its_place(queues: Queues) -> None:
    for place, raters in (("p1", "ab"), ("p2", "a")):
        for rater in raters:
            queues.rate("q", place, rater, 1.0)
    for rater, place in (("c", "p2"), ("b", "p2"), ("a", "p10")):
        assert queues.next_item("q", rater, now=0.0) == place, rater
    assert queues.next_item("q", "d", now=0.0) == "p1", "p2 has three with those who have it open"
    assert queues.next_item("q", "d", skip=["p1", "p2"], now=0.0) == "p10"
    assert queues.next_item("q", "e", skip=("p1", "p10", "p2"), now=0.0) == "p3"
    assert queues.next_item("q", "f", skip=("p1", "p10", "p2"), now=0.0) is None, "one is enough for the last"


def test_an_item_is_left_open_for_ten_minutes_and_no_moment_more(queues: Queues) -> None:
    assert OPEN_S == 600
    assert queues.next_item("q", "a", skip=("p2", "p1", "p10"), now=50.0) == "p3"
    (item,) = queues.store.items(f"{OPEN} q")
    assert item.body == {"place": "p3", "rater": "a", "until": 650.0}
    for now, place in ((649.5, None), (650.0, "p3")):
        assert queues.next_item("q", "b", skip=("p2", "p1", "p10"), now=now) == place
    assert queues.next_item("q", "b", skip=("p2", "p1", "p10"), now=700.0) == "p3", (
        "what is one's own stays open to one"
    )
    queues.rate("q", "p3", "b", 0.5, "so")
    assert [each.body["rater"] for each in queues.store.items(f"{OPEN} q")] == ["a"], "what is rated is not open"
    assert queues.next_item("q", "b", skip=("p2", "p1", "p10"), now=700.0) is None
    with pytest.raises(UnknownName, match="the queue 'q' has no attempt 'p9'"):
        queues.rate("q", "p9", "a", 1.0)
    for value in (-0.01, 1.01, float("nan")):
        with pytest.raises(ConfigError, match=f"the label is {value}: a number from 0 to 1 was expected"):
            queues.rate("q", "p3", "a", value)


def test_labels_without_words_or_of_other_attempts_are_counted_by_their_rater(queues: Queues) -> None:
    queues.store.put(f"{LABEL} q", "p9 x", {"place": "p9", "rater": "x", "value": 1.0})
    queues.store.put(f"{OPEN} q", "p8 y", {"place": "p8", "rater": "y", "until": 9e9})
    assert queues.labels("q") == [Label("p9", "x", 1.0, "", 1)] and queues.labels("none") == []
    assert queues.next_item("q", "x", now=0.0) == "p2"
    state = queues.state("q")
    assert (state.done, state.by_rater, state.pairs, state.alpha, state.kappa, state.same, state.disagreements) == (
        0, (("x", 1, 1.0),), 0, None, None, 0, (),
    )  # fmt: skip


def test_a_long_name_of_a_rater_is_kept_whole(queues: Queues) -> None:
    long = "r" * 250
    queues.rate("q", "p1", long, 0.25, "one")
    queues.rate("q", "p1", long, 0.75, "two", version=1)
    assert queues.label("q", "p1", long) == Label("p1", long, 0.75, "two", 2) and queues.label("q", "p1", "r") is None
    assert queues.label("q", "p1", long[:-1]) is None and len(queues.store.items(f"{LABEL} q")) == 1


def test_agreement_is_that_of_the_two_who_rated_most_in_common(queues: Queues) -> None:
    said = {
        "p2": {"a": 0.5, "b": 1.0, "c": 0.0}, "p1": {"a": 0.25, "b": 0.5, "c": 0.75}, "p10": {"a": 0.0, "b": 0.0},
        "p3": {"c": 0.5},
    }  # fmt: skip
    for place, labels in said.items():
        for rater, value in labels.items():
            queues.rate("q", place, rater, value)
    state = queues.state("q")
    assert state.kappa == pytest.approx(1 - 3 * (0.25 + 0.0625) / 2.4375), "a half is neither yes nor no"
    assert state.alpha == krippendorff_alpha([[0.5, 1.0, 0.0], [0.25, 0.5, 0.75], [0.0, 0.0]], level="interval")
    assert (state.pairs, state.same, state.done) == (3, 1, 3), "p10 waits for a third, and p3 for none"
    assert state.by_rater == (("a", 3, 0.25), ("b", 3, 0.5), ("c", 3, 1.25 / 3))
    assert [place for place, _ in state.disagreements] == ["p2", "p1"]
    queues.rate("q", "p1", "a", 0.0)
    queues.rate("q", "p1", "c", 1.0)
    tied = queues.state("q").disagreements
    assert [place for place, _ in tied] == ["p1", "p2"], "of equal differences by place"
    assert [(each.rater, each.value) for each in tied[1][1]] == [("a", 0.5), ("b", 1.0), ("c", 0.0)]


def test_each_label_has_the_version_that_it_was_changed_to_and_the_queue_its_own(queues: Queues) -> None:
    queues.rate("q", "p2", "a", 0.0, version=0)
    queues.rate("q", "p2", "a", 0.25, "so", version=1)
    queues.rate("q", "p2", "a", 0.5)
    queues.rate("q", "p1", "a", 1.0, "one")
    queues.rate("q", "p1", "b", 0.0)
    queues.rate("q", "p1", "b", 0.75, "two")
    labels = {
        ("p1", "a"): Label("p1", "a", 1.0, "one", 1), ("p1", "b"): Label("p1", "b", 0.75, "two", 2),
        ("p2", "a"): Label("p2", "a", 0.5, "", 3),
    }  # fmt: skip
    assert {(each.place, each.rater): each for each in queues.labels("q")} == labels
    assert queues.state("q").labels == tuple(queues.labels("q")) and len(queues.labels("q")) == 3
    assert {key: queues.label("q", *key) for key in labels} == labels
    for version in (0, 1, 2, 4):
        with pytest.raises(ConfigError, match="open it again and repeat your change"):
            queues.rate("q", "p2", "a", 1.0, version=version)
    assert queues.label("q", "p2", "a") == labels["p2", "a"], "a refused one changes nothing"
    with pytest.raises(ConfigError):
        queues.rate("q", "p10", "a", 1.0, version=1)
    queues.rate("q", "p2", "a", 1.0, version=3)
    assert queues.label("q", "p2", "a") == Label("p2", "a", 1.0, "", 4)


def test_a_rating_that_cannot_be_kept_elsewhere_is_not_kept_and_stays_with_its_rater(queues: Queues) -> None:
    assert queues.next_item("q", "a") == "p2"

    def fails() -> None:
        raise StoreError("the run is in use")

    for _ in range(2):
        with pytest.raises(StoreError, match="the run is in use"):
            queues.rate("q", "p2", "a", 1.0, version=0, keep_too=fails)
        assert queues.labels("q") == [] and len(queues.store.items(f"{OPEN} q")) == 1
    assert queues.next_item("q", "a") == "p2"
    kept: list[str] = []
    queues.rate("q", "p2", "a", 1.0, version=0, keep_too=lambda: kept.append("note"))
    with pytest.raises(ConfigError, match="open it again"):
        queues.rate("q", "p2", "a", 0.0, version=0, keep_too=lambda: kept.append("of a refused change"))
    assert [label.value for label in queues.labels("q")] == [1.0] and kept == ["note"]
