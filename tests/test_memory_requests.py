"""Requests of a kept memory with unusual values: a time of 0, an empty list, equal scores, what was forgotten and new."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.memories.keeping import item_vectors
from firsthand.memories.keeping.item_file import ItemFile, KeepingBounds, ScopeSize
from firsthand.memories.keeping.item_vectors import ItemVectors
from firsthand.memories.keeping.kept_item import FIRST_UNSTORED, KeptItem, seconds_of, shown_time
from firsthand.memories.keeping.recall_request import RecallRequest
from firsthand.memories.keeping.stored_memory import KeepingPolicy, StoredMemory
from firsthand.memories.notes import Notes
from firsthand.memory import MemoryItem


def item(id: str, text: str = "tea", **provenance: Any) -> MemoryItem:
    return MemoryItem(id, text, provenance)


def by_key(item: MemoryItem) -> str | None:
    key = item.provenance.get("key")
    return None if key is None else str(key)


def plain(file: Path | None = None, owner: str = "", **policy: Any) -> StoredMemory:
    return StoredMemory(KeepingPolicy("plain", by_key, **policy), None if file is None else ItemFile(file), owner=owner)


def write(memory: StoredMemory, *items: MemoryItem) -> None:
    for one in items:
        assert asyncio.run(memory.write(one)) == one.id


def forget(memory: StoredMemory, *ids: str) -> None:
    for id in ids:
        asyncio.run(memory.forget(id))


def found(memory: StoredMemory, query: str, k: int = 99, **how: Any) -> list[str]:
    return [one.id for one in asyncio.run(memory.search(query, k, **how))]


def test_a_time_of_0_an_empty_list_and_none_are_each_what_they_are() -> None:
    zeros = RecallRequest.of("q", 0, {"at": 0, "known": 0.0, "since": 0, "until": 0, "where": {"n": 0}, "ids": [0, ""]})
    assert zeros == RecallRequest("q", 0, 0.0, 0.0, 0.0, 0.0, {"n": 0}, ("0", ""))
    unset = RecallRequest("", 7)
    assert (unset.at_s, unset.known_s, unset.since_s, unset.until_s) == (math.inf, math.inf, -math.inf, math.inf)
    for name in ("at", "known", "since", "until", "where", "ids", "history"):
        assert RecallRequest.of("", 7, {name: None}) == unset
    assert RecallRequest.of("", 7, {"where": {}, "ids": (), "history": False}) == unset
    assert RecallRequest.of("", 7, {"ids": ("b", "a", "b"), "history": "yes"}) == RecallRequest(
        "", 7, ids=("b", "a", "b"), history=True
    )
    for single in ("at", "known", "since", "until"):
        made = RecallRequest.of("", 7, {single: "1970-01-01T00:00:09"})
        assert made == RecallRequest("", 7, **{f"{single}_s": 9.0})
    now = KeptItem(item("a", n=0, m=None), FIRST_UNSTORED, None, math.inf, math.inf)
    assert unset.fits(now) and unset.is_past(now) and not RecallRequest("", 7, known_s=9e99).fits(now)
    for at_s, seen in ((99.0, False), (100.0, True), (9e99, True)):
        assert RecallRequest("", 7, at_s=at_s, now_s=100.0).is_past(now) is seen, "what is not stored yet holds now"
        assert RecallRequest("", 7, until_s=at_s, now_s=100.0).fits(now) is seen
    assert not RecallRequest("", 7, since_s=101.0, now_s=100.0).fits(now)
    given = KeptItem(item("a"), FIRST_UNSTORED, None, 50.0, math.inf)
    assert RecallRequest("", 7, now_s=100.0).dated(given) == replace(given, stored_s=100.0)
    assert RecallRequest("", 7, now_s=100.0).dated(now) == replace(now, valid_s=100.0, stored_s=100.0)
    for where, fits in (({"n": 0, "m": None}, True), ({"n": 0, "m": 0}, False), ({"n": 1, "m": None}, False),
                        ({"m": None, "x": None}, False), ({"n": ""}, False)):  # fmt: skip
        assert RecallRequest("", 7, where=where).fits(now) is fits, where
    for wrong, shown in (({"where": "n"}, "where is 'n' and ids ()"), ({"ids": "ab"}, "where is {} and ids 'ab'"),
                         ({"where": {"a": 1}, "ids": 5}, "where is {'a': 1} and ids 5")):  # fmt: skip
        with pytest.raises(ConfigError) as told:
            RecallRequest.of("", 1, wrong)
        assert str(told.value) == f"{shown}: an object and a list of ids were expected"
    with pytest.raises(ConfigError) as told:
        RecallRequest.of("", 1, {"until": 1, "unti": 2})
    assert str(told.value) == "this memory's search does not take 'unti': did you mean 'until'?"


def test_searches_with_a_time_of_0_see_what_lies_on_it_before_and_after(tmp_path: Path) -> None:
    for file in (None, tmp_path / "m.db"):
        memory = plain(file)
        write(
            memory, item("old", time=-5, key="k"), item("zero", time=0, key="k"), item("new", time=5, key="k"),
            item("free", time=0), item("late", time=1e-9),
        )  # fmt: skip
        assert found(memory, "tea", at=0) == ["free", "zero"] and found(memory, "tea", at=-1) == ["old"]
        assert found(memory, "", at=0) == ["free", "zero"] and found(memory, "", until=0) == ["free"]
        assert found(memory, "tea", until=0, history=True) == ["free", "old", "zero"]
        assert found(memory, "", since=0) == ["new", "late", "free"] == found(memory, "", since=0, at=None)
        assert found(memory, "tea", since=0, until=0, history=True) == ["free", "zero"]
        assert found(memory, "tea", known=0) == [] and found(memory, "", ids=["new", "zero", "old"], at=0) == [
            "zero",
            "old",
        ]
        assert found(memory, "tea", where={"time": 0}) == ["free"] and found(memory, "tea", 0) == []
        assert found(memory, "", ids=[]) == found(memory, "") == ["new", "late", "free"]


def test_what_an_attempt_forgot_may_be_written_again_and_the_memory_itself_is_as_it_was(tmp_path: Path) -> None:
    memory = plain(tmp_path / "m.db", owner="\udcffann")
    write(
        memory, item("a", "tea one", key="k", time=1), item("b", "tea two", key="k", time=2), item("c", "sky", time=3)
    )
    memory.lifetime = "run"
    mine = memory.snapshot()
    assert (mine.name, mine.owner, mine.lifetime, mine.file) == ("plain", "\udcffann", "run", memory.file)
    assert mine._size == memory._size_now() == ScopeSize(3, 5, memory.file.size(1).size_bytes)  # type: ignore[union-attr]
    forget(mine, "b", "none")
    assert found(mine, "tea") == ["a"] and found(mine, "two") == [] and mine.get("b") is None
    write(mine, item("b", "tea three", key="k", time=0), item("a", "never"), item("d", "sky", time=0))
    kept = mine.get("b")
    assert kept is not None and (kept.item.text, kept.number, kept.stored_s) == (
        "tea three",
        FIRST_UNSTORED + 1,
        math.inf,
    )
    assert (
        found(mine, "tea") == ["a"]
        and found(mine, "tea", at=0) == ["b"]
        and found(mine, "three", history=True) == ["b"]
    )
    assert [each.item.id for each in mine.with_key("k")] == ["b", "a"] and found(mine, "sky") == ["c", "d"]
    forget(mine, "d", "a")
    assert found(mine, "") == ["c", "b"] and [one.id for one in asyncio.run(mine.list())] == ["b", "c"]
    again = mine.snapshot()
    write(again, item("e", "sky"))
    assert [each.number - FIRST_UNSTORED for each in again._changes.values()] == [1, 3], "numbers are not used twice"
    assert found(memory, "tea") == ["b"] and [one.id for one in asyncio.run(memory.list())] == ["a", "b", "c"]
    forget(memory, "c")
    assert found(mine, "sky") == [] and found(again, "sky") == ["e"], "deleted for good, from snapshots too"
    bo = mine.of_owner("bo")
    write(bo, item("a", "of bo"))
    assert (bo.owner, found(bo, ""), found(mine, "bo"), memory.file is bo.file) == ("bo", ["a"], [], True)
    assert ItemFile(tmp_path / "m.db").scopes()[0][:2] == ("\\udcffann", "plain"), "what a snapshot wrote is in no file"
    assert {owner: size.items for owner, _, size in bo.file.scopes()} == {"\\udcffann": 2, "bo": 1}  # type: ignore[union-attr]


def test_equal_scores_are_by_id_across_the_file_and_the_attempt_and_deleted_ones_leave_no_gap(tmp_path: Path) -> None:
    memory = plain(tmp_path / "m.db")
    write(memory, *(item(id, f"tea {id}") for id in "gcae"))
    mine = memory.snapshot()
    write(mine, item("f", "tea f"), item("b", "tea b"))
    scores = mine._scores("tea")
    assert len({round(score, 12) for score in scores.values()}) == 1
    ids = {1: "g", 2: "c", 3: "a", 4: "e", FIRST_UNSTORED + 1: "f", FIRST_UNSTORED + 2: "b"}
    assert [ids[number] for number in mine._ordered(dict.fromkeys(ids, 2.5))] == list("abcefg")
    mixed = {4: 1.0, FIRST_UNSTORED + 1: 1.0, 99: 1.0, 3: 3.0, 2: -1.0, FIRST_UNSTORED + 2: 3.0, 1: 0.0, 98: 0.5}
    assert [ids.get(number, number) for number in mine._ordered(mixed)] == ["a", "b", "e", "f", 98, "g", "c"]
    numbered = mine._numbered([99, 2, FIRST_UNSTORED + 2, FIRST_UNSTORED + 9])
    assert {number: kept.item.id for number, kept in numbered.items()} == {2: "c", FIRST_UNSTORED + 2: "b"}
    write(memory, item("z", "sky sea sun moon tea"))
    copied = mine.snapshot()
    assert copied._size == mine._size != memory._size_now() and copied._scores("tea c") == mine._scores("tea c")
    assert copied._last == 4 and found(copied, "tea") == list("abcefg") and found(memory, "sky") == ["z"]
    forget(mine, "c", "f")
    assert mine._numbered([2, FIRST_UNSTORED + 1, 1]).keys() == {1} and found(mine, "tea", 3) == ["a", "b", "e"]


def test_a_half_life_counts_from_the_newest_with_a_time_and_never_raises_what_has_none() -> None:
    memory = plain(half_life_days=2.0)
    write(memory, item("a", "tea sky", time=0), item("b", "tea sky", time=4 * 86_400), item("n", "tea sky"))
    asked = RecallRequest("tea", 9)
    assert [kept.item.id for kept in memory.found(asked)] == ["n", "b", "a"], "what came without a time is new"
    write(memory, item("c", "tea tea", time=-2 * 86_400))
    plainly = {memory._numbered([n])[n].item.id: score for n, score in memory._scores("tea").items()}
    assert plainly["c"] > plainly["a"] == plainly["b"] == plainly["n"]
    assert plainly["c"] / 8 < plainly["a"] / 4
    assert [kept.item.id for kept in memory.found(asked)] == ["n", "b", "a", "c"]
    forget(memory, "b")
    assert plainly["c"] / 2 < plainly["a"], "two days are one half-life"
    assert [kept.item.id for kept in memory.found(RecallRequest("tea", 2))] == ["n", "a"]
    for days, order in ((2.0, ["x", "y"]), (1.0, ["y", "x"])):
        near = plain(half_life_days=days)
        write(near, item("x", "tea tea", time=0), item("y", "tea sky", time=43_200))
        scores = {near._numbered([n])[n].item.id: score for n, score in near._scores("tea").items()}
        assert scores["x"] * 0.5**0.25 > scores["y"] > scores["x"] * 0.5**0.5, "half a day apart"
        assert found(near, "tea") == order
    timeless = plain(half_life_days=1.0)
    write(timeless, item("y", "tea"), item("x", "tea"))
    assert found(timeless, "tea") == ["x", "y"]


def test_a_memory_of_this_process_keeps_as_many_as_it_may_and_its_copies_are_not_bounded() -> None:
    memory = plain(bounds=KeepingBounds(3))
    write(memory, item("a", key="k", time=9), item("b", key="j", time=1), item("c", time=0))
    assert found(memory, "") == ["a", "b", "c"], "exactly as many as may be"
    write(memory, item("d", key="k", time=10))
    assert found(memory, "", history=True) == ["d", "b", "c"], "the replaced one goes, though it is newer"
    write(memory, item("c", "again"), item("b", "again"))
    assert [one.text for one in asyncio.run(memory.list())] == ["tea"] * 3
    mine = memory.snapshot()
    write(mine, item("e", time=2), item("f", time=3))
    assert found(mine, "") == ["d", "f", "e", "b", "c"] and found(memory, "") == ["d", "b", "c"]
    write(memory, item("e", time=0), item("f", time=0))
    assert found(memory, "") == ["d", "b", "f"], "of one time the one that was written first"


class Axes:
    """Texts are their own vectors, of which the first tells the model."""

    def __init__(self, fingerprint: str = "axes") -> None:
        self.fingerprint, self.asked = fingerprint, list[list[str]]()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked.append(list(texts))
        return [[float(n) for n in text.split()] for text in texts]


def test_one_embedder_serves_several_files_and_owners_each_with_its_own_vectors(tmp_path: Path) -> None:
    embedder = Axes()
    vectors = ItemVectors(embedder)
    memories = []
    for name, owner, texts in (
        ("m", "ann", ("1 0", "0 1")),
        ("n", "ann", ("0 1", "1 0", "1 1")),
        ("m", "bo", ("3 4",)),
    ):
        memory = plain(tmp_path / f"{name}.db", owner=owner)
        memory.vectors = vectors
        write(memory, *(item(f"{name}{owner}{n}", text) for n, text in enumerate(texts)))
        memories.append(memory)
    first, second, third = memories
    assert found(first, "8e0 0e0") == ["mann0"] and found(second, "8e0 0e0") == ["nann1", "nann2"]
    assert found(third, "8e0 0e0") == ["mbo0"] and found(first, "0e0 8e0") == ["mann1"]
    assert embedder.asked == [
        ["8e0 0e0"], ["1 0", "0 1"], ["8e0 0e0"], ["0 1", "1 0", "1 1"], ["8e0 0e0"], ["3 4"], ["0e0 8e0"],
    ]  # fmt: skip
    other = Axes("other")
    first.vectors = ItemVectors(other)
    assert found(first, "8e0 0e0") == ["mann0"] and other.asked == [["8e0 0e0"], ["1 0", "0 1"]]
    assert first.file is not None and {len(first.file.vectors(1, name, 0)) for name in ("axes", "other")} == {2}
    mine = second.snapshot()
    write(mine, item("x", "5 0"), item("y", "5 0"))
    assert found(mine, "8e0 0e0") == ["nann1", "x", "y", "nann2"] and embedder.asked[-2:] == [["8e0 0e0"], ["5 0"]]
    assert found(mine, "8e0 0e0", 2) == ["nann1", "x"] and embedder.asked[-1] == ["8e0 0e0"], "known by its text"
    nobody = plain(tmp_path / "m.db", owner="cy")
    nobody.vectors = vectors
    assert found(nobody, "8e0 0e0") == []


def test_vectors_shorter_than_one_are_made_so_long_and_the_least_cosine_is_near_enough() -> None:
    vectors = ItemVectors(Axes())
    assert asyncio.run(vectors._embed(["0.3 0.4", "0 1e-6", "-30 40"])).tolist() == [
        pytest.approx([0.6, 0.8]), pytest.approx([0, 1]), pytest.approx([-0.6, 0.8]),
    ]  # fmt: skip
    assert asyncio.run(vectors._embed([])).shape == (0, 0)
    own = {5: "1 2 2 4", 6: "0.99 2 2 4", 4: "0.1 0 0 0", 3: "0.2 0 0.15 0", 2: "0 0 0 0"}
    assert asyncio.run(vectors.nearest("0.01 0 0 0", None, 7, 0, own)) == [4, 3, 5], "a fifth, as 1 of a length of 5"


def test_a_time_without_a_zone_is_utc_wherever_the_machine_is(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        monkeypatch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        assert seconds_of("1970-01-01T05:30:07") == seconds_of(" 1970-01-01T11:00:07+05:30".strip()) == 19_807.0
        assert seconds_of("1970-01-02") == 86_400.0 and shown_time(86_400.0) == "1970-01-02"
        assert shown_time(86_399.9) == "1970-01-01T23:59:59Z" and shown_time(0.0) == "1970-01-01" == shown_time(0.9)
        assert shown_time(-1.0) == "1969-12-31T23:59:59Z" and seconds_of("1969-12-31T23:59:59Z") == -1.0
        memory = plain()
        write(memory, item("a", time="1970-01-02"), item("b", time="1970-01-01T23:59:59"))
        assert found(memory, "tea", since="1970-01-02") == ["a"] and found(memory, "tea", until=86_399) == ["b"]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_notes_are_listed_by_id_whatever_the_order_and_case_and_counts_of_words() -> None:
    kept = Notes("run", {})
    made = [item(id, text) for id, text in (("c", "Tea tea, TEA!"), ("a", "é tea sky"), ("b", "teas"), ("d", "sky É"))]
    assert [asyncio.run(kept.write(one)) for one in made] == ["c", "a", "b", "d"]
    assert [one.id for one in asyncio.run(kept.list())] == ["a", "b", "c", "d"]
    copied = kept.snapshot()
    asyncio.run(copied.forget("a"))
    asyncio.run(copied.forget("none"))
    asyncio.run(copied.write(item("c", "changed")))

    def noted(memory: Notes, query: str, k: int = 9) -> list[str]:
        return [one.id for one in asyncio.run(memory.search(query, k))]

    assert (
        noted(kept, "sky TEA é") == ["a", "d", "c"]
        and noted(kept, "tea tea") == ["a", "c"]
        and noted(kept, "É", 1) == ["a"]
    )
    assert noted(kept, "") == noted(kept, "?!") == noted(kept, "tea", 0) == [] and noted(copied, "tea changed") == ["c"]
    assert (copied.lifetime, kept.lifetime, kept.name) == ("run", "run", "notes")
    assert asyncio.run(kept.list()) == sorted(made, key=lambda one: one.id)
    assert [one.id for one in asyncio.run(copied.list())] == ["b", "c", "d"]


def test_a_word_that_every_item_has_still_counts_a_little(tmp_path: Path) -> None:
    for file in (None, tmp_path / "m.db"):
        memory = plain(file)
        write(memory, item("a", "tea tea sky"), item("b", "tea"), item("c", "tea sky sea sun"))
        scores = {memory._numbered([n])[n].item.id: score for n, score in memory._scores("tea").items()}
        idf = math.log(1 + 0.5 / 3.5)
        assert scores == pytest.approx(
            {
                id: idf * n * 2.2 / (n + 1.2 * (0.25 + 0.75 * size / (8 / 3)))
                for id, n, size in (("a", 2, 3), ("b", 1, 1), ("c", 1, 4))
            }
        )
        assert found(memory, "tea") == sorted(scores, key=lambda id: -scores[id])
    short = plain()
    write(short, item("a", "tea"), item("b", ""), item("c", "?"))
    idf = math.log(1 + 2.5 / 1.5)
    assert [*short._scores("tea").values()] == [pytest.approx(idf)], "a mean of less than a word is one"


def test_with_what_is_near_two_hundred_that_share_words_are_ranked_and_vectors_are_made_until_none_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = plain()

    async def fill() -> None:
        for n in range(203):
            await memory.write(item(f"i{n:03}"))
        await memory.write(item("far", "sky"))

    asyncio.run(fill())
    far = next(kept.number for kept in memory.all() if kept.item.id == "far")
    names = [kept.item.id for kept in memory.found(RecallRequest("tea", 999), [far])]
    assert names == ["far", *(f"i{n:03}" for n in range(200))], "of equal ranks by id"
    assert len(memory.found(RecallRequest("tea", 999))) == 203
    monkeypatch.setattr(item_vectors, "_AT_ONCE", 2)
    embedder = Axes()
    filed = plain(tmp_path / "m.db")
    filed.vectors = ItemVectors(embedder)
    write(filed, *(item(str(n), f"{n} 1") for n in range(5)))
    assert found(filed, "0e9 1e0") == ["0", "1", "2", "3", "4"]
    assert embedder.asked == [["0e9 1e0"], ["0 1", "1 1"], ["2 1", "3 1"], ["4 1"]]


def test_what_may_not_be_kept_is_refused_where_it_is_written_and_leaves_nothing(tmp_path: Path) -> None:
    def only_tea(one: MemoryItem) -> None:
        if one.text != "tea":
            raise ConfigError("tea only")

    for file in (None, tmp_path / "m.db"):
        memory = plain(file, check=only_tea)
        for each in (memory, memory.snapshot()):
            for wrong, said in (
                (item("a", confidence=1.5), "confidence is 1.5: give a number from 0 to 1"), (item("a", "sky"), "tea only"),
                (item("a", time="soon"), "a time is 'soon': give seconds since 1970 or ISO 8601, such as 2026-03-01"),
                (item("", "tea"), "an item has the id '': 1 to 64 printable ASCII characters were expected"),
                (item("a", n={1}), "the provenance of 'tea' is no JSON"), (item("a", more="x" * 65_536), "split it"),
            ):  # fmt: skip
                with pytest.raises(ConfigError) as told:
                    write(each, wrong)
                assert said in str(told.value)
            write(each, item("b", confidence=0, time=0), item("c", confidence=1))
            assert [one.id for one in asyncio.run(each.list())] == ["b", "c"]


def test_as_of_an_earlier_knowledge_what_was_stored_later_neither_counts_nor_replaces(tmp_path: Path) -> None:
    memory = plain(tmp_path / "m.db")
    write(memory, item("a", key="k", time=5), item("f", "sky", key="j", time=1))
    kept = memory.get("a")
    assert kept is not None and abs(kept.stored_s - time.time()) < 60
    then = time.time()
    while time.time() <= then:
        pass
    write(memory, item("b", key="k", time=9), item("c", time=1), item("g", "sky", key="j", time=2, withdrawn=True))
    assert found(memory, "tea") == ["b", "c"] and found(memory, "tea", known=then) == ["a"]
    assert found(memory, "sky") == [] and found(memory, "sky", known=then) == ["f"]
    assert found(memory, "tea", known=then, at=4) == [] and found(memory, "tea", known=then, history=True) == ["a"]
    assert found(memory, "", ids=["b", "a"], known=then) == ["a"] and found(memory, "tea", known=time.time() + 9) == [
        "b",
        "c",
    ]
    mine = memory.snapshot()
    write(mine, item("m", key="k", time=99))
    assert found(mine, "tea", known=time.time() + 9) == ["b", "c"], "what is not stored is not known yet"
    assert found(mine, "tea") == ["c", "m"] and found(mine, "tea", at=98) == ["b", "c"]
