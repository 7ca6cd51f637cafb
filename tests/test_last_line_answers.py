"""Answers that are the last line of a text: what counts, what does not, and the runs that ask for it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark, with_last_line_answers
from firsthand.experiment.experiment import Experiment
from firsthand.experiment.on_cluster import build_worker
from firsthand.experiment.settings import RunSettings
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import question
from firsthand.patterns.parts.answers import answer_form, answer_or_text, extract_answer
from firsthand.providers.scripted import Scripted
from firsthand.task import Task

CITIES = Task("c", "Which?", choices=("Paris", "Rome", "Bern", "A"), last_line=True)
NUMBER = Task("n", "How many?", hint="a number", last_line=True)
TEXT = Task("t", "Who?", last_line=True)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("B", "B"), ("b", "B"), ("(B)", "B"), ("B.", "B"), ("**B**", "B"), ("Rome", "B"), ("B. Rome", "B"),
        ("B) Rome.", "B"),
        ("Answer: B", "B"), ("**Answer: B**", "B"), ("The answer is (B).", "B"), ("Final answer: **B**", "B"),
        ("#### B", "B"),
        ("Paris is no capital of Italy. So the answer is B.\n\n", "B"), ("$\\boxed{B}$", "B"), ("A\nThe answer is: C", "C"),
        ("Answer: B\nNo, it is C.", None), ("not B", None), ("B or C", None), ("B?", None), ("Answer: not B", None),
        ("It is not so that the answer is B", None), ("It is wrong: the answer is B", None), ("B. Paris", None), ("E", None),
        ("Answer: B, or C", None), ("Answer: B'", None), ("Answer: B (or so)", None), ("The answer is B because of A", None),
        ("A", None),  # the letter of Paris, and a choice itself
        ('"**B.**"', "B"), ("B. **Rome**", "B"),  # marks within marks, and around a choice's text
        ("A. Paris", "A"), ("D", "D"), ("rome", None), ("", None), ("\n \n", None), ("\ud800", None), ("Answer:", None),
    ],
)  # fmt: skip
def test_a_choice_is_the_last_line_or_none(text: str, answer: str | None) -> None:
    assert extract_answer(text, CITIES) == answer
    assert answer_or_text(text, CITIES) == (answer or "")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("18", "18"), ("-18", "-18"), ("−18", "-18"), ("$1,234.50", "$1,234.50"), ("3/4", "3/4"), (".5", ".5"),
        ("15%", "15%"),
        ("It is 3 + 4. The answer is 7.", "7"), ("#### 7", "7"), ("\\boxed{7}", "7"), ("**The answer is 7.**", "7"),
        ("7 apples", None), ("7 million", None), ("5 - 2", None), ("x = 7", None), ("7k", None), ("1,23", None),
        ("7\nor so", None),
        ("about 7", None), ("minus 7", None), ("7!", None), ("7^2", None), ("The answer is 7 or 8.", None),
        ("-", None), ("%", None),
        ("The answer was 7", None), ("٧", None), ("/7", None), ("7.", "7"),
        ("5/", None), ("$-5", None),
    ],
)  # fmt: skip
def test_a_number_stands_alone_on_the_last_line(text: str, answer: str | None) -> None:
    assert extract_answer(text, NUMBER) == answer


def test_other_texts_are_their_last_line_and_whole_outputs_stay_whole() -> None:
    assert extract_answer("He wrote it.\nThe answer is Ann Lee.", TEXT) == "Ann Lee"
    assert extract_answer("He wrote it.\nAnn Lee", TEXT) == "Ann Lee"
    assert extract_answer(" \n", TEXT) is None
    for mark in ("**", '"', "`"):  # around nothing it is the answer itself
        assert extract_answer(f"It has its own sign.\n{mark}", TEXT) == mark
    whole = Task("v", "?", verbatim=True, last_line=True)
    assert answer_or_text("a\nb ", whole) == "a\nb "
    assert answer_form(whole) == "the answer" and "last line" in answer_form(NUMBER)


def test_the_prompt_asks_for_the_last_line_where_there_is_more_than_an_answer() -> None:
    assert question(CITIES).endswith("Answer with the letter of the right choice only.")
    assert answer_form(CITIES) == "the letter of the right choice, on a last line of its own"
    assert answer_form(TEXT, "") == ""


def test_long_lines_are_read_in_linear_time() -> None:
    before = time.process_time()
    for line in (
        "." * 19_000,
        "answer " * 2_800,
        ". so the answer " * 1_200,
        "\\boxed{" * 2_800,
        "*" * 19_000,
        "1," * 9_000,
    ):
        for task in (CITIES, NUMBER, TEXT):
            extract_answer(f"x\n{line}", task)
    assert time.process_time() - before < 5


def test_a_run_reads_the_last_line_alone_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    settings = RunSettings(benchmarks=("arithmetic",), pattern=("cot",), limit=3, answers="last_line")
    (benchmark,) = settings.made_benchmarks()
    gold = [task.secret["answer"] for task in benchmark.tasks(0)[:3]]
    texts = [f"The answer is {gold[0]}.", f"The answer is {gold[1]}, I think.", f"{gold[2]}\nor another"]
    prompts: list[str] = []

    def reply(messages: Any, sampling: Any, index: int) -> str:
        prompts.append(messages[-1].text)
        at = next(at for at, task in enumerate(benchmark.tasks(0)) if task.prompt in messages[-1].text)
        return texts[at]

    agent = Agent("cot", Scripted(reply), cot)
    for chosen, right in ((benchmark, [1, 0, 0]), (catalog.benchmark("arithmetic"), [1, 1, 1])):
        with Experiment([agent], [chosen], limit=3).run() as run:
            traces = {trace.task_id: trace for trace in run.traces()}
            assert [traces[task.id].scores[0].value for task in benchmark.tasks(0)[:3]] == right
    assert "on a last line of its own" in prompts[0] and "on a last line" not in prompts[-1]
    assert benchmark.protocol.endswith("; an answer is read from the last line alone")
    assert RunSettings(benchmarks=("arithmetic",)).made_benchmarks()[0].protocol in benchmark.protocol
    assert "--answers last_line" in settings.command()


def test_every_task_that_is_read_says_so_and_survives_its_storing() -> None:
    tasks = (Task("a", "?"), Task("b", "?", verbatim=True), Task("c", "?", calls=True), replace(CITIES, context="x"))
    read = with_last_line_answers(Benchmark("b", lambda seed: tasks, ())).tasks(0)
    assert [task.last_line for task in read] == [True, False, False, True]
    assert Task.from_json(read[0].to_json()) == read[0] and "last_line" not in tasks[0].to_json()


def test_workers_of_a_cluster_read_as_the_run_does() -> None:
    settings = RunSettings(benchmarks=("arithmetic",), model=("scripted:echo",), answers="last_line")
    worker = build_worker(settings.to_json())
    assert all(each.tasks(0)[0].last_line for each in worker.benchmarks.values())
