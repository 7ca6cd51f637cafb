"""Bounds of a memory: an import deletes nothing and says what the next write will, and a write says if it is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firsthand.commands import memory as command
from firsthand.memories.episodic import episodic
from firsthand.memories.keeping import opened_file
from firsthand.memories.keeping.item_file import ItemFile, KeepingBounds
from firsthand.memories.keeping.kept_item import body_of
from firsthand.memories.semantic import semantic
from firsthand.memory import MemoryItem

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def lines(path: str, *texts: str, **more: str) -> str:
    rows = ({"text": text, "kind": "semantic", **more} for text in texts)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_an_import_deletes_nothing_whatever_the_bounds_are(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.memories.semantic.bounds_of", lambda items, mb: opened_file.bounds_of(3, 1))
    kept = semantic("m.db")
    kept.policy = replace(kept.policy, bounds=KeepingBounds(50, 1 << 20))
    for number in range(6):
        asyncio.run(kept.write(MemoryItem.of(f"fact {number}", {"time": number})))
    told = (
        "semantic has 7 items in 0 MB, and holds 3 in 1 MB unless it is opened with other max_items and max_mb: the next "
        "write deletes the oldest beyond that\n"
    )
    assert cli("memory", "import", "m.db", lines("one.jsonl", "one more")) == (0, "imported 1 new item\n", told)
    assert len(asyncio.run(kept.list())) == 7
    assert cli("memory", "import", "m.db", lines("two.jsonl", "a", "b", "c", owner="ann"))[2] == "", (
        "as many as it holds"
    )
    told = cli("memory", "import", "m.db", lines("three.jsonl", "d", owner="ann"))[2]
    assert told.startswith("semantic of ann has 4 items in 0 MB, and holds 3 in 1 MB")
    assert len(asyncio.run(semantic("m.db", owner="ann").list())) == 4


def test_an_import_says_if_there_are_more_bytes_than_a_memory_holds(capsys: pytest.CaptureFixture[str]) -> None:
    file = ItemFile(Path("m.db"))
    made = episodic(owner="bo", max_items=2, max_mb=1)
    for number in range(17):
        told = number == 16
        file.put("bo", "episodic", MemoryItem(str(number), "x" * 65_000, {}), None, None)
        made.policy = replace(made.policy, bounds=KeepingBounds(17, 16 * 65_007))
        command._tell_of_bounds(file, [made])
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("episodic of bo has 17 items in 1 MB" if told else "")
        assert bool(said.err) is told
    file.close()


@pytest.mark.parametrize("path", ["m.db", ""])
def test_bytes_bound_a_memory_of_this_process_as_they_do_a_file(path: str) -> None:
    async def filled() -> tuple[list[int], list[int]]:
        memory = semantic(path, max_mb=1)
        facts = [MemoryItem(f"f{number:02}", "x" * 60_000, {"time": number + 1}) for number in range(40)]
        for fact in facts[:20]:
            await memory.write(fact)
        for number in (18, 18, 19):
            await memory.forget(f"f{number}")
        kept = [int(each.id[1:]) for each in await memory.list()]
        for fact in facts[18:]:
            await memory.write(fact)
            await memory.write(fact)  # it is there already
        return kept, [int(each.id[1:]) for each in await memory.list()]

    kept, last = asyncio.run(filled())
    assert kept[-1] == 17 and len(kept) in (15, 16) and last == [*range(40 - len(last), 40)] and len(last) in (16, 17)


@pytest.mark.parametrize(("short", "kept"), [(0, ["f0", "f1", "f2"]), (1, ["f1", "f2"])])
def test_a_memory_of_this_process_may_have_exactly_as_many_bytes_as_its_bound(short: int, kept: list[str]) -> None:
    async def filled() -> list[str]:
        memory = semantic("")
        facts = [MemoryItem(f"f{number}", "x" * 60_000, {"time": number + 1}) for number in range(3)]
        memory.policy = replace(
            memory.policy, bounds=KeepingBounds(50, sum(len(body_of(each)) for each in facts) - short)
        )
        for fact in facts:
            await memory.write(fact)
        return [each.id for each in await memory.list()]

    assert asyncio.run(filled()) == kept


def test_a_write_says_that_an_item_is_not_kept_if_it_is_the_first_to_go() -> None:
    file, five = ItemFile(Path("m.db")), KeepingBounds(5, 1 << 20)
    for number in range(5):
        assert file.put("", "semantic", MemoryItem(f"f{number}", "tea", {"time": 10 + number}), None, five)
    old, new = (MemoryItem(id, "tea", {"time": at}) for id, at in (("old", 5), ("new", 99)))
    assert not file.put("", "semantic", old, None, five) and file.with_id(1, "old") is None
    assert file.put("", "semantic", new, None, five) and file.with_id(1, "new") is not None
    assert not file.put("", "semantic", new, None, five), "it is there already"
    assert [kept.item.id for kept in file.newest_first(1, 99, None, 9)] == ["new", "f4", "f3", "f2", "f1"]
    assert file.put("", "semantic", old, None, None) and file.size(1).items == 6, "without bounds all are kept"
    file.close()
