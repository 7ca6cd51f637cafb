"""Values, hunks and outputs at the limits of what is accepted: arguments of calls, patches, EvalPlus, votes and choices."""

from __future__ import annotations

import ast
import math
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.scorers import choice, human_votes, ranking
from firsthand.scorers import text as texts
from firsthand.scorers.function_calls import (
    MAX_BITS,
    MadeCall,
    _accepted,
    _all_entries,
    _call,
    _computed,
    _entries,
    _inner_typed,
    _plain,
    _type_of,
    _value,
    mismatch,
)
from firsthand.scorers.match import normalise, same_number
from firsthand.scorers.patches.patch import Change, _git_section, _hunk, _hunks, _path, _same_path, _unquoted
from firsthand.stats.rater_agreement import Judged
from firsthand.task import Task
from firsthand.trace import Call, Event, Score, Trace


def expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def test_an_argument_is_its_value_its_text_or_refused() -> None:
    for text, value in (
        ("1", 1), ("-1", -1), ("-2.5", -2.5), ("'x'", "x"), ("None", None), ("...", "..."), ("True", True), ("name", "name"),
        ("[1, [2]]", [1, [2]]), ("(1, x)", (1, "x")), ("{'a': [1], 2: x}", {"a": [1], 2: "x"}), ("1 + 2", 3), ("7 / 2", 3.5),
        ("6 / 2", 3.0), ("7 // 2", 3), ("1.0 * 2", 2.0), ("g(1)", "g(1)"), ("x[0]", "x[0]"), ("a.P(q=1)", {"a.P": {"q": 1}}),
        (str(2**MAX_BITS - 1), 2**MAX_BITS - 1),
    ):  # fmt: skip
        found = _value(expression(text))
        assert found == value and type(found) is type(value), text
    for text, said in (
        ("-x", "UnaryOp is not a value"), ("+1", "UnaryOp is not a value"), ("-'a'", "UnaryOp is not a value"),
        ("{**x}", r"\*\* is not an entry"), ("f(**x, a=1)", r"\*\* is not an argument"), ("a.b", "Attribute is not a value"),
        ("not x", "UnaryOp is not a value"), ("{1}", "Set is not a value"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{said}$"):
            _value(expression(text))
    with pytest.raises(ValueError, match="thousands of digits"):
        _value(ast.Constant(2**MAX_BITS))
    assert _call(expression("a.b.c(1, x=2, y=n)")) == MadeCall("a.b.c", {"x": 2, "y": "n"})
    assert _call(expression("f()(x=1)")) == MadeCall("", {"x": 1})
    assert [(_computed(each), type(_computed(each))) for each in ("2 ** 3", "4 / 2", "4 // 2", "2e0 + 1")] == [
        (8, int), (2.0, float), (2, int), (3.0, float),
    ]  # fmt: skip


def test_a_value_is_accepted_by_its_declared_type_or_that_of_the_accepted_ones() -> None:
    def schema(kind: str, items: str = "") -> dict[str, Any]:
        return {"type": kind} | ({"items": {"type": items}} if items else {})

    for given, declared, accepted, right in (
        (1, schema("integer"), [1, 2], True),
        (True, schema("integer"), [1], False),
        (1.0, schema("integer"), [1], False),
        (1, schema("float"), [1.0], True),
        (1.5, schema("float"), ["", 1.5], True),
        (10**400, schema("float"), [1.0], False),
        ("1", schema("integer"), ["1"], True),
        ("1 ", schema("integer"), ["1"], False),
        ("New-York", schema("string"), ["new york"], True),
        ("a", schema("string"), ["b", 5], False),
        (5, schema("string"), [5, "a"], True),
        ([1, 2], schema("array", "integer"), [[1, 2]], True),
        ([2, 1], schema("array", "integer"), [[1, 2]], False),
        ([1, 2.0], schema("array", "integer"), [[1, 2]], False),
        ([1.0], schema("array", "integer"), [[1.0]], True),
        ([1], schema("array", "float"), [[1.0]], False),
        (["A b"], schema("array", "string"), [["ab"], ["c"]], True),
        ((1, 2), schema("tuple", "integer"), [[1, 2]], True),
        ((1, 2), schema("array", "integer"), [[1, 2]], False),
        ({"k": "A"}, schema("dict"), [{"k": ["a", "b"]}], True),
        ({"k": "c"}, schema("dict"), [{"k": ["a", "b"]}], False),
        ({}, schema("dict"), [{"k": ["a"]}], False),
        ({}, schema("dict"), [{"k": ["a", ""]}], True),
        ({"k": "a", "z": 1}, schema("dict"), [{"k": ["a"]}], False),
        ([{"k": 1}, {"k": 2}], schema("array", "dict"), [[{"k": [1]}, {"k": [2, 3]}]], True),
        ([{"k": 2}, {"k": 1}], schema("array", "dict"), [[{"k": [1]}, {"k": [2, 3]}]], False),
        (["a", "b"], schema("array", "integer"), [["a", "b"], [1, 2]], True),
        (["a", "b"], schema("array", "integer"), [[1, 2], ["a", "b"]], True),
        ([2.0], schema("array", "integer"), [["a"], [2]], False),
        ("x", schema("any"), ["X"], True),
        (True, schema("boolean"), [True], True),
        (False, schema("boolean"), [True], False),
    ):
        assert _accepted(given, declared, accepted) is right, (given, declared, accepted)
    assert _type_of(["", 1.0, 2]) is float and _type_of([""]) is None and _type_of([]) is None
    assert _plain("A b,c./-_*^'d") == 'abc"d' and _plain(5) == 5 and _plain(["A"]) == ["A"]
    assert (
        _inner_typed([1, "x"], int, [""]) is False
        and _inner_typed([1, 2.0], int, [3.0])
        and _inner_typed(["x"], int, "x")
    )
    assert not _entries({"k": 1}, "text") and _entries({"k": "A"}, {"k": ["a"], "o": ["", 1]})
    assert not _all_entries([{}], []) and _all_entries([], [])


def test_each_expected_call_is_found_once_in_any_order() -> None:
    functions = [
        {"name": name, "parameters": {"required": [], "properties": {"n": {"type": "integer"}}}} for name in ("f", "g")
    ]
    f1, f2, g1 = MadeCall("f", {"n": 1}), MadeCall("f", {"n": 2}), MadeCall("g", {"n": 1})
    assert mismatch([g1, f2, f1], functions, [{"f": {"n": [1]}}, {"f": {"n": [2]}}, {"g": {"n": [1]}}]) == ""
    assert mismatch([f1, f1], functions, [{"f": {"n": [1]}}, {"f": {"n": [2]}}]) == "n='1' of f is not among [2]"
    assert mismatch([f1], functions, [{"f": {"n": [1]}}, {"g": {"n": [1]}}]) == "1 calls were made, and 2 expected"
    assert mismatch([g1], functions, [{"f": {"n": [1]}}]) == "'g' was called, not 'f'"


def test_a_hunk_has_the_lines_that_its_header_says() -> None:
    for lines, end in (
        (["@@ -1 +1 @@", "-a", "+b", "next"], 3),
        (["@@ -1,2 +1,3 @@ def", " a", "", "+c"], 4),
        (["@@ -0,0 +1 @@", "+a", "\\ No newline"], 3),
        (["@@ -1 +1 @@", "-a", "\\ No newline", "+b", "\\ No newline", "-- "], 5),
        (["@@ -1 +0,0 @@", "-a", "+++ b/x"], 2),
        (["@@ -1 +0,0 @@", "-a", "-b"], 2),
    ):
        assert _hunk(lines, 0) == end and _hunk(["x", *lines], 1) == end + 1, lines
    for lines, said in (
        (["@@ -1,2 +1 @@", " a"], "line 1 of the patch: the hunk is shorter than its header says"),
        (["@@ -1,2 +1 @@", " a", "x"], "line 1 of the patch: the hunk is shorter than its header says"),
        (["@@ -1 +1,2 @@", " a", "-b"], "line 1 of the patch: the hunk's lines do not match its header"),
        (["@@ -1 +0,0 @@", "-a", "+b"], "line 1 of the patch: the hunk is longer than its header says"),
        (["@@ -1 +0,0 @@", "-a", " b"], "line 1 of the patch: the hunk is longer than its header says"),
        (["@@ +1 @@"], "line 1 of the patch: '@@ +1 @@' is not a hunk header, such as `@@ -1,2 +1,3 @@`"),
    ):
        with pytest.raises(DataError) as refused:
            _hunk(lines, 0)
        assert str(refused.value) == said
    two = ["--- a/x", "+++ b/y", "@@ -1 +1 @@", "-a", "+b", "@@ -5 +5 @@", " c", "diff"]
    assert _hunks(two, 0)[0] == 7 and _hunks(two, 0)[1].change == Change("x", "y")
    section = ["diff --git a/o b/n", "rename from o", "rename to n", *two]
    assert _git_section(section, 0)[0] == 10
    assert _git_section(section, 0)[1].change == Change("o", "n")
    assert _git_section(["diff --git a/o b/n", "copy from o", "copy to n"], 0)[1].change.path == "n"


def test_paths_lose_their_prefix_and_quotes() -> None:
    assert (
        _path("a/b/c.py", 0) == "b/c.py" and _path("b/c.py", 0, strip=False) == "b/c.py" and _path("/dev/null", 3) == ""
    )
    assert _path("a/x y.py\t2020", 0) == "x y.py" and _path("a/x \r", 0) == "x"
    assert _same_path("diff --git a/x y b/x y", 0) == "x y"
    for text, plain in (
        ('"a/b"', "a/b"), ('"a/\\303\\251"', "a/é"), ('"a\\tb"', "a\tb"), ('"a\\"b"\t2020', 'a"b'), ('"a\\\\b"', "a\\b"),
    ):  # fmt: skip
        assert _unquoted(text, 0) == plain, text
    with pytest.raises(DataError, match=r"^line 3 of the patch: .* is not a path between quotes, and nothing after it"):
        _unquoted('"a\\"b" rest', 2)
    for text, said in (("x", "has no prefix: write it as a/FILE and b/FILE"), ("a//x", "leads out of the repository")):
        with pytest.raises(DataError, match=f"^line 5 of the patch: the path '{text}' {said}"):
            _path(text, 4)


def scored(*pairs: tuple[str, float | None], prompt: str | None = "Q") -> Call:
    likelihoods = [{"text": text, "logprob": value} for text, value in pairs]
    return Call(":0", "score", None, 0.0, 0.0, "", detail={"prompt": prompt, "likelihoods": likelihoods})


def attempt(answer: str | None = "", **more: Any) -> Trace:
    return Trace("i", "b", "t", {}, 0, 0, "", 0.0, answer=answer, **more)


def test_a_choice_is_the_likeliest_for_its_length_or_over_its_own_probability() -> None:
    pairs = (("Q", " aa"), ("Q", " bbbb"), ("Q", " é"))
    task = Task("t", "?", choices=("aa", "bbbb", "é"), requests=pairs, baseline="N", secret={"gold": 1, "true": [1, 2]})
    calls = (
        scored((" aa", -3.0), (" bbbb", -4.0), (" é", -2.5)),
        scored((" aa", -2.0), (" bbbb", -5.0), (" é", -2.0), prompt="N"),
    )
    trace = attempt(calls=calls)
    for scorer, letter, value in (
        (choice.acc, "C", 0.0), (choice.acc_norm, "B", 1.0), (choice.acc_bytes, "B", 1.0),
        (choice.acc_mutual_info, "B", 1.0),
    ):  # fmt: skip
        assert scorer(task, trace) == Score(scorer.__name__, value, {"chosen": letter, "by": "logprob"})
    assert choice.mc1(task, trace) == Score("mc1", 0.0, {"chosen": "A", "by": "logprob"})
    shares = [math.exp(each) for each in (-3.0, -4.0, -2.5)]
    assert choice.mc2(task, trace).value == pytest.approx((shares[1] + shares[2]) / sum(shares))
    for scorer, first, second in ((choice.acc_norm, "  a", " bc"), (choice.acc_bytes, "  \u00e9", " bcd")):
        spaced = Task("t", "?", choices=("x", "y"), requests=(("Q", first), ("Q", second)), secret={"gold": 0})
        found = scorer(spaced, attempt(calls=(scored((first, -3.0), (second, -3.6)),)))
        assert (found.value, found.detail["chosen"]) == (1.0, "A"), "one blank is taken off, not two"
    lone = attempt("(b)", calls=calls[1:])
    assert choice.mc1(task, lone) == Score("mc1", 1.0, {"chosen": "B", "by": "answer"})
    said = "the choices were not scored without the question"
    assert choice.acc_mutual_info(task, attempt(calls=calls[:1])) == Score("acc_mutual_info", 0.0, failure=said)
    missing = scored((" aa", -2.0), (" bbbb", None), (" é", -2.0), prompt="N")
    assert choice.acc_mutual_info(task, attempt(calls=(calls[0], missing))).failure == said
    assert choice.acc_mutual_info(task, lone).failure == said
    assert choice.mc2(task, lone) == Score("mc2", 0.0, failure="the choices were not scored by log-prob")
    assert [choice.chosen_letter(each, task) for each in ("c", " AA. ", "É", "D", "", "aa bbbb")] == [
        2,
        0,
        2,
        None,
        None,
        None,
    ]
    twice = Task("t", "?", choices=("x", "X", "y"))
    assert [choice.chosen_letter(each, twice) for each in ("x", "X", "Y")] == [0, 1, 2], "as written, else in any case"
    alike = Task("t", "?", choices=("xy", "XY", "z", "z"))
    assert choice.chosen_letter("Xy", alike) is None and choice.chosen_letter("z", alike) is None
    chat = scored(("aa", -3.0), ("bbbb", -1.0), ("é", -2.0), prompt=None)
    assert choice.logprobs(Task("t", "?", choices=("aa", "bbbb", "é")), attempt(calls=(chat,))) == [-3.0, -1.0, -2.0]


def test_votes_agree_with_a_verdict_and_its_judge_is_told_without_its_rules() -> None:
    about = {"judge": {"fields": {"answer_a": "long", "answer_b": "b"}}}
    task = Task("t", "?", metadata={**about, "cluster": "c"}, secret={"votes": ["A", "A", "B", "tie", "A"]})

    def noted(**data: Any) -> tuple[Event, ...]:
        return (Event("judgement", 0.0, {"orders": ["x"]}), Event("judgement", 0.0, data))

    trace = attempt("so it is [[A]] ", events=noted(orders=["A", "B"], first=0.25, by="logprob"))
    assert human_votes.human_agreement(task, trace) == Score("human_agreement", 0.6, {"verdict": "A"})
    assert human_votes.majority_agreement(task, trace).detail == {"verdict": "A", "majority": "A"}
    even = Task("t", "?", secret={"votes": ["A", "B"]})
    assert human_votes.majority_agreement(even, trace).detail == {"verdict": "A", "majority": None}
    assert human_votes.majority_agreement(even, trace).value == 0.5
    assert human_votes.order_consistency(task, trace).value == 0.0
    assert human_votes.order_consistency(task, attempt("A")).failure == "the pair was not judged in both orders"
    found = human_votes.judged(task, trace)
    assert found == Judged("t", ("A", "A", "B", "tie", "A"), "A", "c", "A", 0.25, False)
    ruled = human_votes.judged(task, attempt("tie", events=noted(orders=["A", "A"], first=1.0, by="rule: empty")))
    assert ruled == Judged("t", ("A", "A", "B", "tie", "A"), "tie", "c", "A", None, None)
    assert human_votes.judged(task, attempt("none")) is None and human_votes.verdict_of(task, attempt("[[C]]")) == "tie"
    second = Task("a", "?", metadata={}, secret={"votes": ["B"]})
    tasks = {("b", "t"): task, ("b", "a"): second}
    traces = [trace, attempt("?"), Trace("j", "b", "a", {}, 0, 0, "", 0.0, answer="B"),
              Trace("k", "b", "a", {}, 1, 0, "", 0.0, answer="A")]  # fmt: skip
    items, missing = human_votes.judged_items(tasks, traces)
    assert [each.item for each in items] == ["a", "t"] and missing == 1
    assert human_votes.longer_answer(second) is None
    assert human_votes.longer_answer(Task("t", "", metadata={"judge": {"fields": {"answer_b": "x"}}})) == "B"


def test_numbers_and_words_are_the_same_within_their_rules() -> None:
    for left, right, same in (
        ("72.0", "72", True), ("0.333333", "1/3", True), ("1/3", "0.333333", True), ("72", "73", False), ("x", "72", False),
        ("72", "x", False), ("1000001", "1000000", False), ("1000000.5", "1000000", True), ("-0.5", "0.5", False),
    ):  # fmt: skip
        assert same_number(left, right) is same, (left, right)
    assert normalise("The  Cat, an É\u0301t\u00e9!") == "cat é\u0301té" and normalise("theatre a") == "theatre"


def test_a_text_is_compared_with_its_best_reference_and_corpora_by_place() -> None:
    task = Task("t", "?", secret={"references": ["the red cat", "a blue dog runs", ""]})
    found = texts.token_f1(task, attempt("blue dog " + "x" * 300))
    assert found == Score("token_f1", pytest.approx(2 * 2 / (3 + 3)), {"answer": ("blue dog " + "x" * 300)[:200]})
    assert texts.token_f1(task, attempt(None)).value == 0.0, "an empty reference is none"
    assert texts.token_f1(task, attempt("blue dog " * texts.MAX_CHARS)).value == 0.0, "nor by one that is too long"
    assert texts._streams([["a", "b"], ["c"], []]) == [["a", "c", None], ["b", None, None]] and texts._streams([]) == []


def test_figures_of_metrics_over_documents_are_of_the_ranking_by_its_depth() -> None:
    marks = {"b": 1, "d": 1, "x": 0, 7: 1}
    task = Task("t", "?", secret={"judgements": marks})
    trace = attempt(events=(Event("ranking", 0.0, {"documents": ["a", "b", "c", *map(str, range(6)), "d", "7"]}),))
    by_name: dict[str, Any] = {each.__name__: each(task, trace) for each in ranking.RANKING_SCORERS}  # type: ignore[attr-defined, operator]
    assert {name: each.value for name, each in by_name.items() if name not in ("ndcg_at_10", "average_precision")} == {
        "reciprocal_rank_at_10": 1 / 2, "recall_at_10": pytest.approx(2 / 3), "recall_at_100": 1.0, "precision_at_10": 0.2,
    }  # fmt: skip
    assert list(by_name) == [each.name for each in by_name.values()]
    assert by_name["average_precision"].value == pytest.approx((1 / 2 + 2 / 10 + 3 / 11) / 3)
    gain, best = 1 / math.log2(3) + 1 / math.log2(11), 1 + 1 / math.log2(3) + 1 / 2
    assert by_name["ndcg_at_10"].value == pytest.approx(gain / best)
    assert ranking.recall_at_5(task, trace).value == pytest.approx(1 / 3)
    two: Any = ranking.ndcg(k=2)
    assert two(task, trace) == Score("ndcg_at_2", pytest.approx(1 / math.log2(3) / (1 + 1 / math.log2(3))))
    assert ranking.judgements(task) == {"b": 1, "d": 1, "x": 0, "7": 1}
    for wrong in ({}, None, [1]):
        with pytest.raises(ValueError, match=r"^task t has no relevance judgements to score a ranking by$"):
            ranking.judgements(Task("t", "?", secret={"judgements": wrong}))
    with pytest.raises(ConfigError, match=r"^k is 0: a ranking is cut after 1 document or more$"):
        ranking.ndcg(k=0)
