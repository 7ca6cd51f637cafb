"""The Studio's typed filters: what they say, what they refuse, and that the lists find what they ask for."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firsthand.errors import ConfigError, FirsthandError
from firsthand.runs import store
from firsthand.runs.index import RunInfo
from firsthand.runs.run_folder import Run
from firsthand.runs.score_totals import ScoreMean
from firsthand.studio.attempt_query import FIELDS, FLAGS, AttemptQuery
from firsthand.studio.run_list import earlier_run, run_page
from firsthand.studio.typed_filter import Term, holds, parse_filter
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace


def terms(text: str) -> tuple[Term, ...]:
    return parse_filter(text, FIELDS, FLAGS)


def test_terms_have_field_operator_and_value() -> None:
    assert terms('score<0.5 has:error agent="self consistency" -task:t1 word') == (
        Term("score", "<", "0.5"), Term("has", ":", "error"), Term("agent", "=", "self consistency"),
        Term("task", ":", "t1", is_negated=True), Term("", ":", "word"),
    )  # fmt: skip
    assert terms("score.exact>=1") == (Term("score.exact", ">=", "1"),)
    assert terms('">"') == (Term("", ":", ">"),)
    assert terms('"two words"') == (Term("", ":", "two words"),)
    assert terms("  ") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("scor<1", "did you mean 'score'"),
        ("score<high", "not a number"),
        ("score<nan", "not a number"),
        ("has:wings", "has takes error"),
        ("has<error", "has takes error"),
        ("agent<cot", "agent is text"),
        ("agent:", "without a value"),
        ("-", "nothing behind"),
        ("score >", "'>' with no field before it"),
        ("score > 0.5", "'>' with no field before it"),
        ("score =1", "'=1' with no field before it"),
        ('"open', "is not understood"),
        ("a" * 2001, "2,001 characters"),
        (" ".join(["a"] * 41), "more than 40 terms"),
        ("nosuch:1", "is no field"),
    ],
)
def test_what_is_not_understood_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        terms(text)


@given(st.text(max_size=60))
def test_any_text_is_terms_or_one_error(text: str) -> None:
    try:
        found = terms(text)
    except ConfigError as error:
        assert "\n" not in str(error) or "\n" in text
    else:
        assert all(isinstance(each, Term) for each in found)


def test_numbers_are_compared_at_the_bound_and_none_fulfils_nothing() -> None:
    cases: dict[str, tuple[bool, bool, bool]] = {
        "<": (True, False, False), "<=": (True, True, False), ":": (False, True, False), "=": (False, True, False),
        ">=": (False, True, True), ">": (False, False, True),
    }  # fmt: skip
    for operator, expected in cases.items():
        term = Term("score", operator, "2")  # type: ignore[arg-type]
        assert tuple(holds(term, value) for value in (1, 2, 3)) == expected
        negated = Term("score", operator, "2", is_negated=True)  # type: ignore[arg-type]
        assert tuple(holds(negated, value) for value in (1, 2, 3)) == tuple(not each for each in expected)
        assert not holds(term, None) and not holds(negated, None)


# -- runs --


def info(id: str, **values: Any) -> RunInfo:
    return RunInfo(id, Path(id), created_at=id, status="done", **values)


RUNS = [
    info("r1", config={"model": "llama", "benchmarks": ["gsm8k"]}, tokens=10, scores=(ScoreMean("gsm8k", "cot", 0.25, 4),)),
    info("r3", config={"model": "qwen", "benchmarks": ["gsm8k", "mmlu"]}, tokens=30, num_errors=2,
         scores=(ScoreMean("gsm8k", "cot", 0.75, 4), ScoreMean("mmlu", "cot", 0.1, 4))),
    info("r2", config={"model": "qwen", "benchmarks": []}, num_steps=7),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", ["r3", "r2", "r1"]),
        ("model:qwen", ["r3", "r2"]),
        ("model=qwe", []),
        ("-model:qwen", ["r1"]),
        ("benchmark:mmlu", ["r3"]),
        ("score>0.5", ["r3"]),
        ("score<0.5", ["r1"]),
        ("has:error", ["r3"]),
        ("-has:error", ["r2", "r1"]),
        ("has:curves", ["r2"]),
        ("GSM8K", ["r3", "r1"]),
        ("tokens>=10 -gsm8k", []),
    ],
)
def test_runs_are_filtered_and_the_newest_comes_first(text: str, ids: list[str]) -> None:
    assert [each.id for each in run_page(RUNS, text).rows] == ids


def test_the_run_before_is_the_last_one_of_a_benchmark_and_an_agent_in_common() -> None:
    def made(id: str, *pairs: tuple[str, str]) -> RunInfo:
        return info(id, scores=tuple(ScoreMean(benchmark, agent, 0.5, 1) for benchmark, agent in pairs))

    first, second = made("r1", ("quiz", "cot")), made("r2", ("quiz", "cot"), ("sums", "react"))
    others = [made("r3", ("quiz", "direct")), made("r4", ("sums", "cot")), made("r6", ("quiz", "cot"))]
    assert earlier_run(made("r5", ("quiz", "cot")), [second, *others, first]) == second
    assert earlier_run(second, [second, *others, first]) == first
    assert earlier_run(first, [second, *others, first]) is None
    assert earlier_run(made("r5"), [second, *others, first]) is None


def test_runs_are_sorted_and_paged_and_those_without_a_value_come_last() -> None:
    assert [each.id for each in run_page(RUNS, sort="score").rows] == ["r1", "r3", "r2"]
    assert [each.id for each in run_page(RUNS, sort="-score").rows] == ["r3", "r1", "r2"]
    assert [each.id for each in run_page(RUNS, sort="-tokens").rows] == ["r3", "r1", "r2"]
    first, second = run_page(RUNS, limit=2), run_page(RUNS, start=2, limit=2)
    assert first.next_start == 2 and second.next_start is None and [each.id for each in second.rows] == ["r1"]
    assert run_page(RUNS).facets["model"] == [("qwen", 2), ("llama", 1)]
    with pytest.raises(ConfigError, match="cannot be sorted by 'colour'"):
        run_page(RUNS, sort="colour")


# -- attempts --


def attempt(number: int, agent: str, score: float | None, error: str = "") -> Trace:
    return Trace(
        id=f"id{number:03d}{agent}", benchmark="quiz", task_id=f"t{number}", agent={"name": agent}, epoch=0, seed=0,
        started_at="2026-11-27T00:00:00+00:00", duration_s=number / 10, answer=str(number),
        stop_reason="error" if error else "tokens" if number % 5 == 0 else "done",
        error=Failure("ModelError", error) if error else None,
        scores=() if score is None else (Score("exact", score),),
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = store.create(tmp_path, {"model": "m"}, "quiz")
    made.add_tasks("quiz", [Task(f"t{n}", f"{n}?") for n in range(12)])
    for number in range(12):
        error = "the disk is 100%_full" if number == 7 else ""
        made.append(
            attempt(
                number,
                "cot" if number % 2 else "direct",
                None if error else 0.75 if number == 4 else (number % 3) / 2,
                error,
            )
        )
    return made


def found(run: Run, text: str, sort: str = "") -> list[int]:
    return [int(row.task_id[1:]) for row in AttemptQuery.parse(text, sort).page(run.database).rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", list(range(12))),
        ("agent:COT", [1, 3, 5, 7, 9, 11]),
        ("agent=cot score>=0.5", [1, 5, 11]),
        ("-agent=cot score<0.5", [0, 6]),
        ("has:error", [7]),
        ("-score>=0.5", [0, 3, 6, 9]),
        ("-error:disk task:t7", []),
        ("-error:disk task=t6", [6]),
        ("-score.kept>0", []),
        ("is:failed", [7]),
        ("is:right", [2, 5, 8, 11]),
        ("is:wrong", [0, 1, 3, 4, 6, 9, 10]),
        ("-has:score", [7]),
        ("has:limit", [0, 5, 10]),
        ("seconds<=0.2", [0, 1, 2]),
        ("seconds>1", [11]),
        ("-seconds>0.2", [0, 1, 2]),
        ("error:100%_full", [7]),
        ("%", [7]),
        ("_full", [7]),
        ("task=t1", [1]),
        ("task:t1", [1, 10, 11]),
        ("id:id003", [3]),
        ("score.kept>0", []),
        ("has:note", []),
    ],
)
def test_attempts_are_filtered_inside_the_file(run: Run, text: str, numbers: list[int]) -> None:
    assert found(run, text) == numbers
    assert AttemptQuery.parse(text).page(run.database, limit=1).total == len(numbers)


def test_a_flag_and_its_negation_are_all_attempts_scored_or_not(run: Run) -> None:
    run.append(attempt(12, "cot", None))
    every = [*range(12), 12]
    for flag in (f"{field}:{value}" for field, values in FLAGS.items() for value in values):
        assert sorted(found(run, flag) + found(run, f"-{flag}")) == every, flag
    assert (
        12 in found(run, "-is:wrong") and 12 in found(run, "-is:right") and found(run, "-is:wrong -is:right") == [7, 12]
    )
    assert found(run, "-is:wrong -has:error has:score") == found(run, "is:right") == [2, 5, 8, 11]


def test_attempts_are_sorted_with_those_without_a_value_last(run: Run) -> None:
    assert found(run, "", "-seconds") == list(range(11, -1, -1))
    assert found(run, "", "-finished") == list(range(11, -1, -1))
    assert found(run, "", "score")[-1] == 7 and found(run, "", "-score")[-1] == 7
    assert found(run, "", "-score")[:4] == [2, 5, 8, 11]
    with pytest.raises(ConfigError, match="cannot be sorted by 'score; DROP"):
        AttemptQuery.parse("", "score; DROP TABLE traces")


def test_only_the_latest_try_counts(run: Run) -> None:
    run.append(attempt(7, "cot", 1.0))
    assert found(run, "has:error") == [] and found(run, "task=t7") == [7]
    assert AttemptQuery().page(run.database).total == 12


def test_pages_follow_each_other_and_neighbours_are_those_of_the_filter(run: Run) -> None:
    query = AttemptQuery.parse("agent=cot", "-seconds")
    pages = [query.page(run.database, start, 4) for start in (0, 4)]
    assert [row.task_id for page in pages for row in page.rows] == ["t11", "t9", "t7", "t5", "t3", "t1"]
    assert pages[0].next_start == 4 and pages[1].next_start is None
    places = [row.place for row in query.page(run.database).rows]
    assert query.beside(run.database, places[0]) == (None, places[1])
    assert query.beside(run.database, places[2]) == (places[1], places[3])
    assert query.beside(run.database, places[-1]) == (places[-2], None)
    assert AttemptQuery.parse("agent=direct").beside(run.database, places[0]) == (None, None)


def test_facets_count_what_the_filter_finds(run: Run) -> None:
    assert AttemptQuery.parse("-has:error").facets(run.database) == {
        "benchmark": [("quiz", 11)],
        "agent": [("direct", 6), ("cot", 5)],
        "is": [("wrong", 7), ("right", 4)],
        "stop": [("done", 8), ("tokens", 3)],
    }


def test_a_score_given_later_is_found_by_its_name(run: Run) -> None:
    trace = run.trace("id003")
    for value in (0.2, 0.9):
        run.add_score(trace, 1, "note.good", "a person", Score("note.good", value))
    assert found(run, "score.note.good>0.5") == [3] and found(run, "score.note.good<0.5") == []
    assert found(run, "has:note") == [3] and found(run, "-has:note score>0 task=t3") == []


def test_filters_by_any_field_agree_with_the_rows(run: Run) -> None:
    rng = random.Random(0)
    rows = AttemptQuery().page(run.database).rows
    for _ in range(60):
        field, value = rng.choice([("tokens", 0), ("calls", 0), ("seconds", rng.randrange(12) / 10), ("epoch", 0)])
        operator = rng.choice(["<", "<=", ":", ">", ">="])
        column = {"tokens": "tokens", "calls": "num_calls", "seconds": "duration_s", "epoch": "epoch"}[field]
        term = Term(field, operator, str(value))  # type: ignore[arg-type]
        expected = [int(row.task_id[1:]) for row in rows if holds(term, getattr(row, column))]
        assert found(run, f"{field}{operator}{value}") == expected


def test_attempts_are_found_by_the_model_of_their_agent(run: Run) -> None:
    run.add_agent("cot", {"name": "cot", "model": "SmolLM2-135M"})
    run.add_agent("direct", {"name": "direct", "model": "qwen"})
    odd, even = list(range(1, 12, 2)), list(range(0, 12, 2))
    assert found(run, "model:smollm2") == odd and found(run, "model=qwen") == even
    assert found(run, "-model:smollm2") == even and found(run, "model=smollm2") == []
    assert found(run, "model:qwen score<0.5") == [0, 6]
    query = AttemptQuery.parse("model:smol", "task")
    assert query.facets(run.database)["agent"] == [("cot", 6)]
    places = [row.place for row in query.page(run.database).rows]
    assert query.beside(run.database, places[1]) == (places[0], places[2])


@pytest.mark.slow
@given(st.text(max_size=40))
def test_any_filter_is_a_page_or_one_error(text: str) -> None:
    try:
        query = AttemptQuery.parse(text, text[:10])
    except FirsthandError as error:
        assert str(error)
    else:
        assert isinstance(query.terms, tuple)
