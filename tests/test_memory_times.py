"""Times of a memory's items: moved by export and import, the last written is the newest, and ages of any size rank."""

from __future__ import annotations

import asyncio
import json
import math
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.memories.episodic import episodic
from firsthand.memories.keeping import item_file
from firsthand.memories.keeping.item_file import ItemFile, ItemTimes
from firsthand.memories.keeping.kept_item import exact_time, seconds_of
from firsthand.memories.keeping.stored_memory import StoredMemory
from firsthand.memories.memgpt import memgpt
from firsthand.memories.semantic import semantic
from firsthand.memory import MemoryItem

Cli = Callable[..., tuple[int, str, str]]
HOME = "where does Ann live"


def home(city: str, **more: Any) -> MemoryItem:
    return MemoryItem.of(f"Ann lives in {city}", {"subject": "Ann", "attribute": "home", "value": city, **more})


def write(memory: StoredMemory, *items: MemoryItem) -> None:
    async def each() -> None:
        for item in items:
            await memory.write(item)

    asyncio.run(each())


def found(memory: StoredMemory, query: str = HOME, k: int = 9, **how: Any) -> list[str]:
    return [item.text for item in asyncio.run(memory.search(query, k, **how))]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that items are stored at."""
    now = [1_800_000_000.25]

    class Clock:
        time = staticmethod(lambda: now[0])

    monkeypatch.setattr(item_file, "time", Clock)
    return now


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


# -- export and import --


def test_a_memory_that_is_exported_and_imported_answers_every_question_as_before(cli: Cli) -> None:
    memory, moments = semantic("a.db"), []
    for city in ("Oslo", "Bergen", "Rome", "Lund"):
        write(memory, home(city), MemoryItem.of(f"a note on {city}", {}), home(city, time="2026-01-01"))
        moments.append(time.time())
        time.sleep(0.002)
    write(memory, home("Pisa", time="2031-05-06T07:08:09.5"), home("Graz", time=-1e12))
    assert cli("memory", "export", "a.db", "--out", "a.jsonl")[0] == 0
    assert cli("memory", "import", "b.db", "a.jsonl") == (0, "imported 14 new items\n", "")
    other = semantic("b.db")
    asked = [{}, {"history": True}, *({name: each} for each in moments for name in ("at", "known", "until", "since"))]
    for how in asked:
        for query in (HOME, "", "note"):
            assert found(other, query, **how) == found(memory, query, **how), (query, how)
    assert [(kept.item, kept.valid_s, kept.stored_s) for kept in other.all()] == [
        (kept.item, kept.valid_s, kept.stored_s) for kept in memory.all()
    ]
    assert found(memory) == ["Ann lives in Pisa"] and found(memory, at=moments[-1]) == ["Ann lives in Lund"]
    assert cli("memory", "export", "b.db")[1] == Path("a.jsonl").read_text()
    salvaged = cli("memory", "export", "a.db", "--salvage")[1]
    assert salvaged == Path("a.jsonl").read_text(), "a salvage has the same times"


def test_facts_of_one_moment_are_exported_in_the_order_of_storing(cli: Cli, clock: list[float]) -> None:
    memory = semantic("a.db", owner="bo")
    cities = [f"city {number}" for number in random.Random(1).sample(range(20), 20)]
    for city in cities:
        write(memory, home(city, time="2026-01-01"))
    write(semantic("a.db", owner="ann"), home("Oslo"))
    rows = [json.loads(line) for line in cli("memory", "export", "a.db")[1].splitlines()]
    assert [row["provenance"]["value"] for row in rows] == ["Oslo", *cities]
    assert {row["stored"] for row in rows} == {"2027-01-15T08:00:00.250000Z"}
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("memory", "import", "b.db", "a.jsonl")[0] == 0
    assert found(semantic("b.db", owner="bo")) == found(memory) == [f"Ann lives in {cities[-1]}"]


def test_an_export_of_an_older_version_begins_with_the_newest_of_a_second(cli: Cli) -> None:
    stored = {"kind": "semantic", "valid": "2026-01-01", "stored": "2026-01-01"}
    lines = [{**home(city).to_json(), **stored} for city in ("Rome", "Bergen", "Oslo")]
    Path("old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert cli("memory", "import", "m.db", "old.jsonl")[0] == 0
    assert found(semantic("m.db")) == ["Ann lives in Rome"]
    Path("exact.jsonl").write_text("".join(json.dumps({**x, "stored": "2026-01-01T00:00:00.5Z"}) + "\n" for x in lines))
    assert cli("memory", "import", "n.db", "exact.jsonl")[0] == 0
    assert found(semantic("n.db")) == ["Ann lives in Oslo"], "other lines are in the order of storing"
    for number, times in enumerate(({}, {"stored": ""}, {"stored": 1_760_000_000})):
        Path("own.jsonl").write_text(
            "".join(
                json.dumps({**home(city).to_json(), "kind": "semantic", **times}) + "\n" for city in ("Rome", "Oslo")
            )
        )
        assert cli("memory", "import", f"{number}.db", "own.jsonl")[0] == 0
        assert found(semantic(f"{number}.db")) == ["Ann lives in Oslo"], "and so are lines of one's own"


def test_an_imported_line_has_its_times_and_none_after_now(cli: Cli) -> None:
    day, before = seconds_of("2026-03-01"), time.time()
    cases: tuple[tuple[dict[str, Any], tuple[float | None, float | None]], ...] = (
        ({"valid": "2026-03-01", "stored": "2026-03-02T00:00:00Z"}, (day, day + 86_400)),
        ({"stored": day}, (day, day)), ({"valid": "2026-03-01"}, (day, None)), ({}, (None, None)),
        ({"valid": None, "stored": ""}, (None, None)), ({"valid": "9998-01-01", "stored": 4e9}, (None, None)),
        ({"valid": 3e9, "stored": "2026-03-01"}, (None, day)), ({"valid": -1e12, "stored": day}, (-1e12, day)),
    )  # fmt: skip
    for number, (times, expected) in enumerate(cases):
        line = {"text": f"text {number}", "kind": "semantic", **times}
        Path("a.jsonl").write_text(json.dumps(line) + "\n")
        assert cli("memory", "import", "m.db", "a.jsonl")[1] == "imported 1 new item\n"
        file = ItemFile(Path("m.db"))
        (kept,) = file.numbered([file.last_number()]).values()
        file.close()
        for value, wanted in zip((kept.valid_s, kept.stored_s), expected, strict=True):
            assert value == wanted if wanted is not None else before - 1e-6 <= value <= time.time(), (times, value)
    Path("a.jsonl").write_text(
        '{"text": "a", "kind": "semantic"}\n{"text": "b", "kind": "semantic", "stored": "soon"}\n'
    )
    code, _, err = cli("memory", "import", "n.db", "a.jsonl")
    assert code != 0 and err.startswith("firsthand: a.jsonl, line 2: a time is 'soon': give seconds since 1970")


def test_a_time_as_text_is_read_back_as_it_was_to_the_microsecond() -> None:
    assert exact_time(0.0) == "1970-01-01T00:00:00.000000Z" and exact_time(-0.5) == "1969-12-31T23:59:59.500000Z"
    for seconds in (1_800_000_000.123456, 1.0, -62_135_596_800.0, 253_402_300_799.0, round(time.time(), 6)):
        text = exact_time(seconds)
        assert isinstance(text, str) and len(text) == 27 and seconds_of(text) == seconds
    for seconds in (-62_135_596_801.0, 253_402_300_800.0, 1e300, math.inf):
        assert exact_time(seconds) == seconds


# -- newness --


def test_what_was_written_last_holds_whatever_the_clocks_say(tmp_path: Path, clock: list[float]) -> None:
    memory = semantic("m.db")
    for city, now in (("Oslo", 3600.0), ("Bergen", 0.0), ("Rome", 0.0), ("Lund", -9e5), ("Graz", -9e5)):
        clock[0] = 1_800_000_000.25 + now
        write(memory, home(city))
        assert found(memory) == [f"Ann lives in {city}"]
    first, *rest = [kept.valid_s for kept in memory.with_key(next(iter(memory.all())).key or "")]
    assert first == 1_800_003_600.25 and len(set(rest)) == 4 and max(rest) - first < 1e-5
    assert found(memory, known=clock[0] - 1) == [] and len(found(memory, history=True)) == 5
    write(memory, MemoryItem.of("Bo lives in Pisa", {"subject": "Bo", "attribute": "home"}))
    (other,) = (kept for kept in memory.all() if kept.item.text.startswith("Bo"))
    assert other.valid_s == other.stored_s == clock[0], "another fact keeps the clock's time"
    bo = semantic("m.db", owner="bo")
    write(bo, home("Nice"))
    assert next(iter(bo.all())).valid_s == clock[0], "and so does another owner's"
    clock[0] = 1_900_000_000.0
    write(memory, home("Pisa"))
    assert next(iter(memory.all())).valid_s == 1_900_000_000.0, "and so does this one when the clock is right again"


def test_of_facts_of_one_moment_the_last_written_holds_though_it_is_less_sure(clock: list[float]) -> None:
    memory = semantic("m.db")
    write(memory, home("Oslo"), home("Rome", confidence=0.5))
    assert found(memory) == ["Ann lives in Rome"]


def test_a_fact_of_a_coming_day_is_no_clock_and_holds_from_that_day_on(clock: list[float]) -> None:
    memory = semantic("m.db")
    write(memory, home("Oslo", time="2030-01-01"), home("Rome"), home("Lund"))
    assert found(memory) == ["Ann lives in Oslo"] and found(memory, at=clock[0] + 1) == ["Ann lives in Lund"]
    assert max(kept.valid_s for kept in memory.all() if "Oslo" not in kept.item.text) < clock[0] + 1e-5
    with sqlite3.connect("m.db") as connection:  # damage of the newer ones is told when they are read
        connection.execute("UPDATE items SET body = '[', valid_s = valid_s + 1e9 WHERE number = 1")
        connection.execute("UPDATE items SET valid_s = 'x' WHERE number = 2")
    connection.close()
    file = ItemFile(Path("m.db"))
    key = str(file._database.read("SELECT key FROM items WHERE number = 3")[0][0])
    assert file.put("", "semantic", home("Pisa"), key, None)
    assert file.numbered([4])[4].valid_s == pytest.approx(clock[0], abs=1e-5)


def test_items_without_a_key_and_core_blocks_are_in_the_order_of_writing(clock: list[float]) -> None:
    memory = memgpt("m.db")
    texts = [f"human: {number}" for number in range(4)]
    for number, text in enumerate(texts):
        clock[0] = 1_800_000_000.0 - 60 * number
        write(memory, MemoryItem.of(text, {"store": "core", "block": "human", "n": number}))
        write(memory, MemoryItem.of(f"passage {number}", {"store": "archival"}))
    assert found(memory, "", where={"store": "core"})[:1] == ["human: 3"]
    assert found(memory, "", where={"store": "archival"}) == [f"passage {number}" for number in (3, 2, 1, 0)]


def test_times_far_away_have_a_next_one(clock: list[float]) -> None:
    file = ItemFile(Path("m.db"))
    for number, city in enumerate(("Oslo", "Rome", "Lund")):
        times = ItemTimes(253e9, clock[0]) if not number else None
        assert file.put("", "semantic", home(city), "k", None, times=times)
    first, second, third = (kept.valid_s for kept in file.numbered([1, 2, 3]).values())
    assert 253e9 == first < second < third < 253e9 + 1


# -- ages --


def test_one_item_of_a_far_year_leaves_the_ranking_of_the_others_as_it_is() -> None:
    for days in (30.0, 0.1, 1e-6):
        memory = episodic(f"{days}.db", half_life_days=days)
        items = [
            MemoryItem.of(f"Task: about subject {n}", {"time": f"2026-11-0{n + 1}", "place": str(n)}) for n in range(6)
        ]
        write(memory, *items, MemoryItem.of("Task: sorting zebras zebras", {"time": "2026-11-06", "place": "z"}))
        asked = "task about sorting zebras"
        before = found(memory, asked)
        assert before[0] == "Task: sorting zebras zebras" and len(before) == 7
        assert before[1:] == [f"Task: about subject {n}" for n in (5, 4, 3, 2, 1, 0)]
        write(memory, MemoryItem.of("Task: unrelated", {"time": "9999-01-01", "place": "f"}))
        after = found(memory, asked)
        assert [text for text in after if "unrelated" not in text] == before
        if days == 30.0:
            assert after[0] == before[0], "it is no newer than the day it was stored on"


def test_words_that_weigh_nothing_rank_by_id_and_fail_no_search() -> None:
    memory = catalog.memory("episodic:m.db")
    assert isinstance(memory, StoredMemory)
    write(memory, *(MemoryItem(id, "tea", {"time": "2026-11-01"}) for id in "ba"))
    memory._scores = lambda query: {1: 0.0, 2: 0.0}  # type: ignore[method-assign]
    assert [item.id for item in asyncio.run(memory.search("tea", 9))] == ["a", "b"]
