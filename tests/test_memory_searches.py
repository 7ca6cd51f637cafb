"""Searches of a kept memory: rare words first, pages, ties, versions of one fact, snapshots and their own changes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.memories.keeping import stored_memory
from firsthand.memories.keeping.item_file import ItemFile, KeepingBounds
from firsthand.memories.keeping.item_vectors import ItemVectors
from firsthand.memories.keeping.kept_item import FIRST_UNSTORED
from firsthand.memories.keeping.recall_request import RecallRequest
from firsthand.memories.keeping.stored_memory import KeepingPolicy, StoredMemory
from firsthand.memory import MemoryItem

DAY_S = 86_400


def item(id: str, text: str = "x", **provenance: Any) -> MemoryItem:
    return MemoryItem(id, text, provenance)


def write(memory: StoredMemory, *items: MemoryItem) -> None:
    async def each() -> None:
        for one in items:
            assert await memory.write(one) == one.id

    asyncio.run(each())


def forget(memory: StoredMemory, id: str) -> None:
    asyncio.run(memory.forget(id))


def found(memory: StoredMemory, query: str, k: int = 99, **how: Any) -> list[str]:
    return [one.id for one in asyncio.run(memory.search(query, k, **how))]


def listed(memory: StoredMemory) -> list[str]:
    return [one.id for one in asyncio.run(memory.list())]


def by_key(item: MemoryItem) -> str | None:
    key = item.provenance.get("key")
    return None if key is None else str(key)


def plain(file: Path | None = None, **policy: Any) -> StoredMemory:
    return StoredMemory(KeepingPolicy("plain", by_key, **policy), None if file is None else ItemFile(file))


def gain(count: int, length: int, mean: float, having: int, total: int) -> float:
    """BM25 of one word, k1 1.2 and b 0.75."""
    idf = math.log(1 + (total - having + 0.5) / (having + 0.5))
    return idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length / mean))


WORDS = [
    item("a", "red"), item("b", "red tea tea"), item("c", "red tea cup sky sky"), item("d", "tea"), item("e", "red bird"),
]  # fmt: skip
"""Red is in four, tea in three, cup and bird in one each; twelve words."""


def test_frequent_words_count_for_the_candidates_of_the_rarer_ones_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = plain(tmp_path / "m.db")
    write(memory, *WORDS)
    ids = {kept.number: kept.item.id for kept in memory.all()}

    def scores(query: str, postings: int) -> dict[str, float]:
        monkeypatch.setattr(stored_memory, "POSTINGS", postings)
        return {ids[number]: score for number, score in memory._scores(query).items()}

    mean = 12 / 5
    cup, red = (
        gain(1, 5, mean, 1, 5),
        {id: gain(1, n, mean, 4, 5) for id, n in (("a", 1), ("b", 3), ("c", 5), ("e", 2))},
    )
    tea = {"b": gain(2, 3, mean, 3, 5), "c": gain(1, 5, mean, 3, 5), "d": gain(1, 1, mean, 3, 5)}
    whole = {"a": red["a"], "b": tea["b"] + red["b"], "c": cup + tea["c"] + red["c"], "d": tea["d"], "e": red["e"]}
    assert scores("red cup tea", 8) == pytest.approx(whole), "1 + 3 + 4 items are read"
    some = {id: whole[id] for id in "bcd"}
    assert scores("tea red cup", 7) == pytest.approx(some) == scores("tea red cup", 4)
    assert scores("red tea cup", 3) == pytest.approx({"c": whole["c"]})
    assert scores("red", 1) == pytest.approx(red), "the rarest word is always looked up"
    assert scores("red none", 1) == pytest.approx(red) and scores("none", 9) == {}
    monkeypatch.setattr(stored_memory, "POSTINGS", 3)
    assert found(memory, "cup red") == ["c"] and stored_memory.POSTINGS == 3


def test_what_an_attempt_wrote_itself_is_scored_with_what_the_file_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = plain(tmp_path / "m.db")
    write(memory, *WORDS[:3])
    mine = memory.snapshot()
    write(memory, *WORDS[3:])
    write(mine, item("n", "tea bird"), item("a", "changed"))
    assert {id: kept.number for id, kept in mine._changes.items()} == {"n": FIRST_UNSTORED + 1}
    mean = (1 + 3 + 5 + 2) / 4
    expected = {
        1: gain(1, 1, mean, 3, 4), 2: gain(1, 3, mean, 3, 4) + gain(2, 3, mean, 3, 4),
        3: gain(1, 5, mean, 3, 4) + gain(1, 5, mean, 3, 4), FIRST_UNSTORED + 1: gain(1, 2, mean, 3, 4),
    }  # fmt: skip
    assert mine._scores("red tea") == pytest.approx(expected)
    write(memory, *(item(f"late{n}", "red") for n in range(4)))
    monkeypatch.setattr(stored_memory, "POSTINGS", 1)
    rare = {
        3: gain(1, 5, mean, 1, 4)
    }  # a word that more items have by now than were seen counts for nothing, not against
    assert mine._scores("cup red") == pytest.approx(rare)
    assert memory.file is not None and memory._scores("bird").keys() == {5}


def test_pages_of_a_search_join_without_gap_or_repetition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_memory, "_PAGE", 2)
    for file in (tmp_path / "m.db", None):
        memory = plain(file)
        names = [f"{number:02}" for number in range(37)]
        write(memory, *(item(id, "tea", time=int(id) // 5) for id in reversed(names)))
        assert found(memory, "tea") == names, "equal scores come by id"
        newest = sorted(names, key=lambda id: (-(int(id) // 5), id if file else -int(id)))
        times = [int(id) // 5 for id in found(memory, "")]
        assert times == [int(id) // 5 for id in newest] and sorted(found(memory, "")) == names
        assert (
            found(memory, "", 7, since=2, until=4)[0].startswith("2") and len(found(memory, "", since=2, until=4)) == 15
        )
        assert found(memory, "tea", 3, where={"time": 5}) == ["25", "26", "27"]
        forget(memory, "26")
        assert found(memory, "tea", 3, where={"time": 5}) == ["25", "27", "28"] and len(listed(memory)) == 36


def test_the_newest_come_first_whether_the_file_or_the_attempt_has_them(tmp_path: Path) -> None:
    for file in (tmp_path / "m.db", None):
        memory = plain(file)
        write(memory, item("d", time=5), item("b", time=9), item("f", time=1))
        mine = memory.snapshot()
        write(mine, item("c", time=5), item("e", time=5), item("a", time=3), item("y"), item("z", time=9), item("x"))
        assert found(mine, "") == ["x", "y", "b", "z", "c", "d", "e", "a", "f"], (
            "of one time by id; without one the last"
        )
        assert found(mine, "", 3, until=5) == ["c", "d", "e"] and found(mine, "", 2, at=4) == ["a", "f"]
        assert [kept.item.id for kept in memory.all()] == ["b", "d", "f"]


def test_of_one_key_the_latest_then_the_surest_then_the_last_written_is_found(tmp_path: Path) -> None:
    for file in (tmp_path / "m.db", None):
        memory = plain(file)
        write(
            memory, item("a", "tea", key="k", time=3), item("b", "tea", key="k", time=9), item("c", "tea", key="k", time=5),
            item("d", "tea", key="j", time=4, confidence=0.9), item("e", "tea", key="j", time=4, confidence=0.2),
            item("f", "tea", key="i", time=7), item("g", "tea", key="i", time=7), item("h", "tea", time=1),
            item("w", "tea", key="x", time=6), item("v", "tea", key="x", time=8, withdrawn=True),
        )  # fmt: skip
        assert found(memory, "tea") == ["b", "d", "g", "h"]
        assert found(memory, "tea", at=8) == ["c", "d", "g", "h"] and found(memory, "tea", at=7.5)[-1] == "w"
        assert found(memory, "tea", at=3) == ["a", "h"] and found(memory, "tea", at=2.9) == ["h"]
        assert found(memory, "tea", history=True) == [*"abcdefgh", "v", "w"]
        assert found(memory, "tea", since=4, until=7) == ["d", "g"], "what holds now, of those times"
        assert [kept.item.id for kept in memory.with_key("k")] == ["a", "c", "b"] and memory.with_key("none") == []
        assert [kept.item.id for kept in memory.with_key("j")] == ["e", "d"]
        assert found(memory, "", ids=["a", "z", "v", "e"]) == ["a", "v", "e"], "by id also what was replaced"
        assert found(memory, "", 2, ids=["v", "z", "e"]) == ["v"] and found(memory, "", ids=["b", "a"], at=3) == ["a"]
        assert found(memory, "", ids=["b", "a"], where={"time": 9}) == ["b"]


def test_a_snapshot_and_its_copies_each_see_their_own_changes(tmp_path: Path) -> None:
    for file in (tmp_path / "m.db", None):
        memory = plain(file)
        write(memory, item("a", "tea"), item("b", "tea", key="k"))
        first = memory.snapshot()
        write(memory, item("c", "tea", key="k"))
        forget(first, "a")
        write(first, item("d", "tea"))
        second = first.snapshot()
        write(first, item("e", "tea"))
        forget(second, "d")
        write(second, item("a", "again"), item("f", "tea", key="k"))
        assert (listed(memory), listed(first), listed(second)) == (["a", "b", "c"], ["b", "d", "e"], ["a", "b", "f"])
        assert (
            found(memory, "tea") == ["a", "c"]
            and found(first, "tea") == ["b", "d", "e"]
            and found(second, "tea") == ["f"]
        )
        assert found(second, "again") == ["a"] and first.get("a") is None and first.get("c") is None
        kept = second.get("a")
        assert kept is not None and kept.item.text == "again" and memory.get("a") is not None
        numbers = [each.number - FIRST_UNSTORED for each in second._changes.values()]
        assert len(set(numbers)) == len(numbers) and second._count == max(numbers)
        assert [each.item.id for each in second.with_key("k")] == ["b", "f"]
        write(second, item("b", "another"))
        assert next(one.text for one in asyncio.run(second.list()) if one.id == "b") == "tea", "what is there is left"
        third = second.snapshot().snapshot()
        assert listed(third) == ["a", "b", "f"] and (third._last, third._size) == (second._last, second._size)


def test_a_snapshot_keeps_its_own_item_where_the_file_got_one_of_that_id_later(tmp_path: Path) -> None:
    memory = plain(tmp_path / "m.db")
    write(memory, item("a", "tea"))
    mine = memory.snapshot()
    write(memory, item("b", "of others"))
    write(mine, item("b", "mine"), item("b", "mine again"), item("a", "mine too"))
    assert [(one.id, one.text) for one in asyncio.run(mine.list())] == [("a", "tea"), ("b", "mine")]
    kept = mine.get("b")
    assert kept is not None and (kept.item.text, kept.number, kept.stored_s) == ("mine", FIRST_UNSTORED + 1, math.inf)
    assert mine.get("zz") is None is memory.get("zz") and mine._is_in_file("a") and not mine._is_in_file("b")
    assert memory._is_in_file("b") and not memory._is_in_file("zz") and not plain()._is_in_file("a")
    forget(mine, "a")
    forget(mine, "zz")
    assert (
        not mine._is_in_file("a") and mine.get("a") is None and listed(mine) == ["b"] and listed(memory) == ["a", "b"]
    )
    forget(memory, "a")
    assert listed(memory) == ["b"] and memory.file is not None and memory.file.size(1).items == 1


def test_the_memory_of_another_owner_begins_empty_even_from_a_snapshot(tmp_path: Path) -> None:
    for file in (tmp_path / "m.db", None):
        memory = plain(file, half_life_days=2.0)
        memory.owner = "ann"
        write(memory, item("a", "tea"))
        taken = memory.snapshot()
        write(taken, item("s", "tea"))
        forget(taken, "a")
        other = taken.of_owner("bo")
        assert (other.owner, other.policy, other.file, other.lifetime) == ("bo", memory.policy, memory.file, "agent")
        assert listed(other) == [] and type(other) is StoredMemory
        assert (other._size, other._last, other._count) == (None, memory._last, 0), "of the other's items, not of these"
        write(other, item("a", "of bo"))
        assert [one.text for one in asyncio.run(other.list())] == ["of bo"] and listed(memory) == ["a"] == listed(
            memory.of_owner("ann") if file else memory
        )
        assert listed(taken) == ["s"] and (taken.owner, memory.owner) == ("ann", "ann")
        assert other.snapshot()._is_snapshot and not other._is_snapshot


def test_a_memory_of_this_process_drops_what_was_replaced_and_then_the_oldest() -> None:
    memory = plain(bounds=KeepingBounds(3))
    write(memory, item("a", key="k", time=5), item("b", key="k", time=4), item("c", time=1))
    assert listed(memory) == ["a", "b", "c"]
    write(memory, item("d", time=9))
    assert listed(memory) == ["a", "c", "d"], "b was replaced, though c is older"
    write(memory, item("e", time=2))
    assert listed(memory) == ["a", "d", "e"], "nothing is replaced"
    write(memory, item("f"))
    assert listed(memory) == ["a", "d", "f"], "what has no time is the newest"
    taken = memory.snapshot()
    write(taken, item("g", time=0), item("h", time=0))
    assert listed(taken) == ["a", "d", "f", "g", "h"], "an attempt keeps all of its own"
    write(memory, item("g", time=5), item("h", time=5))
    assert listed(memory) == ["d", "f", "h"], "of one time the one written first"


def test_a_half_life_halves_a_score_for_each_of_them_and_never_raises_one() -> None:
    memory = plain(half_life_days=2.0)
    write(
        memory, item("new", "tea", time=10 * DAY_S), item("two", "tea tea tea cup", time=8 * DAY_S),
        item("four", "tea tea tea tea", time=6 * DAY_S), item("later", "cup", time=99 * DAY_S),
    )  # fmt: skip
    raw = {kept.item.id: memory._scores("tea")[kept.number] for kept in memory.all() if "tea" in kept.item.text}
    aged = {"new": raw["new"], "two": raw["two"] / 2, "four": raw["four"] / 4}
    assert found(memory, "tea") == sorted(aged, key=lambda id: -aged[id]) == ["new", "two", "four"]
    assert raw["four"] > raw["two"] > raw["new"]
    write(memory, item("none", "tea"))  # without a time it holds now, and is the newest, as in a file
    assert found(memory, "tea")[:2] == ["none", "new"] and found(memory, "tea", at=9 * DAY_S)[0] == "two"


def test_what_is_near_by_meaning_joins_what_shares_words_by_reciprocal_ranks() -> None:
    memory = plain()
    write(memory, item("a", "red tea"), item("b", "tea"), item("c", "sky"), item("d", "sea", hidden=True))
    number = {kept.item.id: kept.number for kept in memory.all()}

    def order(query: str, meaning: Sequence[str], k: int = 9) -> list[str]:
        asked = RecallRequest(query, k)
        return [kept.item.id for kept in memory.found(asked, [number[id] for id in meaning])]

    assert order("red tea", []) == ["a", "b"] and order("red tea", ["c", "b"]) == ["b", "a", "c"]
    assert order("red tea", ["d", "c", "a"], 2) == ["a", "c"], "what is hidden takes no place"
    assert order("", ["c", "d", "a"]) == ["c", "a"]
    assert order("none", ["b"]) == ["b"] and order("", []) == ["c", "b", "a"]


class Axes:
    """Texts are their own vectors."""

    fingerprint = "axes"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked.append(list(texts))
        return [[float(n) for n in text.split()] for text in texts]


def test_vectors_of_a_scope_are_read_once_and_new_ones_are_added(tmp_path: Path) -> None:
    embedder = Axes()
    vectors, file = ItemVectors(embedder), ItemFile(tmp_path / "m.db")
    for id, text, owner in (("a", "3 4", "ann"), ("b", "0 2", "ann"), ("x", "5 0", "bo")):
        file.put(owner, "plain", item(id, text), None, KeepingBounds())
    empty = vectors._load(file, 1)
    assert (empty.numbers.tolist(), empty.matrix.shape, empty.last) == ([], (0, 0), 0)
    asyncio.run(vectors._embed_missing(file, 1))
    loaded = vectors._load(file, 1)
    assert loaded.numbers.tolist() == [1, 2] and loaded.last == 2 and loaded.matrix.dtype == np.float32
    assert np.allclose(loaded.matrix, [[0.6, 0.8], [0, 1]], atol=1e-3)
    file.put("ann", "plain", item("c", "-1 0"), None, KeepingBounds())
    file.put("bo", "plain", item("y", "0 7"), None, KeepingBounds())
    for _ in range(2):
        asyncio.run(vectors._embed_missing(file, 1))
        loaded = vectors._load(file, 1)
        assert loaded.numbers.tolist() == [1, 2, 4] and np.allclose(loaded.matrix[2], [-1, 0])
    assert embedder.asked == [["3 4", "0 2"], ["-1 0"]]
    asyncio.run(vectors._embed_missing(file, 2))
    assert vectors._load(file, 2).numbers.tolist() == [3, 5] and vectors._load(file, 1).numbers.tolist() == [1, 2, 4]

    def near(query: str, scope: int, last: int, own: dict[int, str]) -> list[int]:
        return asyncio.run(vectors.nearest(query, file, scope, last, own))

    assert near("0 9", 1, 99, {}) == [2, 1] and near("0 9", 1, 1, {}) == [1] and near("0 9", 0, 99, {}) == []
    own = {FIRST_UNSTORED + 2: "0 1", FIRST_UNSTORED + 1: "0 1", FIRST_UNSTORED + 3: "1 0"}
    embedder.asked.clear()
    assert near("0 9", 1, 2, own) == [2, FIRST_UNSTORED + 1, FIRST_UNSTORED + 2, 1]
    assert near("0 9", 0, 2, own) == [FIRST_UNSTORED + 1, FIRST_UNSTORED + 2]
    assert embedder.asked == [["0 9"], ["0 1", "1 0"], ["0 9"]], "a text is embedded once"
