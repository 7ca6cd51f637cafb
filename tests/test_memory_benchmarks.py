"""Benchmarks of memory: published tasks, generated sessions, the layouts of LongMemEval and LoCoMo, and the command."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.locomo import locomo
from firsthand.benchmarks.longmemeval import longmemeval
from firsthand.benchmarks.nested_kv import nested_kv, no_paging_accuracy, search_page
from firsthand.benchmarks.sessions import ATTRIBUTES, SessionSettings, day_of, held_at, make_history, sessions
from firsthand.benchmarks.sources.chat_histories import iso_time
from firsthand.cli import main
from firsthand.errors import ConfigError, DataError
from firsthand.memories.semantic import day_in, semantic
from firsthand.message import Message, ToolCall, ToolResult, assistant
from firsthand.model import Sampling
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.providers.session_player import UNKNOWN, answer_to, facts_seen
from firsthand.rollout import rollout
from firsthand.scorers.held_value import held_value
from firsthand.scorers.locomo_f1 import locomo_f1, parts_f1, stemmed_f1
from firsthand.task import Task
from firsthand.trace import Trace


def mean(benchmark: Benchmark, agent: Agent, tasks: Sequence[Task]) -> float:
    """The mean of the first score."""

    async def each() -> list[Trace]:
        return [await rollout(agent, task, benchmark=benchmark) for task in tasks]

    traces = asyncio.run(each())
    assert all(trace.error is None for trace in traces), [trace.error for trace in traces if trace.error][:1]
    return sum(trace.scores[0].value for trace in traces) / len(traces)


# -- nested key-value --

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
PAIR = re.compile(r"key = ([0-9a-f-]{36}), value = ([0-9a-f-]{36})")


def looks_up(messages: Sequence[Message], sampling: Sampling, index: int) -> Any:
    """Search the key, then each value, until a value is no key."""
    asked = UUID.findall(next(m.text for m in messages if m.role == "user"))[-1]
    calls = [call for message in messages for call in message.tool_calls]
    if not calls:
        return assistant("", ToolCall("0", "archival_memory_search", {"query": asked}))
    wanted = calls[-1].arguments["query"]
    (result,) = messages[-1].parts
    assert isinstance(result, ToolResult)
    values = [value for key, value in PAIR.findall(result.content) if key == wanted]
    if values:
        return assistant("", ToolCall(str(len(calls)), "archival_memory_search", {"query": values[0]}))
    return f"The answer is {wanted}"


async def calls_natively(task: Task, ctx: Any) -> str:
    return await react(task, ctx, max_steps=10, native=True)


@pytest.mark.parametrize("hops", range(7))
def test_a_scripted_caller_is_flat_at_every_number_of_hops(hops: int) -> None:
    benchmark = nested_kv(hops=str(hops), examples=3)
    agent = Agent("a", Scripted(looks_up), calls_natively)
    tasks = benchmark.tasks(0)
    assert mean(benchmark, agent, tasks) == 1.0
    for task in tasks:
        pairs, key, steps = task.metadata["pairs"], UUID.findall(task.prompt)[-1], 0
        while key in pairs:
            key, steps = pairs[key], steps + 1
        assert (key, steps) == (task.secret["answer"], hops + 1) and len(pairs) == 140


def test_without_paging_a_perfect_reader_has_the_accuracy_of_the_closed_form() -> None:
    for keys, shown, hops in itertools.product((5, 6), (0, 2, 3, 5), (0, 1, 2)):
        every = list(itertools.combinations(range(keys), shown))
        share = sum(set(range(hops + 1)) <= set(chosen) for chosen in every) / len(every)
        assert no_paging_accuracy(keys, shown, hops) == pytest.approx(share)
    for hops in (0, 1, 3):
        tasks = nested_kv(hops=str(hops), paging=False, shown=30, keys=40, examples=120).tasks(1)
        right = 0
        for task in tasks:
            pairs, key = (
                dict(re.findall(r'"([0-9a-f-]{36})": "([0-9a-f-]{36})"', task.prompt)),
                UUID.findall(task.prompt)[-1],
            )
            assert len(pairs) == 30
            while key in pairs:
                key = pairs[key]
            right += key == task.secret["answer"]
        chance = no_paging_accuracy(40, 30, hops)
        assert abs(right / 120 - chance) < 3 * math.sqrt(chance * (1 - chance) / 120)


def test_the_search_gives_pages_of_ten_as_the_authors_tool_does() -> None:
    pairs = {f"k{n}": f"v{n}" for n in range(12)}
    assert search_page(pairs, "K", 1).startswith(
        'Showing 2 of 12 results (page 1/1): ["memory: Key-value pair: key = k10'
    )
    assert (
        search_page(pairs, "k3", 0)
        == 'Showing 1 of 1 results (page 0/0): ["memory: Key-value pair: key = k3, value = v3"]'
    )
    assert search_page(pairs, "zz", 0) == search_page(pairs, "k", 2) == "No results found."


def test_the_authors_pairs_and_orderings_are_read_from_a_folder(tmp_path: Path) -> None:
    rows = {
        "ordered_kv_records": [[f"{n:08d}-{'a' * 27}", f"{n:08d}-{'b' * 27}"] for n in range(140)],
        "key": "",
        "value": "",
    }
    (tmp_path / "kv-retrieval-140_keys.jsonl").write_text(json.dumps(rows) + "\n")
    with pytest.raises(DataError, match="has no random_orderings_100_samples_140_indices_1_levels"):
        nested_kv(hops="1", data=str(tmp_path))
    ordering = tmp_path / "random_orderings_100_samples_140_indices_1_levels.jsonl"
    ordering.write_text("[3, 200]\n")
    with pytest.raises(DataError, match="line 1: a list of indices below 140"):
        nested_kv(hops="1", data=str(tmp_path))
    ordering.write_text("[3, 17]\n[5, 6]\n")
    first, second = nested_kv(hops="1", data=str(tmp_path), examples=2).tasks(0)
    assert first.secret["answer"].startswith("00000017-b") and second.secret["answer"].startswith("00000006-b")
    assert "00000003-" + "a" * 27 in first.prompt


@pytest.mark.parametrize("text", ["hops=7", "hops=3-1", "hops=x", "keys=3", "shown=5", "paging=false:shown=999"])
def test_settings_of_nested_kv_that_cannot_work_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"hops|keys|shown"):
        catalog.benchmark(f"nested_kv:{text}")


# -- sessions --


def test_sessions_are_the_same_for_a_seed_and_the_answers_are_those_of_the_lines() -> None:
    settings = SessionSettings(12, 4, 3, 4)
    history = make_history(settings, 5)
    assert history == make_history.__wrapped__(settings, 5) != make_history.__wrapped__(settings, 6)
    held: dict[tuple[str, str], str | None] = {}
    changes = withdrawals = 0
    for number, session in enumerate(history.sessions):
        assert session["time"] == day_of(number) and len(session["messages"]) == 7
        for message in session["messages"]:
            for seen in facts_seen(f"{session['time']} {message['content']}"):
                key = seen.subject, seen.attribute
                assert not seen.withdrawn or held[key] == seen.value, "only what holds is withdrawn"
                withdrawals += seen.withdrawn
                changes += not seen.withdrawn and bool(held.get(key))
                held[key] = None if seen.withdrawn else seen.value
        for (name, attribute), value in held.items():
            assert held_at(history, name, attribute, number) == value
    assert changes > 0 and withdrawals > 0 and {attribute for _, attribute in held} <= set(ATTRIBUTES)


def player(how: str, memory: str | None = None) -> Agent:
    pattern, options = catalog.pattern(f"attend:how={how}")
    return Agent(
        "a", catalog.model("sim:sessions"), pattern, options, memory=catalog.memory(memory) if memory else None
    )


SMALL = sessions(sessions=10, questions=8)


def test_the_scripted_player_is_right_wherever_it_sees_everything_and_only_there() -> None:
    tasks = SMALL.tasks(0)
    asks = [task.metadata["asks"] for task in tasks]
    assert sum(each.startswith("then") for each in asks) == 4
    assert mean(SMALL, player("say"), tasks) == 1.0
    assert mean(SMALL, player("none"), tasks) == sum("unknown" in each for each in asks) / 8


def test_facts_answer_now_and_then_from_a_prompt_that_does_not_grow() -> None:
    tasks = SMALL.tasks(1)[:2]
    assert mean(SMALL, player("auto", "semantic:extract=true:constrained=false"), tasks) == 1.0


@pytest.mark.slow
def test_paging_answers_what_a_window_of_the_same_size_has_lost() -> None:
    benchmark = sessions(sessions=20, questions=10)
    tasks = benchmark.tasks(0)
    paged = mean(benchmark, player("auto", "memgpt:window=600:summary=60:block_chars=300"), tasks)
    window = mean(benchmark, player("say:window=600"), tasks)
    assert paged == 1.0 > window


def test_an_answer_that_lists_every_value_is_wrong() -> None:
    task = Task("t", "?", secret={"answer": "Oslo", "wrong": ["Rome"]})

    def value(answer: str) -> float:
        trace = asyncio.run(rollout(Agent("a", Scripted([answer]), says), task))
        return held_value(task, trace).value

    async def says(task: Task, ctx: Any) -> str:
        return str((await ctx.say("?").generate()).text)

    assert [value(text) for text in ("It is Oslo.", "Oslo or Rome", "Rome", "Oslos", "")] == [1, 0, 0, 0, 0]


def test_the_players_facts_follow_their_dates() -> None:
    text = "[2026-01-05]\nThe car of Anna Abel is Fiat.\n[2026-01-08]\nThe car of Anna Abel is no longer Fiat."
    seen = facts_seen(text)
    assert [answer_to(f"What is the car of Anna Abel{when}?", seen) for when in ("", " on 2026-01-07")] == [
        UNKNOWN,
        "Fiat",
    ]
    assert answer_to("What is the car of Anna Abel on 2026-01-04?", seen) == UNKNOWN and answer_to("Why?", seen) is None
    assert (day_in("on 2026-02-30 or 2026-12-31"), day_in("no day")) == ("2026-12-31", None)


@pytest.mark.parametrize("text", ["sessions=0", "facts=0", "people=13", "questions=0", "then=101"])
def test_settings_of_sessions_that_cannot_work_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="give"):
        catalog.benchmark(f"sessions:{text}")


def test_a_run_with_a_memory_file_leaves_its_facts_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    path = tmp_path / "facts.db"
    words = ["run", "sessions:sessions=2:questions=1", "--model", "sim:sessions", "--pattern", "attend"]
    assert main([*words, "--memory", f"semantic:{path}:extract=true:constrained=false"]) == 0
    facts = [item for item in asyncio.run(semantic(str(path)).list()) if not item.provenance.get("hidden")]
    assert (
        len(facts) == 8 and {"subject", "attribute", "value", "messages", "time", "task"} <= facts[0].provenance.keys()
    )


# -- LongMemEval and LoCoMo --


def longmemeval_record(**changes: Any) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": "I moved to Oslo.", "has_answer": True},
        {"role": "assistant", "content": "Nice."},
    ]
    return {
        "question_id": "q1", "question_type": "single-session-user", "question": "Where do I live?", "answer": "Oslo",
        "question_date": "2023/05/30 (Tue) 02:21", "haystack_session_ids": ["s2", "s1"],
        "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/10 (Wed) 10:00"],
        "haystack_sessions": [turns, [{"role": "user", "content": "I like tea."}]], "answer_session_ids": ["s2"], **changes,
    }  # fmt: skip


def write(path: Path, body: Any) -> str:
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    return str(path.parent)


def test_longmemeval_is_read_and_its_evidence_is_looked_for(tmp_path: Path) -> None:
    abstain = longmemeval_record(question_id="q2_abs", answer="not said", answer_session_ids=["s1"])
    folder = write(tmp_path / "longmemeval_s.json", [longmemeval_record(), abstain])
    benchmark = longmemeval(data=folder)
    first, second = benchmark.tasks(0)
    assert [each["id"] for each in first.metadata["sessions"]] == ["s1", "s2"], "by time"
    assert first.prompt == "(Asked on 2023-05-30.) Where do I live?" and second.secret["evidence"] == []
    model = Scripted(lambda messages, *_: "Oslo" if "moved to Oslo" in messages[0].text else "unknown")
    pattern, _ = catalog.pattern("attend")
    agent = Agent("a", model, pattern, memory=catalog.memory("semantic:shown=1"))
    trace = asyncio.run(rollout(agent, first, benchmark=benchmark))
    scores = {score.name: score.value for score in trace.scores}
    assert set(scores) == {"contains_words", "evidence_recall", "evidence_all"}
    none = asyncio.run(rollout(Agent("a", model, pattern, {"how": "none"}), first, benchmark=benchmark))
    assert [score.value for score in none.scores] == [0, 0, 0]


LOCOMO = {
    "sample_id": "conv-1",
    "conversation": {
        "speaker_a": "Ann", "speaker_b": "Bo",
        "session_2": [{"speaker": "Bo", "dia_id": "D2:1", "text": "I sold my car."}],
        "session_2_date_time": "8:30 am on 12 June, 2023",
        "session_1": [{"speaker": "Ann", "dia_id": "D1:1", "text": "Look!", "blip_caption": "a dog"}],
        "session_1_date_time": "1:56 pm on 8 May, 2023",
    },
    "qa": [
        {"question": "What did Bo sell?", "answer": "his car", "evidence": ["D2:1"], "category": 4},
        {"question": "Which dog?", "adversarial_answer": "a poodle", "evidence": ["D1:1"], "category": 5},
    ],
}  # fmt: skip


def test_locomo_is_read_with_its_speakers_dates_and_captions(tmp_path: Path) -> None:
    folder = write(tmp_path / "locomo10.json", [LOCOMO])
    first, second = locomo(data=folder).tasks(0)
    one, two = first.metadata["sessions"]
    assert one["time"] == "2023-05-08T13:56:00" and two["messages"][0] == {
        "role": "Bo",
        "content": "I sold my car.",
        "id": "D2:1",
    }
    assert (
        one["messages"][0]["content"] == "Look! [shares an image: a dog]" and second.metadata["type"] == "adversarial"
    )
    assert [task.id for task in locomo(data=folder, categories="4").tasks(0)] == ["conv-1-000"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "is not JSON"), ([], "a JSON list of objects"), ([3], "a JSON list of objects"),
        ([longmemeval_record(question=3)], "question 1: 'question' is 3, and str was expected"),
        ([longmemeval_record(haystack_dates=[])], "are not as many of each"),
        ([longmemeval_record(question_date="May")], "'May' is no date"),
    ],
)  # fmt: skip
def test_files_of_another_form_are_a_sentence(tmp_path: Path, body: Any, said: str) -> None:
    folder = write(tmp_path / "longmemeval_s.json", body)
    with pytest.raises(DataError, match=said):
        list(longmemeval(data=folder).tasks(0))
    with pytest.raises(DataError, match=r"neither locomo10.json"):
        locomo(data=str(tmp_path))
    with pytest.raises(ConfigError, match="categories is '6'"):
        locomo(data=folder, categories="6")


def test_times_of_both_files_are_read() -> None:
    assert iso_time("2023/05/20 (Sat) 02:21", "x") == "2023-05-20T02:21:00"
    assert iso_time("12:09 am on 13 September, 2023", "x") == "2023-09-13T00:09:00"


@pytest.mark.slow  # importing NLTK takes seconds
def test_locomos_f1_is_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nltk", reason="nltk is not installed")
    assert stemmed_f1("She was running and the dogs", "run dog") == pytest.approx(2 / 3)
    assert stemmed_f1("cat", "dog") == 0.0 and stemmed_f1("The Cat.", "cat") == 1.0
    assert parts_f1("Oslo, Rome", "Rome, Pisa") == pytest.approx(0.5)

    def value(answer: str, category: int, reference: str = "Oslo; because of work") -> float:
        async def says(task: Task, ctx: Any) -> str:
            return str((await ctx.say("?").generate()).text)

        task = Task("t", "?", secret={"answer": reference, "category": category})
        return locomo_f1(task, asyncio.run(rollout(Agent("a", Scripted([answer]), says), task))).value

    assert value("Oslo", 3) == 1.0 > value("Oslo", 4) > 0
    assert value("It is Not mentioned here", 5) == 1.0 and value("a poodle", 5) == 0.0
    assert value("Rome, Oslo", 1, "Oslo, Rome") == 1.0


# -- the command --


def test_items_are_listed_shown_exported_edited_and_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = str(tmp_path / "m.db"), tmp_path / "out.jsonl"
    rows = [
        {"kind": "semantic", "owner": "ann", "text": f"likes {tea}", "provenance": {"time": 5}}
        for tea in ("green", "black")
    ]
    out.write_text("\n".join(map(json.dumps, rows)))
    assert main(["memory", "import", path, str(out)]) == 0 and main(["memory", "import", path, str(out)]) == 0
    assert "imported 2 new items" in (said := capsys.readouterr().out) and "imported 0 new items" in said
    assert main(["memory", "list", path, "--json", "--query", "green"]) == 0
    listed = json.loads(capsys.readouterr().out)
    (item,) = listed["items"]
    assert (
        item["text"] == "likes green" and listed["scopes"][0]["items"] == 2 and item["valid"] == "1970-01-01T00:00:05Z"
    )
    assert main(["memory", "list", path]) == 0 and "likes black" in capsys.readouterr().out
    assert main(["memory", "show", path, item["id"]]) == 0 and json.loads(capsys.readouterr().out)["owner"] == "ann"
    assert main(["memory", "forget", path, item["id"]]) == 0 and "forgot 1 item" in capsys.readouterr().out
    assert main(["memory", "export", path, "--out", str(out)]) == 0
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == ["likes black"]
    told = tmp_path / "told.jsonl"
    told.write_text(json.dumps({"text": "Likes black."}) + "\n" + json.dumps({"text": "likes milk"}))
    capsys.readouterr()
    assert main(["memory", "junk", path, str(told), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "items": 1, "precision": 1.0, "recall": 0.5, "duplicates": 0.0, "self_fed": 0.0, "junk": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["lst", "x"], 2, "action is 'lst'"), (["list"], 2, "needs the file"), (["show", "m.db"], 2, "FILE ID"),
        (["list", "none.db"], 1, "no memory at"), (["import", "m.db", "none.jsonl"], 1, "cannot be read"),
        (["list", "m.db", "--limit", "0"], 2, "limit is 0"),
    ],
)  # fmt: skip
def test_wrong_words_are_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = main(["memory", *words])
    assert said in capsys.readouterr().err and found == code


def test_locomos_categories_have_rules_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stems = SimpleNamespace(stem=lambda word: word.rstrip("s"))
    monkeypatch.setattr("firsthand.scorers.locomo_f1.stemmer", lambda: stems)  # NLTK takes seconds to import
    for category, answer, reference_, value in (
        (5, "It is Not mentioned", "x", 1.0),
        (5, "no information available", "x", 1.0),
        (5, "x", "x", 0.0),
        (2, "the runs, and running", "running", 2 * 0.5 / 1.5),
        (3, "x; b", "x; b", 2 * 0.5 / 1.5),
        (4, "cats b", "cat", 2 * 0.5 / 1.5),
        (1, "red cars, blue", "blue, red car, x", 2 / 3),
        (2, "", "x", 0.0),
    ):
        found = locomo_f1(
            Task("t", "?", secret={"category": str(category), "answer": reference_}),
            Trace("1", "b", "t", {"name": "a"}, 0, 0, "", 0.0, answer=answer),
        )
        assert found.name == "locomo_f1" and found.value == pytest.approx(value), (category, answer)
    assert (
        stemmed_f1("x x y", "x z") == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
        and parts_f1("b", "b, c") == 0.5
    )


def test_locomos_categories_are_whole_numbers_however_they_are_written(tmp_path: Path) -> None:
    def of(*given: Any) -> str:
        return write(
            tmp_path / "locomo10.json", [{**LOCOMO, "qa": [{**LOCOMO["qa"][0], "category": c} for c in given]}]
        )

    tasks = locomo(data=of(4, 4.0, 1.0), categories="4").tasks(0)
    assert [task.id for task in tasks] == ["conv-1-000", "conv-1-001"] and tasks[1].secret["category"] == 4
    for wrong in (True, "4", 4.5, 0, 6, [4], None):
        with pytest.raises(DataError, match="sample 1, question 1: a category from 1 to 5 was expected"):
            locomo(data=of(wrong))
    with pytest.raises(DataError, match="sample 1, question 1: a category from 1 to 5 was expected"):
        locomo(data=write(tmp_path / "locomo10.json", [{**LOCOMO, "qa": ["a text"]}]))


def test_locomos_evidence_is_a_list_of_ids_and_joined_ones_are_parted(tmp_path: Path) -> None:
    def of(evidence: Any) -> Any:
        question = {**LOCOMO["qa"][0], "category": 4, "evidence": evidence}
        return (
            locomo(data=write(tmp_path / "locomo10.json", [{**LOCOMO, "qa": [question]}]))
            .tasks(0)[0]
            .secret["evidence"]
        )

    assert of(["D8:6; D9:17", "D1:1", "D2:1 D2:2"]) == ["D8:6", "D9:17", "D1:1", "D2:1", "D2:2"]
    assert of([]) == of(None) == []
    for wrong in ("D1:1", 5, {}, ["D1:1", 5], [["D1:1"]]):
        with pytest.raises(DataError, match=r"sample 1: 'evidence' is .*, and (list|a list of texts) was expected"):
            of(wrong)
