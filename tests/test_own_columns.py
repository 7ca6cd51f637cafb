"""The columns of a user's own table that scorers read: each is checked before anything is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark_rows import refused
from firsthand.benchmarks.sources.own import read_benchmark
from firsthand.benchmarks.sources.own_columns import CHECKS, MAY_HAVE, NEEDS, check_columns, columns_of
from firsthand.benchmarks.sources.tables import TableRow
from firsthand.errors import DataError
from firsthand.scorers.choice import mc2
from firsthand.task import Task
from firsthand.trace import Call, Trace

FUNCTION = {
    "name": "f",
    "parameters": {
        "properties": {"x": {"type": "integer"}, "l": {"type": "array", "items": {"type": "string"}}},
        "required": ["x"],
    },
}
CALLS = {"kind": "calls", "functions": [FUNCTION], "accepted": [{"f": {"x": [1], "l": [["a"], ""]}}]}


def typed(**schema: Any) -> dict[str, Any]:
    return {"kind": "none", "functions": [{"name": "f", "parameters": {"properties": {"x": schema}}}]}


def one(id: str, **arguments: Any) -> list[Any]:
    return [[id, arguments]]


RIGHT: list[tuple[str, str, list[Any]]] = [
    ("function_calls", "calls", [CALLS, {"kind": "none"}, {"kind": "some", "functions": [FUNCTION]}, typed(type="any")]),
    ("locomo_f1", "category", [1, 5, "3"]),
    ("mmlu_pro_tiger", "options", [1, "10"]),
    ("bitext_weighted_f1", "place", [0, "7"]),
    ("max_ap", "similar", [0, 1, True, "1"]),
    ("cosine_spearman", "similarity", [0, -1.5, "0.25"]),
    ("reranked_average_precision", "positive", [["d1"], ["d1", 2]]),
    ("planted_share", "planted_documents", [["p1"]]),
    ("attack_success", "planted", ["Rome"]),
    ("cluster_v_measure", "labels", [["a", "b"], [0, 1]]),
    ("summary_spearman", "ratings", [[1, 2.5]]),
    ("few_shot_accuracy", "label", ["a", 0, 1.5, False]),
    ("passes_tests", "tests", ["assert f(1)", ["assert f(1)"]]),
    ("ndcg_at_10", "judgements", [{"d1": 0}]),
    ("mc2", "true", [[0], [0, 2], [2, 1, 0]]),
    ("prompt_strict", "instructions", [
        [["punctuation:no_comma", {}], ["keywords:existence", {"keywords": ["dog"]}]],
        one("length_constraints:number_words", num_words=3, relation="at least", language=None),
        one("startend:end_checker", end_phrase="The end."),
    ]),
]  # fmt: skip
WRONG: list[tuple[str, str, list[Any]]] = [
    ("function_calls", "calls", [
        "x", [CALLS], {}, {"kind": "call"}, CALLS | {"functions": {}}, CALLS | {"accepted": {}}, CALLS | {"accepted": []},
        CALLS | {"kind": "none"}, CALLS | {"kind": "some"}, CALLS | {"functions": ["f"]}, CALLS | {"functions": []},
        CALLS | {"functions": [FUNCTION | {"name": 1}]}, CALLS | {"functions": [FUNCTION | {"parameters": {}}]},
        CALLS | {"accepted": [{"g": {}}]}, CALLS | {"accepted": [{"f": {"x": 1}}]}, CALLS | {"accepted": [{"f": [1]}]},
        CALLS | {"accepted": [{"f": {}, "g": {}}]}, CALLS | {"accepted": ["f"]},
        typed(), typed(type="number"), typed(type="array"), typed(type="tuple", items={}), typed(type="array", items="a"),
        CALLS | {"functions": [FUNCTION | {"parameters": FUNCTION["parameters"] | {"required": "x"}}]},  # type: ignore
        CALLS | {"functions": [FUNCTION | {"parameters": FUNCTION["parameters"] | {"required": ["y"]}}]},  # type: ignore
    ]),
    ("locomo_f1", "category", [0, 6, "two", 1.5, [1]]),
    ("mmlu_pro_tiger", "options", [0, ["a", "b"]]),
    ("bitext_weighted_f1", "place", [-1, "x"]),
    ("max_ap", "similar", [2, -1, "yes"]),
    ("cosine_spearman", "similarity", ["high", "nan", "inf", [1], 10**400]),
    ("reranked_average_precision", "positive", ["d1", [], [["d1"]], {"d1": 1}]),
    ("planted_share", "planted_documents", ["p1", [], [1]]),
    ("attack_success", "planted", [1, ["Rome"]]),
    ("cluster_v_measure", "labels", ["a", [], [None]]),
    ("summary_spearman", "ratings", [[], ["good"], "1"]),
    ("few_shot_accuracy", "label", [["a"]]),
    ("passes_tests", "tests", ["f(1)", [1], 1]),
    ("ndcg_at_10", "judgements", ["d1", {}, {"d1": 0.5}]),
    ("mc2", "true", [[], [0, 0], [-1], [3], ["0"], [True], [1.0], "0", 0, {"0": 1}]),
    ("prompt_strict", "instructions", [
        [], {}, "punctuation:no_comma", ["punctuation:no_comma"], [["punctuation:no_comma"]], {"punctuation:no_comma": {}},
        [["punctuation:no_comma", []]], [["punctuation:no_comma", {}, 1]], one("no:such"),
        one("punctuation:no_comma", x="a"),
        one("keywords:existence", keywords="dog"), one("keywords:existence", keywords=[]),
        one("keywords:existence", keywords=["dog", " "]), one("keywords:existence", keywords=[1]),
        one("keywords:forbidden_words", forbidden_words="dog"), one("startend:end_checker", end_phrase=" "),
        one("startend:end_checker", end_phrase=1),
        one("detectable_format:number_bullet_lists", num_bullets="3"),
        one("detectable_format:number_bullet_lists", num_bullets=True),
        one("keywords:frequency", keyword="a", frequency="1", relation="at least"),
        one("keywords:frequency", keyword="a", frequency=1, relation="more than"),
        one("length_constraints:nth_paragraph_first_word", num_paragraphs=2, nth_paragraph="2", first_word="a"),
    ]),
]  # fmt: skip


def cases(table: list[tuple[str, str, list[Any]]]) -> list[tuple[str, str, Any]]:
    return [(scorer, column, value) for scorer, column, values in table for value in values]


@pytest.mark.parametrize(("scorer", "column", "value"), cases(RIGHT))
def test_what_a_scorer_reads_is_taken(scorer: str, column: str, value: Any) -> None:
    others = {name: "1" for name in NEEDS[scorer] if name != column}
    check_columns(scorer, TableRow({**others, column: value}, "t.jsonl, line 2"), 3)


@pytest.mark.parametrize(("scorer", "column", "value"), cases(WRONG))
def test_what_a_scorer_cannot_read_is_refused_with_its_row_and_column(scorer: str, column: str, value: Any) -> None:
    others = {name: "1" for name in NEEDS[scorer] if name != column}
    told = refused(DataError, check_columns, scorer, TableRow({**others, column: value}, "t.jsonl, line 2"), 3)
    assert told.startswith(f"t.jsonl, line 2: the column {column!r}: ")


def test_every_column_that_is_checked_is_read_by_a_scorer() -> None:
    assert {column for columns in (*NEEDS.values(), *MAY_HAVE.values()) for column in columns} >= CHECKS.keys()


def test_references_are_read_where_they_are_a_list() -> None:
    for value, read in ((["a", "b"], ("references",)), ("a", ()), (None, ())):
        assert columns_of("bleu", TableRow({"references": value}, "t.jsonl, line 2")) == read
    told = refused(DataError, check_columns, "rouge_l", TableRow({"references": ["a", 1]}, "t.jsonl, line 2"), 0)
    assert told.startswith("t.jsonl, line 2: the column 'references': ")


def test_a_question_may_have_fewer_choices_and_no_empty_one(tmp_path: Path) -> None:
    path, rows = tmp_path / "c.toml", [("Who?", "x", "y", "z", "B"), ("Who?", "x", "y", "", "B")]
    path.write_text('data = "c.csv"\nprompt = "{q}"\nchoices = [" {a}", " {b}", " {c}"]\ntarget = "{t}"\n')
    odd = (("Who?", "x", "", "z", "C"), "line 4: choice 2 is empty"), (("Who?", "x", "", "", "A"), "choice 2")
    for more, why in (((), ""), *odd):
        lines = ["q,a,b,c,t", *(",".join(each) for each in [*rows, *([more] if more else [])])]
        (tmp_path / "c.csv").write_text("\n".join(lines))
        if why:
            assert why in refused(DataError, read_benchmark, path)
        else:
            assert [len(task.choices) for task in read_benchmark(path).tasks(0)] == [3, 2]
    (tmp_path / "c.csv").write_text("q,a,b,c,t\nWho?,x,y,,C\n")
    assert "line 2" in refused(DataError, read_benchmark, path), "the right choice is none"
    path.write_text('data = "c.jsonl"\nprompt = "{q}"\nchoices = ["options"]\ntarget = "{t}"\n')
    (tmp_path / "c.jsonl").write_text(json.dumps({"q": "Who?", "options": ["x", " ", "z"], "t": "A"}))
    assert "c.jsonl, line 1: choice 2 is empty here" in refused(DataError, read_benchmark, path)


def test_a_table_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    rows = [{"q": "hi", "t": "A", "a": "one", "b": "two", "true": true} for true in ([0], [0, 2])]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    table = 'data = "t.jsonl"\nprompt = "{q}"\ntarget = "{t}"\nchoices = ["{a}", "{b}"]\nscorer = ["mc2"]\n'
    (tmp_path / "t.toml").write_text(table)
    told = refused(DataError, read_benchmark, tmp_path / "t.toml")
    assert told.endswith(
        "t.jsonl, line 2: the column 'true': a list of indices from 0 to 1, each once, was expected, not [0, 2]"
    )


def test_mc2_takes_each_true_choice_once_and_names_a_task_that_has_others() -> None:
    likelihoods = [{"text": text, "logprob": -1.0} for text in (" a", " b")]
    call = Call("c", "score", None, 0.0, 0.0, "r", detail={"prompt": None, "likelihoods": likelihoods})
    trace = Trace("x", "b", "t", {}, 0, 0, "", 0.0, answer="A", calls=(call,))
    task = lambda true: Task("t", "Q", choices=(" a", " b"), secret={"gold": 0, "true": true})  # noqa: E731
    assert mc2(task([1]), trace).value == 0.5 and mc2(task((0, 1)), trace).value == 1.0
    for true in ([0, 0], [2], [-1], [True], "0", None):
        assert refused(DataError, mc2, task(true), trace).startswith(
            "task t: secret['true']: a list of indices from 0 to 1"
        )


def test_the_name_that_an_answer_has_to_define_is_read_where_a_row_has_it() -> None:
    def row(**columns: Any) -> TableRow:
        return TableRow({"tests": "assert sum([1]) == 1", **columns}, "c.jsonl, line 1")

    assert columns_of("passes_tests", row(entry_point="sum")) == ("tests", "entry_point")
    for none in (row(), row(entry_point=""), row(entry_point=None)):
        check_columns("passes_tests", none, 0)
        assert columns_of("passes_tests", none) == ("tests",)
    assert columns_of("exact", row(entry_point="sum")) == ()
    check_columns("passes_tests", row(entry_point="größe_2"), 0)
    for wrong in ("sum(x)", "Solution().solve", "def", 3, ["sum"]):
        with pytest.raises(DataError, match=r"line 1: the column 'entry_point': the name of a function, such as solve"):
            check_columns("passes_tests", row(entry_point=wrong), 0)
        check_columns("exact", row(entry_point=wrong), 0)
