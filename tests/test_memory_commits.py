"""Changes of attempts are made once in an agent's memory: what is forgotten stays so, however often a run is resumed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.context import Context
from firsthand.errors import StoreError
from firsthand.loop.attempt_memory import MemoryChange, apply, commit, learn
from firsthand.loop.journal import MemoryJournal
from firsthand.memories.episodic import episodic
from firsthand.memories.keeping.item_file import ItemFile, KeepingBounds
from firsthand.memories.keeping.stored_memory import StoredMemory
from firsthand.memories.notes import notes
from firsthand.memories.procedural import procedural
from firsthand.memories.semantic import semantic
from firsthand.memory import MemoryItem
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollout
from firsthand.runs.execute import execute
from firsthand.runs.run_folder import Run
from firsthand.runs.store import create
from firsthand.task import Task
from firsthand.trace import Trace

MANY = KeepingBounds()


async def remembers(task: Task, ctx: Context) -> str:
    """Remembers each word of the task; `-word` forgets what it finds for it."""
    for word in task.prompt.split():
        if word.startswith("-"):
            for item in await ctx.recall(word[1:]):
                await ctx.forget(item.id)
        else:
            await ctx.remember(word, subject=word, attribute="x", value=word)
    return "done"


async def right(task: Task, trace: Trace) -> float:
    return 1.0


def agent(memory: Any, pattern: Any = remembers) -> Agent:
    return Agent("a", Scripted(lambda messages, *rest: "ok"), pattern, memory=memory)


def run_of(folder: Path, name: str, memory: Any, *prompts: str, pattern: Any = remembers) -> Callable[[], None]:
    """Makes the run when it is called, and resumes it when it is called again."""
    tasks = [Task(f"t{number}", prompt) for number, prompt in enumerate(prompts)]
    benchmark = Benchmark("words", lambda seed: tasks, (right,))
    run: Run = create(folder / name, {}, "run")

    def resume() -> None:
        asyncio.run(execute(run, [Place(agent(memory, pattern), benchmark, task) for task in tasks]))

    return resume


def texts(memory: StoredMemory) -> list[str]:
    return sorted(item.text for item in asyncio.run(memory.list()))


def forget(memory: StoredMemory, *words: str) -> None:
    for item in asyncio.run(memory.list()):
        if not words or any(word in item.text for word in words):
            asyncio.run(memory.forget(item.id))


@pytest.mark.parametrize("file", ["m.db", ""])
def test_what_was_forgotten_stays_so_when_the_finished_run_that_wrote_it_is_resumed(tmp_path: Path, file: str) -> None:
    memory = semantic(str(tmp_path / file) if file else "")
    first = run_of(tmp_path, "first", memory, "oslo rome", "pin")
    first()
    assert texts(memory) == ["oslo", "pin", "rome"]
    forget(memory, "pin", "rome")
    first()
    first()
    assert texts(memory) == ["oslo"]
    second = run_of(tmp_path, "second", memory, "oslo rome", "pin")
    second()
    assert texts(memory) == ["oslo", "pin", "rome"], "another run of the same tasks says it anew"
    forget(memory)
    first(), second()
    assert texts(memory) == []


@pytest.mark.parametrize("file", ["m.db", ""])
def test_what_an_agent_forgot_in_a_later_run_stays_so_and_is_not_forgotten_twice(tmp_path: Path, file: str) -> None:
    memory = semantic(str(tmp_path / file) if file else "")
    stores = run_of(tmp_path, "stores", memory, "hunter2")
    stores()
    drops = run_of(tmp_path, "drops", memory, "-hunter2")
    drops()
    assert texts(memory) == []
    stores()
    assert texts(memory) == []
    run_of(tmp_path, "again", memory, "hunter2")()
    drops()
    assert texts(memory) == ["hunter2"], "what was stored since is not what was forgotten then"


def test_an_item_that_another_owner_or_memory_forgot_is_committed_there_alone(tmp_path: Path) -> None:
    ann, bo = (semantic(str(tmp_path / "m.db"), owner=owner) for owner in ("ann", "bo"))
    resume = run_of(tmp_path, "run", ann, "oslo")
    resume()
    forget(ann)
    assert asyncio.run(bo.once(next(iter(_items("oslo"))), "name")) is None and texts(bo) == ["oslo"]
    asyncio.run(ann.once(next(iter(_items("oslo"))), "name"))
    assert texts(ann) == ["oslo"], "a name is one of an owner's"
    other = ann.of_owner("cy")
    memory = semantic()
    asyncio.run(memory.once(next(iter(_items("oslo"))), "name"))
    another = memory.of_owner("bo")
    asyncio.run(another.once(next(iter(_items("oslo"))), "name"))
    assert texts(another) == ["oslo"]
    asyncio.run(other.once(next(iter(_items("oslo"))), "name"))
    assert texts(other) == ["oslo"] and texts(memory) == ["oslo"]


def _items(*words: str) -> list[MemoryItem]:
    return [MemoryItem.of(word, {}) for word in words]


@pytest.mark.parametrize("make", [episodic, procedural])
def test_what_a_run_taught_and_was_forgotten_is_not_learnt_again(tmp_path: Path, make: Any) -> None:
    memory = make(str(tmp_path / "m.db"))
    resume = run_of(tmp_path, "run", memory, "my PIN is 4829", "another question", pattern=direct)
    resume()
    assert len(texts(memory)) == 2
    forget(memory, "4829")
    resume()
    assert [text.splitlines()[0] for text in texts(memory)] == ["Task: another question"]
    run_of(tmp_path, "again", memory, "my PIN is 4829", pattern=direct)()
    assert len(texts(memory)) == 2, "another run teaches it anew"


def test_an_attempt_that_is_made_again_remembers_again(tmp_path: Path) -> None:
    for file in (str(tmp_path / "m.db"), ""):
        memory, journal, task = semantic(file), MemoryJournal(), Task("1", "oslo rome")
        first = asyncio.run(rollout(agent(memory), task, journal=journal))
        forget(memory, "rome")
        asyncio.run(commit(memory, first))
        assert texts(memory) == ["oslo"], "its trace is committed once"
        again = asyncio.run(rollout(agent(memory), task, journal=journal))
        assert first.id != again.id and texts(memory) == ["oslo", "rome"]


def test_a_change_is_one_of_its_trace_and_its_place_there(tmp_path: Path) -> None:
    class Kind:
        def learn(self, made: Trace) -> list[MemoryItem]:
            return _items("rome")

    memory, (oslo,) = semantic(str(tmp_path / "m.db")), _items("oslo")
    changes = [MemoryChange(":0", (0,), oslo), MemoryChange(":1", (1,), None, oslo.id), MemoryChange(":2", (2,), oslo)]
    asyncio.run(apply(memory, changes, "one"))
    assert texts(memory) == ["oslo"], "it was forgotten and remembered again"
    traces = [asyncio.run(rollout(agent(None, direct), Task("1", "?"))) for _ in range(2)]
    for trace in (traces[0], traces[0], traces[1]):
        forget(memory)
        asyncio.run(apply(memory, changes, trace.id))
        asyncio.run(learn(memory, trace, Kind()))
        assert texts(memory) == ["oslo", "rome"] or trace is traces[0]
    forget(memory)
    for trace in traces:
        asyncio.run(apply(memory, changes, trace.id))
        asyncio.run(learn(memory, trace, Kind()))
    assert texts(memory) == []


def test_texts_that_are_remembered_together_are_each_committed(tmp_path: Path) -> None:
    async def both(task: Task, ctx: Context) -> str:
        await ctx.remember_all([("oslo", {}), ("rome", {})])
        return "done"

    memory = semantic(str(tmp_path / "m.db"))
    resume = run_of(tmp_path, "run", memory, "?", pattern=both)
    resume()
    assert texts(memory) == ["oslo", "rome"]
    forget(memory, "rome")
    resume()
    assert texts(memory) == ["oslo"]


def test_another_item_that_is_forgotten_at_the_same_place_is_another_change(tmp_path: Path) -> None:
    memory, journal = semantic(str(tmp_path / "m.db")), MemoryJournal()
    asyncio.run(rollout(agent(memory), Task("0", "oslo rome")))
    for prompt, left in (("-oslo", ["rome"]), ("-rome", [])):
        asyncio.run(rollout(agent(memory), Task("1", prompt), journal=journal))
        assert texts(memory) == left


@pytest.mark.parametrize("file", ["m.db", ""])
@pytest.mark.parametrize("cleans_up", [True, False])
def test_what_the_last_try_of_an_attempt_remembered_is_kept(tmp_path: Path, cleans_up: bool, file: str) -> None:
    memory, fails, task = semantic(str(tmp_path / file) if file else ""), [True], Task("t", "oslo rome")

    async def breaks(task: Task, ctx: Context) -> str:
        await remembers(task, ctx)
        if fails and cleans_up:
            await remembers(replace(task, prompt="-rome"), ctx)
        if fails:
            raise ValueError("no luck")
        return "done"

    place = Place(agent(memory, breaks), Benchmark("words", lambda seed: [task], (right,)), task)
    run = create(tmp_path, {}, "run")
    asyncio.run(execute(run, [place]))
    if not cleans_up:
        forget(memory, "rome")
    assert texts(memory) == ["oslo"]
    fails.clear()
    asyncio.run(execute(run, [place], redo_errors=True))
    assert [trace.error for trace in run.traces()] == [None] and texts(memory) == ["oslo", "rome"]
    forget(memory, "rome")
    for redo_errors in (False, True):
        asyncio.run(execute(run, [place], redo_errors=redo_errors))
    assert texts(memory) == ["oslo"], "a try that is finished says nothing anew"


def test_a_commit_that_was_broken_off_is_finished_and_a_failed_write_is_not_noted(tmp_path: Path) -> None:
    memory = semantic(str(tmp_path / "m.db"))
    resume, write, calls = run_of(tmp_path, "run", memory, "oslo rome pisa"), memory.write, 0

    async def fails(item: MemoryItem, *, once: str = "") -> str:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreError("the disk is full")
        return await write(item, once=once)

    memory.write = fails  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        resume()
    assert texts(memory) == ["oslo"]
    forget(memory)
    resume()
    assert texts(memory) == ["pisa", "rome"]


def test_a_memory_of_a_run_is_written_anew_by_each_resume() -> None:
    seen: list[list[str]] = []

    async def looks(task: Task, ctx: Context) -> str:
        seen.append(sorted(item.text for item in await ctx.recall("oslo rome")))
        return await remembers(task, ctx)

    async def both() -> None:
        from firsthand.rollout import rollouts

        tasks = [Task("t", "oslo")]
        made = Agent("a", Scripted([]), looks, memory=semantic(lifetime="run"))
        benchmarks = [Benchmark(name, lambda seed: tasks, (right,)) for name in ("one", "two")]
        places = [Place(made, each, tasks[0]) for each in benchmarks]
        done = [trace async for trace in rollouts(places[:1])]
        for _ in range(2):
            async for _ in rollouts(places, done={done[0].place: done[0]}):
                pass

    asyncio.run(both())
    assert seen == [[], ["oslo"], ["oslo"]]


def test_a_memory_of_ones_own_is_committed_to_by_its_five_methods() -> None:
    memory, journal = notes(lifetime="agent"), MemoryJournal()
    for _ in range(2):
        asyncio.run(rollout(agent(memory), Task("1", "oslo rome"), journal=journal))
    assert sorted(item.text for item in asyncio.run(memory.list())) == ["oslo", "rome"]
    asyncio.run(rollout(agent(memory), Task("2", "-oslo")))
    assert sorted(item.text for item in asyncio.run(memory.list())) == ["rome"]


def test_a_change_is_noted_with_its_write_or_not_at_all(tmp_path: Path) -> None:
    file = ItemFile(tmp_path / "m.db")
    (oslo,) = _items("oslo")
    assert file.put("", "semantic", oslo, None, MANY, once="a") and not file.remove("", "semantic", oslo.id, once="a")
    assert file.remove("", "semantic", oslo.id) and not file.put("", "semantic", oslo, None, MANY, once="a")
    assert file.put("", "semantic", oslo, None, MANY, once="b \ud800") and file.size(1).items == 1
    assert not file.remove("bo", "semantic", oslo.id, once="c"), "there is nothing yet"
    assert file.put("bo", "semantic", oslo, None, MANY) and not file.remove("bo", "semantic", oslo.id, once="c")
    assert file.size(file.scope("bo", "semantic")).items == 1 and file.remove("bo", "semantic", oslo.id)
    assert file._database.read("SELECT count(*), max(length(change)), min(length(change)) FROM commits") == [
        (3, 16, 16)
    ]
    assert not file.remove("cy", "semantic", oslo.id) and file.scope("cy", "semantic") == 0


def test_a_file_of_an_older_version_opens_as_before_and_keeps_what_is_committed_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    memory = semantic(str(path))
    resume = run_of(tmp_path, "run", memory, "oslo rome")
    resume()
    kept = list(memory.all())
    assert memory.file is not None
    memory.file.close()
    with sqlite3.connect(path) as connection:
        connection.executescript("DROP TABLE commits; DROP TABLE renewed; DROP TABLE imported; PRAGMA user_version = 2")
    connection.close()
    memory.file = ItemFile(path, create=False)
    assert list(memory.all()) == kept and memory.file.scopes()[0][2].items == 2
    resume()
    assert list(memory.all()) == kept
    forget(memory)
    resume()
    assert texts(memory) == []


async def told(memory: Any, text: str, place: int = 0, journal: MemoryJournal | None = None, **more: Any) -> Trace:
    """An attempt of one task, in which every one tells a value; or several, one after the other."""

    async def tells(task: Task, ctx: Context) -> str:
        for value in text.split():
            await ctx.remember(f"Ann lives in {value}", subject="Ann", attribute="home", value=value, **more)
        return " ".join(item.text for item in await ctx.recall("Ann"))

    agent = Agent("a", Scripted(str), tells, memory=memory)
    return await rollout(agent, Task("session", "where"), seed=place, journal=journal)


@pytest.mark.parametrize("where", ["file", "process"])
def test_a_fact_that_is_told_again_after_it_was_replaced_holds_again(tmp_path: Path, where: str) -> None:
    memory = semantic(str(tmp_path / "m.db") if where == "file" else "")
    for number, value in enumerate(("Oslo", "Bergen", "Oslo", "Bergen", "Oslo"), 1):
        trace = asyncio.run(told(memory, value))
        assert trace.answer == f"Ann lives in {value}", "in the attempt itself"
        assert [item.text for item in asyncio.run(memory.search("Ann", 5))] == [f"Ann lives in {value}"]
        assert len(asyncio.run(memory.list())) == number
    tellings = sorted(
        (item.provenance["value"], item.provenance.get("telling", 1)) for item in asyncio.run(memory.list())
    )
    assert tellings == [("Bergen", 1), ("Bergen", 2), ("Oslo", 1), ("Oslo", 2), ("Oslo", 3)]
    asyncio.run(told(memory, "Oslo"))
    assert len(asyncio.run(memory.list())) == 5, "what holds is not stored again"


def test_a_fact_told_again_counts_what_its_attempt_told_before(tmp_path: Path) -> None:
    memory = semantic(str(tmp_path / "m.db"))
    asyncio.run(told(memory, "Bergen Oslo"))
    assert asyncio.run(told(memory, "Bergen Oslo")).answer == "Ann lives in Oslo", "Bergen replaced it in between"
    assert [item.text for item in asyncio.run(memory.search("Ann", 5))] == ["Ann lives in Oslo"]


def test_a_fact_that_was_withdrawn_is_told_again_and_one_of_an_earlier_time_is_not() -> None:
    memory = semantic()
    asyncio.run(told(memory, "Oslo"))
    gone = MemoryItem.of("no more", {"subject": "Ann", "attribute": "home", "value": "", "withdrawn": True})
    asyncio.run(memory.write(gone))
    assert asyncio.run(memory.search("Ann", 5)) == []
    assert asyncio.run(told(memory, "Oslo")).answer == "Ann lives in Oslo"
    dated = semantic()
    for time, value in (("2026-01-01", "Oslo"), ("2026-02-01", "Bergen"), ("2026-01-01", "Oslo")):
        asyncio.run(told(dated, value, time=time))
    assert len(asyncio.run(dated.list())) == 2, "Bergen goes on holding, whenever the earlier fact is told"
    for value in ("Oslo", "Bergen", "Oslo"):
        asyncio.run(told(dated, value, time="2026-03-01"))
    assert [item.text for item in asyncio.run(dated.search("Ann", 5))] == ["Ann lives in Oslo"], "of one time the last"


@pytest.mark.parametrize("values", [("Oslo", "Bergen", "Oslo"), ("Oslo", "Bergen", "Oslo Bergen Oslo")])
def test_an_attempt_that_is_resumed_tells_what_it_told_whatever_the_memory_holds_by_then(values: Sequence[str]) -> None:
    memory = semantic()
    for value in values[:-1]:
        asyncio.run(told(memory, value))
    journal = MemoryJournal()
    first = asyncio.run(told(memory, values[-1], journal=journal))
    asyncio.run(told(memory, "Rome"))
    again = asyncio.run(told(memory, values[-1], journal=journal))
    assert [call.detail for call in again.calls] == [call.detail for call in first.calls]
    assert all(call.replayed for call in again.calls)


def test_a_first_telling_is_resumed_as_the_first_though_it_was_replaced_by_then() -> None:
    memory, journal = semantic(), MemoryJournal()
    first = asyncio.run(told(memory, "Oslo", journal=journal))
    asyncio.run(told(memory, "Bergen"))
    again = asyncio.run(told(memory, "Oslo", journal=journal))
    assert [call.detail for call in again.calls] == [call.detail for call in first.calls]


def test_several_facts_at_once_are_told_again_each_by_itself() -> None:
    memory = semantic()

    async def tells(task: Task, ctx: Context) -> str:
        entries = [(f"{name} is {value}", {"subject": name, "attribute": "x", "value": value}) for name, value in facts]
        ids = await ctx.remember_all(entries)
        assert len({*ids}) == len(facts)
        return "done"

    facts: list[tuple[str, str]] = []
    for value in ("1", "2", "1"):
        facts[:] = [("Ann", value), ("Bob", "1")]
        asyncio.run(rollout(Agent("a", Scripted(str), tells, memory=memory), Task("s", "q")))
    assert sorted(item.text for item in asyncio.run(memory.search("", 9))) == ["Ann is 1", "Bob is 1"]
    assert len(asyncio.run(memory.list())) == 4


@pytest.mark.parametrize("where", ["file", "process"])
def test_a_fact_told_again_is_not_stored_twice_where_that_would_change_nothing(tmp_path: Path, where: str) -> None:
    memory = semantic(str(tmp_path / "m.db") if where == "file" else "")
    asyncio.run(told(memory, "Oslo"))
    for _ in range(3):
        asyncio.run(told(memory, "Rome", time="2999-01-01"))
    assert len(asyncio.run(memory.list())) == 2, "what is to come does not hold yet, and is known"
    for value in ("Bern", "Rome"):
        asyncio.run(told(memory, value, time="2999-01-01"))
    assert len(asyncio.run(memory.list())) == 4
    (later,) = asyncio.run(memory.search("Ann", 5, at="2999-02-01"))
    assert later.text == "Ann lives in Rome", "of plans of one time the last"
    withdrawn = semantic(str(tmp_path / "w.db") if where == "file" else "")
    for _ in range(3):
        asyncio.run(told(withdrawn, "Oslo", time="2026-01-01"))
        asyncio.run(told(withdrawn, "Oslo", withdrawn=True))
    assert len(asyncio.run(withdrawn.list())) == 2, "withdrawn after its time, and still so"


def test_a_withdrawal_is_told_again_where_what_it_withdraws_holds_again() -> None:
    memory = semantic()
    for number in (1, 2, 3):
        asyncio.run(told(memory, "Oslo"))
        assert len(asyncio.run(memory.search("Ann", 5))) == 1
        for _ in range(2):
            asyncio.run(told(memory, "Oslo", withdrawn=True))
            assert asyncio.run(memory.search("Ann", 5)) == []
            assert len(asyncio.run(memory.list())) == 2 * number
    asyncio.run(told(memory, "Bergen"))
    asyncio.run(told(memory, "Oslo", withdrawn=True))
    assert len(asyncio.run(memory.list())) == 7, "it withdraws nothing of Bergen"


def test_the_tellings_of_a_fact_are_counted_with_few_looks() -> None:
    memory, fact = (
        semantic(),
        MemoryItem.of("Ann lives in Oslo", {"subject": "Ann", "attribute": "home", "value": "Oslo"}),
    )
    looks: list[str] = []
    get = memory.get
    memory.get = lambda id: (looks.append(id), get(id))[1]  # type: ignore[method-assign]
    for number in range(1, 34):
        assert memory.tellings(fact) == number - 1
        asyncio.run(memory.write(fact.told_again(number)))
    looks.clear()
    assert memory.tellings(fact) == 33 and len(looks) <= 12


def test_a_telling_that_was_forgotten_is_told_again() -> None:
    memory = semantic()
    for value in ("Oslo", "Bergen", "Oslo"):
        asyncio.run(told(memory, value))
    held = asyncio.run(memory.search("Ann", 1))[0]
    asyncio.run(memory.forget(held.id))
    assert [item.text for item in asyncio.run(memory.search("Ann", 5))] == ["Ann lives in Bergen"]
    asyncio.run(told(memory, "Oslo"))
    assert [item.text for item in asyncio.run(memory.search("Ann", 5))] == ["Ann lives in Oslo"]


def test_a_journal_has_the_number_of_a_telling_only_where_it_is_not_the_first_and_none_told_is_no_error() -> None:
    memory, told_before = semantic(), 0
    for value, more in (("Oslo", 0), ("Bergen", 0), ("Oslo", 1)):
        journal = MemoryJournal()
        asyncio.run(told(memory, value, journal=journal))
        told_before += sum("tellings" in reply for reply in journal.entries.values())
        assert told_before == more

    async def tells(task: Task, ctx: Context) -> str:
        return f"told {await ctx.remember_all([])}"

    assert asyncio.run(rollout(Agent("a", Scripted(str), tells, memory=memory), Task("s", "q"))).answer == "told []"


def test_what_nothing_replaces_is_told_once() -> None:
    memory = episodic()
    for _ in range(3):
        asyncio.run(told(memory, "Oslo"))
    assert len(asyncio.run(memory.list())) == 1
