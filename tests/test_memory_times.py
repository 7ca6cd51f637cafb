"""Times of a memory's items: moved by export and import, the last written is the newest, and ages of any size rank."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.commands import memory as command
from firsthand.errors import StoreError
from firsthand.memories.episodic import episodic
from firsthand.memories.keeping import item_age, item_file, item_removal, recall_request, stored_memory
from firsthand.memories.keeping.item_age import first_to_go, in_order_of_import, oldest_first
from firsthand.memories.keeping.item_file import ItemFile, KeepingBounds
from firsthand.memories.keeping.kept_item import KeptItem, exact_time, seconds_of
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
    """The time that items are stored at, and asked for."""
    now = [1_800_000_000.25]

    class Clock:
        time = staticmethod(lambda: now[0])

    for module in (item_file, item_age, recall_request, stored_memory):
        monkeypatch.setattr(module, "time", Clock)
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
    assert found(memory, at="2031-05-07") == ["Ann lives in Pisa"] and found(memory) == ["Ann lives in Lund"]
    assert found(memory, at=moments[-1]) == ["Ann lives in Lund"]
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
        ({"stored": day}, (day, day)), ({"stored": int(day)}, (day, day)),
        ({"valid": "2026-03-01"}, (day, None)), ({}, (None, None)),
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
    for other in (True, ["2026-01-01"], {"from": 1}):
        Path("b.jsonl").write_text(
            json.dumps({"text": f"{other}", "kind": "semantic", "valid": other, "stored": other}) + "\n"
        )
        assert cli("memory", "import", "m.db", "b.jsonl")[1] == "imported 1 new item\n", "one's own keys are no times"
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


def test_an_import_of_older_facts_leaves_the_newer_ones_of_a_memory_as_they_are(cli: Cli, clock: list[float]) -> None:
    for city, later in (
        ("Bergen", 2e5),
        ("Oslo", 0.0),
    ):  # of the second, with a clock that was set back, the last holds
        clock[0] = 1_700_000_000.0 + later
        write(semantic("old.db"), home(city))
    assert cli("memory", "export", "old.db", "--out", "old.jsonl")[0] == 0
    for file, now, holding in (("a.db", 1_700_000_000.5, "Rome"), ("b.db", 1_699_999_999.5, "Oslo")):
        clock[0] = now
        write(semantic(file), home("Rome"))
        assert cli("memory", "import", file, "old.jsonl") == (0, "imported 2 new items\n", "")
        memory = semantic(file)
        assert found(memory) == [f"Ann lives in {holding}"]
        with ItemFile(Path(file))._database.write() as connection:
            gone = {row[0] for row in first_to_go(connection, 1, 9)}
        assert {kept.item.text for kept in memory.all() if kept.number not in gone} == {f"Ann lives in {holding}"}
        clock[0] = 1_600_000_000.0
        write(memory, home("Graz"))
        assert found(memory) == ["Ann lives in Graz"], "what is written here after an import is newer than all of it"
        with ItemFile(Path(file))._database.write() as connection:
            gone = {row[0] for row in first_to_go(connection, 1, 9)}
        assert {kept.item.text for kept in memory.all() if kept.number not in gone} == {"Ann lives in Graz"}


def test_two_imports_do_not_order_each_others_facts(cli: Cli) -> None:
    for city, day in (("Rome", "2026-06-05"), ("Oslo", "2026-01-05")):
        times = {"valid": f"{day}T10:00:00.5Z", "stored": f"{day}T10:00:00.5Z"}
        Path(f"{city}.jsonl").write_text(json.dumps({**home(city).to_json(), "kind": "semantic", **times}) + "\n")
        assert cli("memory", "import", "m.db", f"{city}.jsonl")[0] == 0
    assert found(semantic("m.db")) == ["Ann lives in Rome"]
    write(semantic("m.db"), home("Bern"))
    assert len(ItemFile(Path("m.db"))._database.read("SELECT * FROM imported")) == 2, "what is written here has no row"
    for id in [kept.item.id for kept in semantic("m.db").all()]:
        assert cli("memory", "forget", "m.db", id)[0] == 0
    assert ItemFile(Path("m.db"))._database.read("SELECT * FROM imported") == []


@pytest.mark.parametrize("salvage", [(), ("--salvage",)])
def test_a_memory_of_several_imports_and_writes_that_is_moved_answers_as_before(
    cli: Cli, clock: list[float], salvage: tuple[str, ...]
) -> None:
    """Facts with and without times in random order, written here with clocks that are set back, and imported."""
    dice = random.Random(3)

    def facts(person: int) -> list[MemoryItem]:
        return [
            home(f"city {dice.random()}", subject=f"P{person}", **dice.choice([{}, {}, {"time": clock[0] - 3}]))
            for _ in range(2)
        ]

    for step in range(8):
        clock[0] = 1_700_000_000.0 + dice.randrange(12)
        if dice.random() < 0.4:
            for person in range(9):
                write(semantic("a.db"), *facts(person))
            continue
        write(semantic(f"{step}.db"), *(item for person in range(9) for item in facts(person)))
        assert cli("memory", "export", f"{step}.db", "--out", f"{step}.jsonl")[0] == 0
        assert cli("memory", "import", "a.db", f"{step}.jsonl")[0] == 0
    assert cli("memory", "export", "a.db", "--out", "a.jsonl", *salvage)[0] == 0
    assert cli("memory", "import", "b.db", "a.jsonl")[0] == 0
    memory, other = semantic("a.db"), semantic("b.db")
    for key in {kept.key for kept in memory.all()}:
        assert key and [x.item for x in other.with_key(key)] == [x.item for x in memory.with_key(key)]
    assert [*map(json.loads, cli("memory", "export", "b.db")[1].splitlines())] == [
        *map(json.loads, Path("a.jsonl").read_text().splitlines())
    ], "a second move changes nothing"


def test_items_are_exported_in_the_order_of_writing_but_those_of_a_key_by_newness_in_their_places() -> None:
    def kept(number: int, key: str | None, valid_s: float) -> KeptItem:
        return KeptItem(MemoryItem.of(f"{number}", {}), number, key, valid_s, 9.0)

    items = [kept(1, "k", 5.0), kept(2, None, 7.0), kept(3, "k", 4.0), kept(4, None, 1.0), kept(5, "j", 1.0)]
    for given in (items, items[::-1]):
        assert [each.number for each in in_order_of_import(given)] == [3, 2, 1, 4, 5]
    assert in_order_of_import([]) == []


def test_items_whose_imports_cannot_be_read_are_salvaged(cli: Cli) -> None:
    Path("f.jsonl").write_text(json.dumps({**home("Oslo").to_json(), "kind": "semantic", "stored": 5.5}) + "\n")
    assert cli("memory", "import", "m.db", "f.jsonl")[0] == 0
    file = ItemFile(Path("m.db"))
    with file._database.write() as connection:
        connection.execute("UPDATE imported SET batch = 'x'")
    file.close()
    code, out, _ = cli("memory", "export", "m.db", "--salvage")
    assert code == 0 and json.loads(out)["text"] == "Ann lives in Oslo"


def test_an_import_with_a_wrong_line_makes_no_file_and_removes_none(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.jsonl").write_text('{"kind": "semantic", "text": "a"}\n{"kind": "semantic", "text": 5}\n')
    read = command._lines

    def lines(path: Path) -> Any:
        assert not Path("m.db").exists(), "the file is made when all lines are read"
        write(semantic("m.db"), home("Oslo"))  # another process makes it meanwhile
        return read(path)

    assert cli("memory", "import", "n.db", "a.jsonl")[0] == 1 and not [*Path().glob("n.db*")]
    monkeypatch.setattr(command, "_lines", lines)
    code, _, err = cli("memory", "import", "m.db", "a.jsonl")
    assert code == 1 and "a.jsonl, line 2" in err and found(semantic("m.db")) == ["Ann lives in Oslo"]


def test_an_import_that_fails_while_it_writes_removes_nothing_and_goes_on_when_it_is_run_again(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.jsonl").write_text("".join(f'{{"kind": "semantic", "text": "{n}"}}\n' for n in range(5)))
    put, full = ItemFile.put, [True]

    def fails(self: ItemFile, owner: str, kind: str, item: MemoryItem, *rest: Any, **more: Any) -> bool:
        if full[0] and item.text == "3":
            raise StoreError("the disk is full")
        return put(self, owner, kind, item, *rest, **more)

    monkeypatch.setattr(ItemFile, "put", fails)
    assert cli("memory", "import", "m.db", "a.jsonl")[0] == 1
    assert len(found(semantic("m.db"), "")) == 3
    full[0] = False
    assert cli("memory", "import", "m.db", "a.jsonl")[1] == "imported 2 new items\n"


# -- newness --


def test_what_was_written_last_holds_whatever_the_clocks_say(clock: list[float]) -> None:
    memory, told = semantic("m.db"), list[float]()
    for city, now in (("Oslo", 3600.0), ("Bergen", 0.0), ("Rome", 0.0), ("Lund", -9e5), ("Graz", -9e5), ("Pisa", 7e8)):
        clock[0] = 1_800_000_000.25 + now
        told.append(clock[0])
        write(memory, home(city))
        assert found(memory) == [f"Ann lives in {city}"] == found(memory, at=clock[0], known=clock[0])
    assert sorted((kept.valid_s, kept.stored_s) for kept in memory.all()) == [(each, each) for each in sorted(told)]
    assert found(memory, at=told[0]) == ["Ann lives in Graz"] and len(found(memory, history=True)) == 6


def test_a_clock_that_was_ahead_once_leaves_later_facts_at_their_own_times(cli: Cli, clock: list[float]) -> None:
    memory, ahead = semantic("m.db"), 365 * 86_400.0
    clock[0] = time.time() + ahead
    write(memory, home("Oslo"))
    clock[0] -= ahead
    write(memory, home("Rome"))
    clock[0] += 0.001
    for file in ("m.db", "n.db"):
        memory = semantic(file)
        assert found(memory, k=1) == found(memory, at=clock[0]) == ["Ann lives in Rome"]
        assert found(memory, until=clock[0]) == ["Ann lives in Rome"]
        if file == "m.db":
            assert cli("memory", "export", "m.db", "--out", "m.jsonl")[0] == 0
            assert cli("memory", "import", "n.db", "m.jsonl")[0] == 0


def test_an_earlier_time_of_a_writer_lies_before_what_a_clock_ahead_stamped(clock: list[float]) -> None:
    memory = semantic("m.db")
    clock[0] += 1e6
    write(memory, home("Oslo"))
    write(memory, home("Bergen", time=clock[0] - 5e5))
    assert found(memory) == ["Ann lives in Oslo"]
    clock[0] -= 1e6
    write(memory, home("Rome"))
    assert found(memory) == found(memory, at=clock[0]) == ["Ann lives in Rome"]
    assert found(memory, at=clock[0] + 6e5) == ["Ann lives in Bergen"], (
        "its day is to come, by the clock that is right now"
    )


def test_of_facts_of_one_moment_the_last_written_holds_though_it_is_less_sure(clock: list[float]) -> None:
    memory = semantic("m.db")
    write(memory, home("Oslo"), home("Rome", confidence=0.5))
    assert found(memory) == ["Ann lives in Rome"]


def test_of_facts_of_one_given_time_the_surer_holds_and_one_that_was_stored_then_is_newer(clock: list[float]) -> None:
    memory = semantic("m.db")
    write(memory, home("Oslo", time=clock[0] + 9, confidence=0.9), home("Rome", time=clock[0] + 9, confidence=0.8))
    assert found(memory) == ["Ann lives in Oslo"]
    clock[0] += 9
    write(memory, home("Lund", confidence=0.1), home("Graz", time=clock[0] + 0.5))
    assert found(memory, at=clock[0]) == ["Ann lives in Lund"] and found(memory) == ["Ann lives in Graz"]


def test_of_equal_facts_the_last_written_holds_in_whatever_order_they_are_read() -> None:
    items = [KeptItem(home(city), number, "k", 5.0, 9.0) for number, city in enumerate(("Oslo", "Rome", "Lund"))]
    assert oldest_first(items) == items == oldest_first(reversed(items)) and oldest_first(iter(())) == []


def test_a_fact_of_a_coming_day_is_no_clock_and_holds_from_that_day_on(clock: list[float]) -> None:
    memory = semantic("m.db")
    write(memory, home("Oslo", time="2030-01-01"), home("Rome"), home("Lund"))
    assert found(memory) == found(memory, at=clock[0] + 1) == ["Ann lives in Lund"]
    assert found(memory, at="2030-01-01") == ["Ann lives in Oslo"]
    clock[0] = seconds_of("2030-01-01")
    assert found(memory) == ["Ann lives in Oslo"]
    assert {kept.valid_s for kept in memory.all() if "Oslo" not in kept.item.text} == {1_800_000_000.25}


@pytest.mark.parametrize("file", ["m.db", ""])
def test_what_is_to_come_in_every_time_zone_replaces_nothing_yet(clock: list[float], file: str) -> None:
    memory, zones_s = semantic(file), 14 * 3600.0
    write(memory, home("Oslo", time="2026-01-01"), home("Rome", time=clock[0] + zones_s + 2))
    write(memory, home("Rome", time="9999-01-01", withdrawn=True))
    assert found(memory) == found(memory, known=clock[0] if file else None) == ["Ann lives in Oslo"]
    assert found(memory, "", history=True) == ["Ann lives in Rome", "Ann lives in Rome", "Ann lives in Oslo"]
    clock[0] += 1.5
    assert found(memory) == ["Ann lives in Oslo"]
    clock[0] += 0.5
    assert found(memory) == ["Ann lives in Rome"], "it may be this time where the writer is"
    assert found(memory, at=clock[0]) == ["Ann lives in Oslo"]
    assert found(memory, at="9999-01-02") == []
    if file:
        write(memory, home("Lund"))
        clock[0] += zones_s
        assert found(memory) == ["Ann lives in Rome"]


@pytest.mark.parametrize("file", ["m.db", ""])
def test_what_a_clock_ahead_stored_without_a_time_is_no_plan(clock: list[float], file: str) -> None:
    memory = semantic(file)
    write(memory, home("Oslo", time="2026-01-01"))
    clock[0] += 1e6
    write(memory, home("Rome"))
    clock[0] -= 1e6
    assert found(memory) == ["Ann lives in Rome"]


def test_what_is_to_come_is_found_where_nothing_holds_yet(clock: list[float]) -> None:
    memory = semantic("m.db")
    write(memory, home("Rome", time="2031-01-01"), home("Oslo", time="2030-01-01"), home("Pisa", time="2032-01-01"))
    assert found(memory) == ["Ann lives in Oslo"], "of several plans the first that will hold"
    assert found(memory, at=clock[0]) == [] and found(memory, at="2033-01-01") == ["Ann lives in Pisa"]
    write(memory, home("Bonn", time="2030-01-01"))
    assert found(memory) == ["Ann lives in Bonn"], "of one time the last written"
    write(memory, home("Bonn", time="2030-01-01", withdrawn=True))
    assert found(memory) == ["Ann lives in Rome"], "a plan that was called off holds at no time"
    write(memory, home("Lund"))
    assert found(memory) == ["Ann lives in Lund"]
    write(memory, home("Lund", withdrawn=True))
    assert found(memory) == []


@pytest.mark.parametrize("file", ["m.db", ""])
def test_a_full_memory_keeps_what_holds_today_beside_what_is_planned(clock: list[float], file: str) -> None:
    memory = semantic(file, max_items=4)
    write(memory, home("Oslo", time="2026-01-01"), home("Rome", time="2030-06-01"), home("Lund", time="2031-06-01"))
    others = [("a", "2020-01-02"), ("b", "2020-01-01"), ("c", "2020-01-03")]
    write(memory, *(MemoryItem.of(text, {"time": day}) for text, day in others))
    assert found(memory) == ["Ann lives in Oslo"] and found(memory, at="2030-07-01") == ["Ann lives in Rome"]
    assert found(memory, "", history=True)[3:] == ["c"]
    write(memory, home("Bern", time="2026-02-01"))
    assert found(memory, "", history=True)[2:] == ["Ann lives in Bern", "c"], (
        "what was replaced goes before what is older"
    )


def test_a_full_memory_without_a_file_drops_a_hundredth_at_once(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, looks = semantic("", max_items=300), 0

    def look(items: list[KeptItem]) -> list[KeptItem]:
        nonlocal looks
        looks += 1
        return oldest_first(items)

    monkeypatch.setattr(stored_memory, "oldest_first", look)
    write(memory, *(MemoryItem.of(f"fact {n}", {"subject": f"s{n}", "attribute": "a", "value": n}) for n in range(298)))
    write(memory, home("Oslo"), home("Rome"))
    assert len([*memory.all()]) == 300 and looks == 0
    write(memory, MemoryItem.of("one more", {}))
    left = [kept.item.text for kept in memory.all()]
    assert looks == 1, "facts that replace none are not put in order"
    assert len(left) == 297 and "Ann lives in Oslo" not in left and "Ann lives in Rome" in left
    assert {f"fact {n}" for n in range(298)} - {*left} == {"fact 0", "fact 1", "fact 2"}
    write(memory, *(MemoryItem.of(f"note {n}", {}) for n in range(3)))
    assert len([*memory.all()]) == 300, "room for three"


def test_items_of_the_year_9999_do_not_stay_for_ever(clock: list[float]) -> None:
    memory = semantic("m.db", max_items=3)
    for number in range(6):
        write(memory, MemoryItem.of(f"far {number}", {"time": "9999-01-01"}))
        clock[0] += 1
    for number in range(3):
        write(memory, MemoryItem.of(f"near {number}", {}))
        clock[0] += 1
    assert found(memory, "", history=True) == ["near 2", "near 1", "near 0"]


def test_core_blocks_are_in_the_order_of_writing_and_items_without_a_key_in_that_of_their_times(
    clock: list[float],
) -> None:
    memory = memgpt("m.db")
    texts = [f"human: {number}" for number in range(4)]
    for number, text in enumerate(texts):
        clock[0] = 1_800_000_000.0 - 60 * number
        write(memory, MemoryItem.of(text, {"store": "core", "block": "human", "n": number}))
        write(memory, MemoryItem.of(f"passage {number}", {"store": "archival"}))
    assert found(memory, "", where={"store": "core"}) == ["human: 3"]
    assert found(memory, "", where={"store": "archival"}) == [f"passage {number}" for number in range(4)]


def test_a_full_memory_drops_first_what_was_replaced_and_never_what_holds(clock: list[float]) -> None:
    file, now = ItemFile(Path("m.db")), clock[0]
    rows: list[tuple[str, str | None, float, dict[str, Any]]] = [
        ("a1", "a", now + 1e6, {}), ("a2", "a", now, {}),  # a clock was ahead
        ("b1", "b", now + 1e6, {}), ("b2", "b", now, {"time": now + 9}), ("b3", "b", now, {}),  # b2 holds
        ("c1", "c", now, {"time": now + 1, "confidence": 0.5}), ("c2", "c", now, {"time": now + 1}),  # equal times: neither
        ("d1", "d", now - 5, {"time": now}), ("d2", "d", now, {}),
        ("e1", "e", now, {"time": now - 2}), ("e2", "e", now, {}), ("e3", "e", now, {"time": now - 5}),
        ("g1", "g", now, {}), ("g2", "g", now, {"time": now + 50_401}), ("g3", "g", now, {"time": now + 9e9}),  # to come
        ("h1", "h", now + 1e6, {"time": now + 6}), ("h2", "h", now, {"time": now + 50_400}),
        ("f", "f", now - 9e5, {}), ("no key", None, now, {}), ("none", None, now, {}),
    ]  # fmt: skip
    for id, key, clock[0], provenance in rows:
        file.put("", "semantic", MemoryItem(id, "tea", provenance), key, None)
    with file._database.write() as connection:
        gone = [number for number, _ in first_to_go(connection, 1, 99)]
        assert first_to_go(connection, 1, 2) == first_to_go(connection, 1, 99)[:2]
    assert [rows[number - 1][0] for number in gone] == ["e3", "e1", "b3", "d1", "h1", "a1", "b1"]
    held = {oldest_first(file.with_keys(1, [key], 99))[-1].item.id for key in "abcdef"}
    assert held == {"a2", "b2", "c2", "d2", "e2", "f"}


@pytest.mark.parametrize("key", [None, "k"])
def test_a_write_reads_no_items_of_coming_days(clock: list[float], key: str | None) -> None:
    file, steps = ItemFile(Path("m.db")), 0
    for number in range(300):
        file.put("", "notes", MemoryItem.of(f"event {number}", {"time": "2199-01-01"}), key, KeepingBounds())

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    file._database._connection.set_progress_handler(count, 100)
    file.put("", "notes", MemoryItem.of("a note", {}), key, KeepingBounds())
    assert steps < 20
    file.close()


def test_a_memory_that_is_full_in_bytes_looks_for_many_of_its_oldest_at_once(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, looks = ItemFile(Path("m.db")), 0
    for number in range(300):
        file.put("", "notes", MemoryItem.of(f"event {number:03}", {}), None, None)
        clock[0] += 1

    def look(*given: Any) -> list[tuple[int, int]]:
        nonlocal looks
        looks += 1
        return first_to_go(*given)

    monkeypatch.setattr(item_removal, "first_to_go", look)
    size = file.size(1).size_bytes // 300
    file.put("", "notes", MemoryItem.of("event 300", {}), None, KeepingBounds(size_bytes=295 * size))
    assert (file.size(1).items, looks) == (292, 3), "nine go, three hundredths of them"
    file.close()


def test_a_memory_that_one_large_item_fills_loses_it_alone(clock: list[float]) -> None:
    file = ItemFile(Path("m.db"))
    for number in range(297):
        file.put("", "notes", MemoryItem.of(f"event {number:03}" + "x" * 50_000 * (not number), {}), None, None)
        clock[0] += 1
    full = file.size(1).size_bytes
    assert file.put("", "notes", MemoryItem.of("event 297", {}), None, KeepingBounds(300, full))
    assert file.size(1).items == 297 and file.size(1).size_bytes == full - 50_000


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


@pytest.mark.parametrize("where", ["file", "process", "attempt"])
def test_a_fact_without_a_time_counts_from_when_it_was_told(tmp_path: Path, where: str, clock: list[float]) -> None:
    memory = semantic(str(tmp_path / "m.db") if where == "file" else "")
    told = memory.snapshot() if where == "attempt" else memory
    write(told, home("Oslo"))
    now_s = clock[0]
    assert found(told, at=now_s - 1) == [] and found(told, at=now_s + 86_400) == found(told) == ["Ann lives in Oslo"]
    assert found(told, at=now_s + 86_400, until=now_s - 1) == [] and found(told, until=now_s + 1) == found(told)
    write(told, home("Rome", time=now_s + 400 * 86_400), home("Bergen", time=now_s - 86_400))
    assert found(told) == ["Ann lives in Oslo"], "it is newer than what was told of an earlier day"
    assert found(told, at=now_s - 1) == ["Ann lives in Bergen"]
    assert found(told, at=now_s + 500 * 86_400) == ["Ann lives in Rome"], "and older than what is to come"


def test_in_a_process_a_fact_of_a_later_day_replaces_one_that_was_told_without_a_time_before(
    clock: list[float],
) -> None:
    memory = semantic()
    write(memory, home("Oslo"))
    clock[0] += 30 * 86_400
    write(memory, home("Bergen", time=clock[0] - 86_400))
    assert found(memory) == ["Ann lives in Bergen"]


def test_in_a_process_the_last_written_comes_first_though_a_clock_stands_still_or_is_set_back(
    clock: list[float],
) -> None:
    memory = episodic()
    written = [MemoryItem(f"{n % 3}{n}", f"n{n}", {}) for n in range(9)]
    for n, each in enumerate(written):
        clock[0] -= 5 * (n % 2)
        write(memory, each)
    assert found(memory, "") == [each.text for each in reversed(written)]
