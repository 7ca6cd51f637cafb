"""Benchmarks with generators and packages behind them: options passed on, tasks, and scores near their functions."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark_rows import names, refused, written
from firsthand.benchmarks import lm_eval, lost_in_middle, miniwob, needles, reasoning_gym
from firsthand.benchmarks.long_context.lengths import Meter, meter
from firsthand.errors import ConfigError, DataError, SandboxError
from firsthand.loop.concurrency import derive_seed
from firsthand.sandbox.sandbox import Outcome
from firsthand.task import Task
from firsthand.trace import Score, Trace


def ended(answer: str | None = None, task: str = "t", **state: Any) -> Trace:
    return Trace("t", "b", task, {"name": "a"}, 0, 0, "", 0.0, answer=answer, final_state=state)


class Gym:
    """Stands for a data set of the package."""

    def score_answer(self, answer: str, entry: Any) -> float:
        return 0.25 if (answer, entry) == ("near", "entry 2") else 0.0

    def __getitem__(self, index: int) -> str:
        return f"entry {index}"


def test_an_answer_to_a_generated_problem_is_scored_here_or_in_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = {"answer": "right", "generator": "g", "size": 9, "seed": 4, "index": 2}
    task, asked, outcomes = Task("t", "p", secret=secret), [], []

    class Box:
        async def python(self, code: str, **given: Any) -> Outcome:
            asked.append((code, json.loads(given["stdin"]), given["limits"]))
            return outcomes.pop(0)

    monkeypatch.setattr(reasoning_gym, "_dataset", lambda *given: asked.append(given) or Gym())
    monkeypatch.setattr(reasoning_gym, "_sandbox", Box)
    here = {"g": True}
    monkeypatch.setattr(reasoning_gym, "compares_texts", lambda name: here[name])
    monkeypatch.setattr(reasoning_gym, "runs_code", lambda name: {"g": False}[name])

    def score(answer: str | None) -> Score:
        return asyncio.run(reasoning_gym.gym_score(task, ended(answer)))

    def told(how: Any, out: str, err: str = "") -> None:
        outcomes.append(Outcome(how, 0, out, err, 0.1, None, None, "bubblewrap"))

    assert score("right") == Score("score", 1.0) and asked == []
    assert score(None) == score("") == Score("score", 0.0, {"why": "the answer has 0 characters"})
    assert score("x" * 20_001) == Score("score", 0.0, {"why": "the answer has 20001 characters"})
    assert asked == [] and score("x" * 20_000) == Score("score", 0.0)
    assert score("near") == Score("score", 0.25) and asked == [("g", 9, 4)] * 2
    here["g"] = False
    asked.clear()
    for printed, value in (("noise\n0.5\n \n", 0.5), ("1.5", 1.0), ("-2", 0.0)):
        told("done", printed)
        assert score("near") == Score("score", value)
    given = {"name": "g", "size": 9, "seed": 4, "index": 2, "answer": "near"}
    assert asked == [(reasoning_gym._SCORING, given, reasoning_gym._LIMITS)] * 3
    for how in ("timeout", "memory", "output", "killed"):
        told(how, "1.0")
        assert score("near") == Score("score", 0.0, {"why": f"scoring the answer was stopped: {how}"})
    for printed in ("", "none"):
        for _ in range(2):  # the answer, and then the reference
            told("error", printed, "a" + "b" * 300 + "\n")
        said = f"reasoning-gym's scorer of g gave no number in the sandbox: {'b' * 300!r}"
        assert refused(SandboxError, score, "near") == said
    assert [each[1]["answer"] for each in asked[-2:]] == ["near", "right"] and outcomes == []
    told("error", "", "a" + "b" * 300)
    told("done", "1.0")
    assert score("near") == Score("score", 0.0, {"why": f"the scorer failed on this answer: {'b' * 300!r}"})


def test_a_generator_makes_its_problems_from_name_size_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def dataset(name: str, size: int, seed: int) -> Any:
        return [{"question": f"{name} {size} {seed} {at}?", "answer": at} for at in range(size)]

    monkeypatch.setattr(reasoning_gym, "_dataset", dataset)
    monkeypatch.setattr(reasoning_gym, "_generators", lambda: (["legs", "sums"], "1.2"))
    made = reasoning_gym.reasoning_gym(task="sums", tasks=3)
    assert made.tasks(8)[2] == Task(
        "sums-seed8-0002",
        "sums 3 8 2?",
        metadata={"generator": "sums"},
        secret={"answer": "2", "generator": "sums", "size": 3, "seed": 8, "index": 2},
    )
    assert len(made.tasks(8)) == 3 and names(made) == ("gym_score",)
    assert (made.name, made.options) == ("reasoning_gym:sums", {"task": "sums", "tasks": 3, "version": "1.2"})
    assert made.protocol == "reasoning-gym 1.2, sums, default settings, 3 problems; its own score"
    assert len(reasoning_gym.reasoning_gym(task="legs", tasks=10_000).tasks(0)) == 10_000
    for wrong in (0, 10_001):
        said = f"tasks is {wrong}: give a number from 1 to 10,000"
        assert refused(ConfigError, reasoning_gym.reasoning_gym, task="sums", tasks=wrong) == said


def test_needles_have_a_task_for_each_cell_the_longest_and_deepest_first() -> None:
    made = needles.needles(lengths="512,256", depths="50,0,100", samples=2, haystack="noise", count="words*2")
    tasks = made.tasks(3)
    assert [task.id for task in tasks[:7]] == [
        "needle-512-100-000", "needle-512-050-000", "needle-512-000-000",
        "needle-256-100-000", "needle-256-050-000", "needle-256-000-000", "needle-512-100-001",
    ]  # fmt: skip
    assert len(tasks) == 12
    unit = "estimated as words x 2"
    assert made.options == {
        "lengths": "512,256", "depths": "50,0,100", "samples": 2, "haystack": "noise", "count": unit,
    }  # fmt: skip
    chosen = needles.PROTOCOLS["chat"]
    assert made.protocol == (
        f"2 tasks per cell; depths 0, 50, 100 %; lengths 256, 512 in {unit}; haystack noise; {chosen.describe()}"
    )
    assert (made.name, names(made), made.licence) == ("needles", ("string_match_all",), "none needed: generated")
    by_id = {task.id: task for task in tasks}
    for task in tasks:
        value = task.secret["answers"][0]
        length, depth, number = (int(part) for part in task.id.split("-")[1:])
        sentence = next(each for each in task.prompt.split(".") if value in each).strip()
        key = sentence.removeprefix("The number of the locker in ").removesuffix(f" is {value}")
        assert task.prompt.count(f"What is the number of the locker in {key}?") == 1 and len(value) == 7
        tokens = meter("words*2").measure(task.prompt) + 32
        assert task.metadata == {"length": length, "depth": depth, "tokens": tokens, "cluster": f"haystack-{number}"}
        assert length - 70 < tokens <= length
    text = by_id["needle-512-000-001"].prompt
    assert (
        text.index("The number of the locker")
        < text.index("grass")
        < by_id["needle-512-100-001"].prompt.index("The number of")
    )
    assert (
        by_id["needle-256-050-000"].secret == by_id["needle-512-100-000"].secret != by_id["needle-512-100-001"].secret
    )
    assert needles.needles(lengths="512", samples=1, protocol="base").name == "needles@base"
    make = needles.needles
    for wrong in (0, 1_001):
        assert refused(ConfigError, make, samples=wrong) == f"samples is {wrong}: give 1 to 1,000 tasks per cell"
    assert refused(ConfigError, make, haystack="hay") == "haystack is 'hay': give one of world, noise, essays"
    said = "data is '/d', and the haystack world is generated: give haystack=essays with it"
    assert refused(ConfigError, make, data="/d") == said
    assert needles.parse_depths(" 100, 7,0,7") == (0, 7, 100)
    for depths in ("101", "", "1,", "-1", "1.5", "1000"):
        said = f"depths is {depths!r}: give percents from 0 to 100, such as 0,25,50,75,100"
        assert refused(ConfigError, needles.parse_depths, depths) == said


def test_a_needle_is_hidden_where_the_depth_rounds_to_and_must_fit() -> None:
    counted = Meter(lambda text: len(text.split()), "words")
    texts = needles.NeedleTexts(counted, "noise", None, 400, 5)
    hidden = texts.hidden(2)
    assert len(hidden.haystack) == 100 and hidden.key.endswith("wick") and hidden.key[0].isupper()
    texts.hidden = lambda number: needles.HiddenNeedle(tuple(f"s{at}." for at in range(9)), "Kawick", "1234567")  # type: ignore
    needle = "The number of the locker in Kawick is 1234567."
    for depth, at in ((0, 0), (10, 0), (13, 1), (50, 2), (88, 4), (100, 4)):
        parts = [f"s{place}." for place in range(4)]
        parts.insert(at, needle)
        fields, tokens = texts._measured(needles.NeedleCell(99, 0, depth), 4, "{context} {key}")
        assert fields == {"context": " ".join(parts), "key": "Kawick"} and tokens == 4 + 9 + 1 + 32
    assert texts._size(46, 0, "{context} {key}") == 4 and texts._size(45, 0, "{context} {key}") == 3
    assert texts._size(1000, 0, "{context} {key}") == 9  # all that there are
    said = "a needle with its question does not fit 42 tokens: it takes 43, the answer's included; give longer lengths"
    assert refused(ConfigError, texts._size, 42, 0, "{context} {key}") == said


def nq(question: str, gold: int, count: int = 3) -> dict[str, Any]:
    found = [{"title": f"{question}{at}", "text": f"text {at}", "isgold": at == gold} for at in range(count)]
    return {"question": question, "answers": [f"{question}!"], "ctxs": found}


def test_the_gold_document_stands_at_each_position_also_where_its_file_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "3_total_documents"
    rows = [nq("a", 1), nq("b", 1), nq("c", 1)]
    at_1 = written(folder / "nq-open-3_total_documents_gold_at_1.jsonl", *rows)
    at_2 = written(folder / "nq-open-3_total_documents_gold_at_2.jsonl", nq("a", 2), nq("b", 2))
    given: dict[str, Any] = {"documents": 3, "data": str(tmp_path)}
    made = lost_in_middle.lost_in_middle(positions="2,0", questions=3, **given)
    assert [task.id for task in made.tasks(0)] == [
        "nq-0000-at-02", "nq-0000-at-00", "nq-0001-at-02", "nq-0001-at-00", "nq-0002-at-00",
    ]  # fmt: skip
    task = made.tasks(0)[1]
    documents = "Document [1](Title: a1) text 1\nDocument [2](Title: a0) text 0\nDocument [3](Title: a2) text 2"
    prompt = f"{lost_in_middle.ASK}\n\n{documents}\n\nQuestion: a\nAnswer:"
    assert task.prompt == task.context == prompt and task.secret == {"answers": ["a!"]}
    assert task.metadata == {"position": 0, "documents": 3, "cluster": "nq-0000"}
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (at_1, at_2)]
    assert made.options["sha256"] == hashlib.sha256("".join(digests).encode()).hexdigest()
    assert str(made.options["data"]).startswith("3 documents, gold at 0, 2; ")
    assert len(lost_in_middle.lost_in_middle(positions="1", questions=2, **given).tasks(0)) == 2
    assert len(lost_in_middle.lost_in_middle(positions="1", **given).tasks(0)) == 3
    written(tmp_path / "qa_data" / "nq-open-oracle.jsonl", nq("d", 9, 1))
    oracle = lost_in_middle.lost_in_middle(protocol="oracle", documents=7, positions="x", data=str(tmp_path))
    (task,) = oracle.tasks(0)
    assert task.id == "nq-0000-at-00" and task.metadata["documents"] == 1
    assert str(oracle.options["data"]).startswith("1 document; the authors' file")
    closed = lost_in_middle.lost_in_middle(protocol="closedbook-chat", data=str(tmp_path))
    assert closed.tasks(0)[0].prompt == "Question: d\nAnswer:" and str(closed.options["data"]).startswith(
        "no documents; "
    )
    make = lost_in_middle.lost_in_middle
    assert (
        refused(ConfigError, make, positions="1", questions=-1, **given)
        == "questions is -1: give 1 to 2,655, or 0 for all"
    )
    said = "The oracle file is there, so lost_in_middle@oracle and @closedbook can run."
    assert refused(DataError, make, documents=4, positions="1", data=str(tmp_path)).endswith(f" {said}")
    assert said not in refused(DataError, make, documents=4, positions="1", data=str(folder))
    parse = lost_in_middle.parse_positions
    assert (parse("", 10), parse("5,0,5", 6), parse("9", 10)) == ((0, 4, 9), (0, 5), (9,))
    for text, count in (("6", 6), ("", 7), ("1,", 9), ("-1", 9)):
        end = f"give positions from 0 to {count - 1}, such as 0,4,9"
        assert refused(ConfigError, parse, text, count) == f"positions is {text!r} with {count} documents: {end}"


def test_miniwob_takes_turns_of_its_kinds_and_passes_its_options_on(tmp_path: Path) -> None:
    for name in ("core/core.js", "miniwob/b-kind.html", "miniwob/a-kind.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    made = miniwob.miniwob(kind="a-kind", tasks=2, rounds=1, seconds=2.5, actions="native", data=str(tmp_path))
    assert made.tasks(4)[1] == Task(
        "seed4-a-kind-0001",
        miniwob.INSTRUCTIONS,
        metadata={"kind": "a-kind", "stratum": "a-kind"},
        secret={"seed": derive_seed("miniwob", 4, "a-kind", 1) % 2**31},
    )
    assert made.options == {"kind": "a-kind", "tasks": 2, "rounds": 1, "seconds": 2.5, "actions": "native"}
    said = "1 type of task; 1 round, 2.5 s; elements by number in place of pixels; native actions"
    assert made.protocol == f"MiniWoB++'s pages, {said}" and len(made.tasks(0)) == 2
    assert made.environment is not None
    environment: Any = made.environment(made.tasks(4)[1])
    seed = made.tasks(4)[1].secret["seed"]
    assert environment.world.visit.args == (tmp_path, "a-kind", seed, 2.5)
    assert (environment.limit, environment.actions) == (1, "native")
    all_kinds = miniwob.miniwob(data=str(tmp_path))
    kinds = [task.metadata["kind"] for task in all_kinds.tasks(0)]
    assert kinds == list(miniwob.SCRIPTED) * 3 and "; 15 rounds, 600 s;" in all_kinds.protocol
    said = f"kind is 'a-knd': did you mean a-kind? 2 types are in {tmp_path}"
    assert refused(ConfigError, miniwob.miniwob, kind="a-knd", data=str(tmp_path)) == said
    for tasks, seconds in ((0, 1), (10_001, 1), (1, 0), (1, 86_401)):
        said = f"tasks is {tasks} and seconds {seconds}: give 1 to 10,000 tasks and at most 86,400 seconds"
        assert refused(ConfigError, miniwob.miniwob, tasks=tasks, seconds=seconds, data=str(tmp_path)) == said
    assert len(miniwob.miniwob(tasks=10_000, seconds=86_400, data=str(tmp_path)).tasks(0)) == 10_000
    task = made.tasks(4)[0]
    won = ended(result={"raw_reward": 1, "reward": 0.6, "task": "Click"})
    success, reward = miniwob.miniwob_success(task, won), miniwob.miniwob_reward(task, won)
    assert (success.value, success.detail["kind"], success.detail["task"]) == (1.0, "a-kind", "Click")
    assert reward == Score("reward", 0.6, {"raw_reward": 1})
    half = ended(result={"raw_reward": 0.5, "reward": -1})
    assert (miniwob.miniwob_success(task, half).value, miniwob.miniwob_reward(task, half).value) == (0.0, -1.0)
    assert miniwob.miniwob_reward(task, ended()) == Score("reward", 0.0, {"raw_reward": 0.0})


class HarnessTask:
    def __init__(self) -> None:
        self.built: list[dict[str, Any]] = []

    def build_all_requests(self, **given: Any) -> None:
        self.built.append(given)


def test_the_harness_is_asked_with_every_option_and_the_name_tells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, prepared, loaded = {"one": HarnessTask(), "two": HarnessTask()}, [], []

    def entries(name: str, each: Any, *, of_several: bool) -> Iterator[Any]:
        yield SimpleNamespace(ours=Task(f"{name}-0000", "p"), of=(each, of_several))

    monkeypatch.setattr(lm_eval, "_loaded", lambda *given: loaded.append(given) or (tasks, {"g": 1}))
    monkeypatch.setattr(lm_eval, "prepare", lambda *given: prepared.append(given))
    monkeypatch.setattr(lm_eval, "entries_of", entries)
    monkeypatch.setattr(lm_eval, "protocol_text", lambda *given: repr(given[1:]))
    monkeypatch.setattr(lm_eval, "scores_of", lambda entry, trace: (entry.ours.id, trace))
    monkeypatch.setattr(lm_eval, "figures_of", lambda *given: given)
    plain = lm_eval.lm_eval(task="x/caps.yaml")
    assert (plain.name, plain.protocol) == ("lm_eval:caps", "(1234, False, False, '')")
    assert plain.options == {"task": "x/caps.yaml", "limit": None, "seed": 1234}
    assert plain.description == "x/caps.yaml, as lm-evaluation-harness has it."
    assert loaded == [("x/caps.yaml", "", False, "")] and [each[2:] for each in prepared] == [(None, 1234)] * 2
    unset = {"limit": None, "system_instruction": None, "apply_chat_template": False, "fewshot_as_multiturn": False}
    assert tasks["one"].built == tasks["two"].built == [{**unset, "chat_template": None}]
    prepared.clear()
    more: dict[str, Any] = {"apply_chat_template": True, "fewshot_as_multiturn": True, "system_instruction": "é"}
    made = lm_eval.lm_eval(task="arc.v2", num_fewshot=0, limit=1, seed=7, include="i", trust=True, **more)
    digest = hashlib.sha256("é".encode()).hexdigest()[:6]
    assert made.name == f"lm_eval:arc.v2:num_fewshot=0:seed=7:chat:multiturn:system={digest}"
    assert made.protocol == "(7, True, True, 'é')" and loaded[1] == ("arc.v2", "i", True, "")
    assert prepared == [("one", tasks["one"], 0, 7), ("two", tasks["two"], 0, 7)]
    assert tasks["two"].built[1] == {"limit": 1, **more, "chat_template": lm_eval.as_marker}
    assert made.options == {"task": "arc.v2", "limit": 1, "seed": 7}
    assert [task.id for task in made.tasks(0)] == ["one-0000", "two-0000"]
    (scorer,) = made.scorers
    trace = ended("a", "two-0000")
    assert scorer(made.tasks(0)[1], trace) == ("two-0000", trace)
    said = "z is not a document of this task: give the limit that the run was made with"
    assert refused(DataError, scorer, Task("z", "p"), trace) == said
    assert made.figures is not None
    found: Any = made.figures([trace])
    assert list(found[0]) == ["one-0000", "two-0000"] and found[1:] == ({"g": 1}, [trace])
    assert found[0]["one-0000"].of == (tasks["one"], True)

    def broken(entry: Any, trace: Trace) -> Any:
        raise ValueError("odd")

    monkeypatch.setattr(lm_eval, "scores_of", broken)
    monkeypatch.setattr(lm_eval, "failed", lambda entry, error: (entry.ours.id, str(error)))
    assert scorer(made.tasks(0)[0], trace) == ("one-0000", "odd")
    assert refused(ConfigError, lm_eval.lm_eval, task="t", limit=0) == "limit is 0: give 1 or more"
    assert refused(ConfigError, lm_eval.lm_eval).startswith("lm_eval was given no task: write lm_eval:task=arc_easy")
    said = "fewshot_as_multiturn needs apply_chat_template: there are no turns without a template"
    assert refused(ConfigError, lm_eval.lm_eval, task="t", fewshot_as_multiturn=True) == said


def test_tasks_of_the_harness_are_loaded_from_the_cache_alone_where_the_hub_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        asked.append("alone")
        yield

    def load(*given: Any) -> Any:
        asked.append(given)
        return {"t": 1}, {}

    monkeypatch.setattr(lm_eval, "libraries_offline", alone)
    monkeypatch.setattr(lm_eval, "load_tasks", load)
    here = ("t", "i", True, "d")
    for offline, reached in ((False, True), (True, True), (False, False), (True, False)):
        monkeypatch.setattr(lm_eval, "is_offline", lambda offline=offline: offline)
        monkeypatch.setattr(lm_eval, "reaches_hub", lambda reached=reached: reached)
        assert lm_eval._loaded(*here) == ({"t": 1}, {})
        assert asked == ([here] if reached and not offline else ["alone", here])
        asked.clear()

    def fail(cause: Exception) -> Any:
        def failing(*given: Any) -> Any:
            raise DataError("no data") from cause

        monkeypatch.setattr(lm_eval, "load_tasks", failing)
        return refused(DataError, lm_eval._loaded, "t", "", False, "")

    assert fail(ConnectionError("x" * 201)) == (
        "the data of 't' is not in the cache of `datasets`, and the Hugging Face hub cannot be reached from here: load it "
        f"once where it can be reached ({'x' * 200})"
    )
    assert fail(ValueError("x")) == "no data"
    monkeypatch.setattr(lm_eval, "is_offline", lambda: False)
    monkeypatch.setattr(lm_eval, "reaches_hub", lambda: True)
    assert fail(ConnectionError("x")) == "no data"
