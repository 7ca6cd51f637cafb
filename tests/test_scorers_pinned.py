"""Scores pinned by number: ties, rivals, signs, first statements, and the edges of each published rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import DataError
from firsthand.message import assistant
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.scorers import familiar
from firsthand.scorers.choice import acc, acc_bytes, acc_mutual_info, acc_norm, chosen_letter, mc1, mc2
from firsthand.scorers.code import answered_code, pass_at_k, pass_hat_k, preamble
from firsthand.scorers.contained import (
    best_subspan_em,
    contains_value,
    string_match,
    string_match_all,
    string_match_part,
)
from firsthand.scorers.function_calls import MadeCall, call_problem, mismatch, read_calls
from firsthand.scorers.human_votes import (
    human_agreement,
    judged_items,
    longer_answer,
    majority_agreement,
    order_consistency,
    verdict_of,
)
from firsthand.scorers.instructions import count_sentences, follows, versions
from firsthand.scorers.match import exact, normalise, normalised, numeric, same_number, strict
from firsthand.scorers.model_judge import JudgeScorer, about_judge
from firsthand.scorers.patches.test_logs import kept, passed, read_log
from firsthand.scorers.programs import oracle
from firsthand.scorers.resolved import END, START, script_parts
from firsthand.scorers.symbolic import boxed, minerva, same_answer
from firsthand.scorers.text import f1, token_f1
from firsthand.scorers.written import (
    bbh_exact,
    gsm8k_cot_strict,
    gsm8k_flexible,
    gsm8k_strict,
    mmlu_pro_tiger,
    simple_evals_letter,
)
from firsthand.task import Task
from firsthand.trace import Call, Event, Failure, Node, Score, Trace


def attempt(
    answer: str | None = None,
    *,
    said: Sequence[Sequence[str]] = (),
    scored: Sequence[tuple[str | None, Mapping[str, float]]] = (),
    events: Sequence[Event] = (),
) -> Trace:
    """An attempt with generations, each of several texts, and scorings, each of a prompt and the log-probs after it."""
    nodes: list[Node] = []
    calls: list[Call] = []
    for texts in said:
        places = tuple(range(len(nodes), len(nodes) + len(texts)))
        nodes += [Node(None, assistant(text)) for text in texts]
        calls.append(Call(f":{len(calls)}", "generate", None, 0.0, 0.0, "", nodes=places))
    for prompt, found in scored:
        detail = {"prompt": prompt, "likelihoods": [{"text": t, "logprob": value} for t, value in found.items()]}
        calls.append(Call(f":{len(calls)}", "score", None, 0.0, 0.0, "", detail=detail))
    common: dict[str, Any] = {"nodes": tuple(nodes), "calls": tuple(calls), "events": tuple(events), "answer": answer}
    return Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, **common)


def value(scorer: Any, said: str, /, **secret: Any) -> float:
    found: float = scorer(Task("1", "?", secret=secret), attempt(said)).value
    return found


def choice(gold: int, texts: Sequence[str], **fields: Any) -> Task:
    secret = {"gold": gold, "true": fields.pop("true", [gold])}
    return Task("1", "?", choices=tuple(texts), context="q", secret=secret, **fields)


@pytest.mark.parametrize("scorer", [acc, acc_norm, acc_bytes])
def test_the_first_of_equal_choices_is_chosen(scorer: Any) -> None:
    tied = attempt(scored=[("q", {" a": -3.0, " b": -2.0, " c": -2.0})])
    made = [scorer(choice(gold, (" a", " b", " c")), tied) for gold in range(3)]
    assert [score.value for score in made] == [0, 1, 0]
    assert {score.detail["chosen"] for score in made} == {"B"} and made[0].detail["by"] == "logprob"


def test_choices_are_normalised_by_characters_and_by_bytes_without_one_space() -> None:
    found = {
        " éé": -4.0,
        " abc": -5.1,
        "  x": -3.5,
    }  # per character -2, -1.7, -1.75 (one space stays); per byte -1, -1.7, -1.75
    trace = attempt(scored=[("q", found)])
    for scorer, right in ((acc, 2), (acc_norm, 1), (acc_bytes, 0)):
        assert [scorer(choice(gold, tuple(found)), trace).value for gold in range(3)] == [
            float(gold == right) for gold in range(3)
        ]


def test_mc1_compares_the_best_answer_with_false_ones_alone() -> None:
    texts = (" best", " also true", " false")
    for logprobs, right in (((-2.0, -1.0, -3.0), 1), ((-2.0, -3.0, -1.0), 0), ((-1.0, -2.0, -3.0), 1)):
        trace = attempt(scored=[("q", dict(zip(texts, logprobs, strict=True)))])
        assert mc1(choice(0, texts, true=[0, 1]), trace).value == right


def test_mc2_is_the_share_of_all_true_answers() -> None:
    texts = (" a", " b", " c", " d")
    odds = (1.0, 2.0, 4.0, 9.0)
    trace = attempt(scored=[("q", {text: math.log(odd) - 1000 for text, odd in zip(texts, odds, strict=True)})])
    assert mc2(choice(0, texts, true=[0, 2]), trace).value == pytest.approx(5 / 16)
    unscored = mc2(choice(0, texts), attempt("A"))
    assert unscored.failed and unscored.value == 0


def test_mutual_information_takes_off_the_log_prob_without_the_question() -> None:
    asked, alone = {" a": -3.0, " b": -4.0, " c": -6.0}, {" a": -2.0, " b": -7.0, " c": -8.5}
    trace = attempt(
        scored=[("q", asked), ("A:", alone)]
    )  # gains -1, 3, 2.5; the sums would choose A, and so do the questions
    made = [acc_mutual_info(choice(gold, tuple(asked), baseline="A:"), trace).value for gold in range(3)]
    assert made == [0, 1, 0]
    assert acc_mutual_info(choice(1, tuple(asked), baseline="A:"), attempt(scored=[("q", asked)])).failed


def test_a_written_choice_is_its_letter_or_its_whole_text_and_no_twice_given_text() -> None:
    task = choice(1, (" gray", " soft", " gray"))
    assert [chosen_letter(text, task) for text in ("c", "(B).", "SOFT", "gray", "D", "")] == [2, 1, 1, None, None, None]


def test_strict_takes_the_first_statement_of_a_text_and_the_last_generation() -> None:
    task = Task("1", "?", secret={"answer": "42"})
    assert strict(task, attempt("42", said=[["#### 41\n#### 42"]])).value == 0
    assert strict(task, attempt("42", said=[["#### 42\n#### 41"]])).value == 1
    assert strict(task, attempt("42", said=[["#### 42"], ["so 42"]])).value == 0  # only the last generation counts
    assert strict(task, attempt("41", said=[["#### 42"]])).value == 0  # the answer is another
    assert strict(task, attempt("$42.", said=[["no", "#### 42."]])).value == 1
    negative = Task("1", "?", secret={"answer": "-1,042"})
    assert strict(negative, attempt("-1042", said=[["#### -1,042"]])).value == 1


def test_articles_go_as_words_and_not_inside_words() -> None:
    assert normalise("The theatre an-other a banana") == "theatre another banana"
    assert value(normalised, "panthean", answer="pe") == 0 and value(normalised, "the  cat", answer="A cat!") == 1
    assert normalise("ＡＢＣ é") == "abc é"  # composed, as SQuAD has no accents
    assert value(best_subspan_em, "In the theatre.\nParis", answers=["Theatre"]) == 1
    assert value(best_subspan_em, "In the atre", answers=["the theatre"]) == 0
    assert value(best_subspan_em, "no\nParis", answers=["Paris"]) == 0  # the first line alone
    assert value(best_subspan_em, "banana split", answers=["banana a split"]) == 1
    assert f1("the cat sat", "a cat lay down") == pytest.approx(2 * 1 / (2 + 3))
    assert f1("", "") == 1 and f1("", "the") == 0 and f1("x", "the") == 0
    assert value(token_f1, "cat cat", references=["dog", "cat"]) == pytest.approx(2 / 3)


def test_numbers_are_equal_to_a_millionth_and_whole_ones_exactly() -> None:
    assert same_number("0.3333336", "1/3") and not same_number("0.3333337", "1/3")
    assert not same_number("3000001", "3000000") and same_number("-0.5", "-1/2") and not same_number("0.5", "-1/2")
    assert value(numeric, "x", answers=["x", "5"]) == 0 and value(numeric, "5", answers=["x", "5"]) == 1
    with pytest.raises(DataError, match=r"^task 1: the reference answer 'x' is no number that numeric reads"):
        value(numeric, "x", answer="x")
    assert value(exact, " a ", answer="a") == 1


def test_contained_references_are_counted() -> None:
    three = {"answers": ["One", "two", "three"]}
    assert value(string_match_all, "ONE and Two", **three) == pytest.approx(2 / 3)
    assert value(string_match_part, "two", **three) == 1 and value(string_match_part, "four", **three) == 0
    assert value(string_match, "two", match="part", **three) == 1
    assert value(string_match, "two", **three) == pytest.approx(1 / 3)
    assert value(contains_value, "it is TWO", answers=["two", "one"]) == 1
    assert value(contains_value, "it is one", answers=["two", "one"]) == 0


@pytest.mark.parametrize(
    ("scorer", "text", "answer", "expected"),
    [
        (gsm8k_strict, "#### 41\n#### 42", "42", 0),
        (gsm8k_strict, "#### -1,042.", "-1042", 1),
        (gsm8k_strict, "####42", "42", 0),
        (gsm8k_cot_strict, "The answer is 41. The answer is 42.", "42", 0),
        (gsm8k_cot_strict, "The answer is 42.", "42", 1),
        (gsm8k_flexible, "42 or 41", "42", 0),
        (gsm8k_flexible, "41, no, $1,042.", "1042", 1),
        (gsm8k_flexible, "it is -5", "-5", 1),
        (gsm8k_flexible, "it is 5", "-5", 0),
        (bbh_exact, "the answer is (A).\nthe answer is (B).", "(A)", 1),
        (bbh_exact, "the answer is (A). the answer is (B).", "(A)", 0),  # the rule takes the rest of the line
        (bbh_exact, "So the answer is  valid .", "valid", 1),
        (simple_evals_letter, "Answer: b\nAnswer: C", "B", 1),
        (simple_evals_letter, "ANSWER:$D$", "D", 1),
        (simple_evals_letter, "Answer: E", "E", 0),
        (mmlu_pro_tiger, "the answer is (J)", "J", 1),
        (mmlu_pro_tiger, "Answer: A\nor so. Answer: B", "A", 1),
        (mmlu_pro_tiger, "Answer: A\nthe answer is B", "B", 1),
        (mmlu_pro_tiger, "C then D", "D", 1),
    ],
)
def test_published_rules_take_the_statement_they_say(scorer: Any, text: str, answer: str, expected: int) -> None:
    assert value(scorer, text, answer=answer, options=10) == expected


def test_pass_at_k_is_the_share_of_subsets() -> None:
    assert pass_at_k(5, 2, 2) == pytest.approx(1 - 3 / 10) and pass_at_k(5, 4, 2) == 1 and pass_at_k(3, 0, 3) == 0
    assert pass_hat_k(5, 3, 2) == pytest.approx(3 / 10) and pass_hat_k(5, 1, 2) == 0 and pass_hat_k(4, 4, 4) == 1


def test_the_last_block_that_defines_the_function_is_run_after_the_prompts_imports() -> None:
    prompt = "import math\n\ndef f(x):\n    '''doc'''\n"
    said = "```python\ndef f(x):\n    return 1\n```\n```python\ndef f(x):\n    return 2\n```\n```python\nf(3)\n```"
    assert answered_code(said, prompt, "f") == "import math\n\ndef f(x):\n    return 2\n"
    assert preamble(prompt, "f") == "import math\n\n" and preamble(prompt, "g") == ""
    assert answered_code("    return x\n\nprint(f(1))", prompt, "f") == prompt + "    return x\n"
    assert answered_code("return x", prompt, "f") == prompt + "    return x"
    assert answered_code("```python\na = 1\n```\n```text\nb\n```") == "a = 1\n"


def test_votes_are_counted_as_shares_and_by_majority() -> None:
    three = Task("1", "?", secret={"votes": ["A", "B", "A"]})
    split = Task("1", "?", secret={"votes": ["A", "B", "tie", "A"]})
    assert human_agreement(three, attempt("A")).value == pytest.approx(2 / 3)
    assert human_agreement(three, attempt("?")).value == 0
    assert [majority_agreement(three, attempt(said)).value for said in ("A", "B", "tie")] == [1, 0, 0]
    assert (
        majority_agreement(split, attempt("A")).value == 0.5 and majority_agreement(split, attempt("B")).value == 0.25
    )
    assert [verdict_of(three, attempt(text)) for text in ("[[A]] or [[B]]", "[[C]]", "tie", "a", "[A]")] == [
        None, "tie", "tie", None, None,
    ]  # fmt: skip
    for orders, found in ((["A", "A"], 1), (["A", "tie"], 0)):
        event = Event("judgement", 0.0, data={"orders": orders})
        assert order_consistency(three, attempt("A", events=[event])).value == found
    assert order_consistency(three, attempt("A")).failed
    fields = {"answer_a": "four", "answer_b": "three"}
    assert longer_answer(Task("1", "?", metadata={"judge": {"fields": fields}})) == "B"
    assert longer_answer(Task("1", "?", metadata={"judge": {"fields": {"answer_a": "ab", "answer_b": "cd"}}})) is None


@pytest.mark.parametrize(("verdict", "winner"), [("A", "a"), ("B", "b"), ("tie", "tie")])
def test_a_verdict_on_a_pair_is_a_vote_for_its_side(verdict: str, winner: str) -> None:
    ours, theirs = replace(attempt("x"), id="mine"), replace(attempt("y"), id="theirs")
    judge = JudgeScorer(
        "pairwise", Agent("judge", Scripted([]), direct), "pairwise", against="other", rivals={("b", "1", 0): theirs}
    )
    made = judge.preference(ours, Score("pairwise", 0.9, {"verdict": verdict}))
    assert made is not None and (made.task_id, made.a, made.b, made.winner) == ("1", "mine", "theirs", winner)
    assert judge.preference(replace(ours, epoch=1), Score("pairwise", 0.9, {"verdict": verdict})) is None
    assert judge.preference(ours, Score("pairwise", 0.0, failure="no verdict")) is None


def test_agreement_is_of_the_first_epoch_and_attempts_without_a_verdict_are_counted() -> None:
    tasks = {("b", "1"): Task("1", "?", secret={"votes": ["A"]}, metadata={"cluster": "q"})}
    orders = Event("judgement", 0.0, {"orders": ["A", "B"], "first": 0.75, "by": "logprob"})
    ruled = Event("judgement", 0.0, {"orders": ["A", "A"], "first": 0.5, "by": "rule: one answer is empty"})
    traces = [attempt("A", events=[orders]), attempt("[[B]]", events=[ruled]), attempt("none"), attempt("C")]
    items, missing = judged_items(tasks, [*traces, replace(traces[0], epoch=1), replace(traces[2], epoch=1)])
    assert missing == 1 and [item.verdict for item in items] == ["A", "B", "tie"]
    assert [(item.first, item.consistent, item.cluster) for item in items] == [
        (0.75, False, "q"),
        (None, None, "q"),
        (None, None, "q"),
    ]
    failed = replace(traces[0], error=Failure("ModelError", "gone"))
    assert judged_items(tasks, [failed]) == ([], 1)


FUNCTION = {
    "name": "f",
    "parameters": {
        "properties": {
            "n": {"type": "integer"},
            "x": {"type": "float"},
            "s": {"type": "string"},
            "l": {"type": "array", "items": {"type": "integer"}},
            "d": {"type": "dict"},
        },
        "required": ["n"],
    },
}
ACCEPTED: dict[str, list[Any]] = {
    "n": [1],
    "x": [2.0, ""],
    "s": ["New York", ""],
    "l": [[1, 2], ""],
    "d": [{"k": [1, ""]}, ""],
}


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"n": 1}, True), ({}, False), ({"n": 2}, False),
        ({"n": 1.0}, False), ({"n": True}, False), ({"n": 1, "y": 1}, False),
        ({"n": 1, "x": 2}, True), ({"n": 1, "x": 2.5}, False), ({"n": 1, "s": "new-york"}, True),
        ({"n": 1, "s": "new york city"}, False), ({"n": 1, "l": [1, 2]}, True), ({"n": 1, "l": [2, 1]}, False),
        ({"n": 1, "d": {"k": 1}}, True), ({"n": 1, "d": {}}, True),
        ({"n": 1, "d": {"k": 2}}, False), ({"n": 1, "d": {"j": 1}}, False),
    ],
)  # fmt: skip
def test_a_call_is_right_by_type_and_by_accepted_value(arguments: dict[str, Any], right: bool) -> None:
    assert (call_problem(MadeCall("f", arguments), FUNCTION, ACCEPTED) == "") is right
    needed = {**ACCEPTED, "s": ["a"]}  # not optional, though not required by the schema
    assert call_problem(MadeCall("f", {"n": 1}), FUNCTION, needed) == "f was called without 's'"
    assert call_problem(MadeCall("g", {"n": 1}), FUNCTION, ACCEPTED)
    assert call_problem(MadeCall("f", {"n": 1, "l": [1.0, 2]}), FUNCTION, {"n": [1], "l": [[1, 2]]})


def test_expected_calls_are_matched_once_each_in_any_order() -> None:
    one, two = MadeCall("f", {"n": 1}), MadeCall("f", {"n": 2})
    both = [{"f": {"n": [1]}}, {"f": {"n": [2]}}]
    assert mismatch([two, one], [FUNCTION], both) == ""
    assert mismatch([one, one], [FUNCTION], both) and mismatch([one], [FUNCTION], both)
    assert mismatch([one, two, two], [FUNCTION], both)
    assert mismatch([one, two], [FUNCTION], [both[0], both[0]])  # a call is one of the expected ones, and not two
    assert mismatch([one, one], [FUNCTION], [both[0], both[0]]) == "" and mismatch([], [], []) == ""
    calls, why = read_calls("[a.f(n=-1, s='x'), g(l=[1, (2, 3)], z=2*3)]")
    assert why == "" and [call.name for call in calls] == ["a.f", "g"]
    assert calls[0].arguments == {"n": -1, "s": "x"} and calls[1].arguments == {"l": [1, (2, 3)], "z": 6}
    assert read_calls("f(1)")[0][0].arguments == {} and read_calls("x")[1]


@pytest.mark.parametrize(
    ("instruction", "arguments", "yes", "no"),
    [
        ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "less than"}, "a b", "a a"),
        ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "at least"}, "a A", "a b"),
        ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, "rocket", "a rock"),
        ("keywords:letter_frequency", {"letter": "o", "let_frequency": 2, "let_relation": "less than"}, "O b", "oO"),
        ("length_constraints:number_words", {"num_words": 2, "relation": "at least"}, "one two", "one"),
        ("length_constraints:number_words", {"num_words": 2, "relation": "less than"}, "one", "one two"),
        ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "One.", "One. Two."),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a *** b ***", "a *** *** b"),
        ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b] [c]", "[a]"),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n  - b", "** a\n- b"),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*a*", "**"),
        ("detectable_format:multiple_sections", {"section_spliter": "S", "num_sections": 2}, "S 1 a S 2 b S 3", "S 1"),
        ("detectable_format:title", {}, "<<a>>", "<<>>"),
        ("combination:two_responses", {}, "a\n******\nb", "a\n******\nb\n******\nc"),
        ("combination:two_responses", {}, "******\na\n******\nb\n******\n", "a\n******\n******\nb"),
        ("startend:end_checker", {"end_phrase": "x"}, 'end X"', "x end"),
        ("startend:quotation", {}, ' "a" ', '"'),
        ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}, "AA b", "AA BB"),
        ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "a"},
         "A. x\n\nb", "b\n\na"),
    ],
)  # fmt: skip
def test_instructions_hold_at_their_bounds(instruction: str, arguments: dict[str, Any], yes: str, no: str) -> None:
    assert follows(yes, instruction, arguments) and not follows(no, instruction, arguments)


def test_loose_versions_drop_the_first_line_the_last_and_both() -> None:
    cut = ["*a*\nb\n c", "b\n c", "*a*\nb", "b"]
    assert versions("*a*\nb\n c") == [*cut, *(text.replace("*", "") for text in cut)]
    assert count_sentences("He met J. Smith, i.e. him. Then he left") == 2


def test_mathematics_is_compared_by_structure() -> None:
    assert same_answer("(1,2)", "(1, 2)") and not same_answer("(1,2)", "(1,2,3)") and not same_answer("[1,2]", "(1,2]")
    assert same_answer(r"\{1,1,2\}", r"\{2,1\}") and not same_answer(r"\{1,1,2\}", r"\{1,2,3\}")  # as sets
    assert same_answer("2^{10}", "1024") and not same_answer("2^{-1}", "-2") and same_answer("7/14", r"\frac12")
    assert not same_answer("x+1", "x+1.0001")
    assert value(boxed, r"\boxed{1} then \boxed{2}", answer="2") == 1 and value(boxed, "2" + " " * 100, answer="2") == 0
    said = "Final Answer: The final answer is 2. I hope it is correct.\n3"
    assert value(minerva, said, answer="2") == 1 and value(minerva, said, answer="3") == 0
    twice = f"{said}\nFinal Answer: The final answer is 5. I hope it is correct."
    assert value(minerva, twice, answer="2") == 1 and value(minerva, twice, answer="5") == 0  # the first counts


def test_floats_get_a_tolerance_of_their_own_and_roots_only_the_problems() -> None:
    def held(answer: float, inputs: str, atol: float, rule: str) -> bool:
        try:
            oracle.compare_outputs(lambda *case: answer, "f", "def f(*case):\n    return 0.5", inputs, atol, rule)
        except AssertionError:
            return False
        return True

    assert held(0.5 + 5e-7, "[[1]]", 0, "equal") and not held(0.5 + 2e-6, "[[1]]", 0, "equal")
    assert held(0.0, "[[[0.0, 1.0]]]", 0, "root") and not held(1e-8, "[[[0.0, 1.0]]]", 0, "root")


EQUALITIES = r"""
36 \text{ km/h}  =  10 \text{ m/s}
60 \text{ miles per hour}  =  1 \text{ mile per minute}
60 \text{ miles per minute}  #  1 \text{ mile per hour}
5 \text{ m/s}  #  5 \text{ m}
1 \text{ m}^2  =  10000 \text{ cm}^2
1 \text{ m}^2  #  100 \text{ cm}^2
1 \text{ m}^3  =  1000000 \text{ cm}^3
1 \text{ square foot}  =  144 \text{ square inches}
1 \text{ hour}  =  60 \text{ minutes}
2 \text{ dollars}  =  200 \text{ cents}
\$2  =  2
\$2  #  2 \text{ cents}
12 \text{ cm}  =  12
12 \text{ cm}  #  12 \text{ cm}^2
3 \text{ pounds}  #  3 \text{ kg}
1 \text{ week}  =  7 \text{ days}
5 \text{ apples}  =  5
5 \text{ apples}  #  5 \text{ pears}
50\%  =  50
50\%  =  0.5
1\%  =  1
0.5\%  #  0.5
0.99\%  #  0.99
50\%  =  \frac{1}{2}
50\%  =  50\%
0\%  =  0
90^\circ  =  90
90^\circ  =  \frac{\pi}{2}
90^\circ  #  91
x < 3  =  3 > x
-x < -3  =  x > 3
-2x \le 6  =  x \ge -3
-2x \le 6  #  x \le -3
x < 3  #  x \le 3
1 < x \ge 1  =  x > 1
1 \le x > 1  =  x > 1
1 > x \le 1  =  x < 1
1 < x \ge 1  #  x \ge 1
1 < x \le 3  =  (1,3]
1 < x \le 3  #  [1,3]
|x| < 3  =  (-3,3)
|x| \le 3  =  [-3,3]
x \ne 2  =  (-\infty,2)\cup(2,\infty)
(-\infty,2)\cup(1,\infty)  =  \mathbb{R}
[1,2]\cup[2,3]  =  [1,3]
[1,2)\cup(2,3]  #  [1,3]
\mathbb{R}\setminus\{2\}  =  (-\infty,2)\cup(2,\infty)
[1,3]\setminus\{2\}  =  [1,2)\cup(2,3]
x=2  =  2
x=2  #  y=2
x=1, y=2  =  y=2, x=1
x=1, x=2  =  x=2, x=1
2x+4=0  =  x+2=0
2x+4=0  #  x+3=0
y = 2x+1  =  2x - y + 1 = 0
\pm 2  =  2, -2
1 \pm \sqrt{2}  =  1+\sqrt2, 1-\sqrt2
\pm 2  #  2
3, 1, 2  =  1, 2, 3
3, 1  #  1, 1, 3
(3,1)  #  (1,3)
\{3,1\}  =  \{1,3\}
2:3  =  4:6
1:2:3  =  2:4:6
1:2:3  #  2:4:5
\begin{pmatrix}1&2\\3&4\end{pmatrix}  =  \begin{bmatrix}1&2\\3&4\end{bmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix}  #  \begin{pmatrix}1&3\\2&4\end{pmatrix}
\frac{1}{\sqrt2}  =  \frac{\sqrt2}{2}
\sqrt[3]{-8}  =  -2
\sqrt{x^2}  #  x
\log_2 8  =  3
\ln e^2  =  2
\log 100  =  2
\lg 1000  =  3
\sin^{-1} 1  =  \frac{\pi}{2}
\sin^2 x + \cos^2 x  =  1
\binom{5}{2}  =  10
5!  =  120
\lfloor -1.5 \rfloor  =  -2
\lceil -1.5 \rceil  =  -1
|{-3}|  =  3
0.\overline{3}  =  \frac13
0.1\overline{6}  =  \frac16
0.333  #  \frac13
1\frac12  =  1.5
-1\frac12  =  -1.5
1,234  =  1234
12 345  =  12345
1.5e3  =  1500
(x+1)^2  =  x^2+2x+1
(x+1)^2  #  x^2+1
e^{i\pi}  =  -1
2^{-3}  =  \frac18
2^-3  =  \frac18
x^-1  =  \frac{1}{x}
2^-3  #  8
101_2  =  101_2
101_2  #  101_3
101_2  #  5
\text{ACF}  =  ACF
\text{yes}  =  Yes
no solution  =  \emptyset
all real numbers  =  \mathbb{R}
seven  =  7
\infty  #  -\infty
x \in [1,2]  =  [1,2]
5 7  #  57
\frac{3}{4}  =  0.75
2\sqrt{3}  =  \sqrt{12}
"""
"""Answers that are the same (=) or not (#): units, percent, sets, relations, lists, values."""


@pytest.mark.parametrize("line", EQUALITIES.strip().split("\n"))
def test_answers_are_equal_as_a_mathematician_reads_them_whichever_is_the_reference(line: str) -> None:
    left, _, right = line.partition("  =  ") if "  =  " in line else line.partition("  #  ")
    assert same_answer(left, right) is same_answer(right, left) is ("  =  " in line)


STATUSES = ("PASSED", "XFAIL", "SKIPPED", "ERROR", "FAILED")


@pytest.mark.parametrize("one", STATUSES)
@pytest.mark.parametrize("two", STATUSES)
@pytest.mark.parametrize("form", ["{0} a.py::t", "a.py::t {0}"])
def test_a_test_with_two_results_passed_if_both_did_and_is_kept_if_none_failed(one: str, two: str, form: str) -> None:
    results = read_log(f"{form.format(one)}\n{form.format(two)}\n", "pytest")
    both = {one, two}
    assert passed("a.py::t", results) is (both <= {"PASSED", "XFAIL"})
    assert kept("a.py::t", results) is (both <= {"PASSED", "XFAIL", "SKIPPED"})
    assert passed("a.py::t", results, fail_only=True) is both.isdisjoint({"FAILED", "ERROR"})
    assert not passed("a.py::other", results) and passed("a.py::other", results, fail_only=True)


@pytest.mark.parametrize(
    ("text", "found", "right"),
    [
        ("Answer: 1. Answer: 2.", "2", 1), ("Answer: 2. Answer: 1.", "1", 0), ("answer: 2", None, 0),
        ("Answer: TWO", "TWO", 0), ("", None, 0),
    ],
)  # fmt: skip
def test_an_own_expression_takes_its_last_match(text: str, found: str | None, right: int) -> None:
    score = familiar.regex(pattern=r"Answer: (\w+)")(Task("1", "?", secret={"answer": "2"}), attempt(text))  # type: ignore[misc]
    assert (score.value, score.detail) == (right, {"found": found})
    whole = familiar.regex(pattern=r"[0-9]+")(Task("1", "?", secret={"answers": ["7", "2"]}), attempt("7 8 2"))  # type: ignore[misc]
    assert whole.value == 1 and whole.detail == {"found": "2"}
    as_reference = familiar.regex()
    for reference, value in (("^a.c$", 1), ("b", 1), ("x|c", 1), ("d", 0), ("B", 0)):
        assert as_reference(Task("1", "?", secret={"answer": reference}), attempt("abc")).value == value  # type: ignore[misc]


@pytest.mark.parametrize(
    ("answer", "included", "contained"),
    [
        ("The Cat sat", 1, 1), ("the cat sat", 1, 0), ("a dog", 0, 0), ("", 0, 0), ("Cat" + "x" * 20_000, 1, 1),
        ("Cat" + "x" * 999_997, 1, 1), ("Cat" + "x" * 999_998, 0, 0), ("x" * 999_998 + "Cat", 0, 0),
    ],
    ids=lambda each: f"{str(each)[:12]}-{len(str(each))}",
)  # fmt: skip
def test_includes_ignores_case_and_contains_does_not(answer: str, included: int, contained: int) -> None:
    task = Task("1", "?", secret={"answers": ["Cat", "Dogs", ""]})
    assert familiar.includes(task, attempt(answer)).value == included
    assert familiar.contains(task, attempt(answer)).value == contained


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("B", "B"),
        ("(b).", "B"),
        ("green", "B"),
        ("The answer is B", "B"),
        ("Answer: (A)", "A"),
        ("blue", None),
        ("", None),
    ],
)
def test_a_named_choice_is_its_letter_its_text_or_a_stated_answer(answer: str, chosen: str | None) -> None:
    task = Task("1", "?", choices=("red", "green"), secret={"gold": 1})
    score = familiar.choice(task, attempt(answer))
    assert (score.value, score.detail) == (float(chosen == "B"), {"chosen": chosen})


@pytest.mark.parametrize(
    ("a", "b", "longer"), [(3, 3, None), (4, 3, "A"), (3, 4, "B"), (0, 1, "B"), (9, 0, "A"), (0, 0, None)]
)
def test_the_longer_answer_has_a_character_more(a: int, b: int, longer: str | None) -> None:
    fields = {"answer_a": "x" * a, "answer_b": "y" * b}
    assert longer_answer(Task("1", "?", metadata={"judge": {"fields": fields}})) == longer


def test_the_words_about_judgements_count_each_kind_apart() -> None:
    base = {"judge": "m", "protocol": "p", "calls": 2, "tokens": 1000, "cost_usd": 0.25}
    details = [
        {**base, "by": "verdict", "orders": ["A", "A"], "first": 0.5},
        {**base, "by": "verdict", "orders": ["A", "B"], "first": 1.0, "forged": ["<end>"]},
        {**base, "by": "", "orders": ["A", "A"], "first": 0.75},
        {**base, "by": "verdict", "orders": ["A"], "first": 1.0},
        {**base, "by": "rule: equal texts", "orders": ["tie", "tie"], "first": 1.0},
        {**base, "by": "likelihood"},
        {"found": "no judge"},
    ]
    about = about_judge([Score("s", 1.0, detail=detail) for detail in details])
    assert about["judge"] == "m, protocol p" and about["judging"] == "12 calls, 6,000 tokens, $1.5000"
    assert about["verdicts"] == "3 by verdict, 1 without, 1 by rule: equal texts, 1 by likelihood"
    assert about["position"].endswith("with probability 0.75; same verdict in both orders: 67%")
    assert about["forged"].startswith("1 answers")
    assert "position" not in about_judge([Score("s", 1.0, detail=details[5])]) and not about_judge([Score("s", 1.0)])


def test_a_test_command_stands_between_the_last_markers() -> None:
    script = f"setup\n{START}\nold\n  {START}  \ntests\nmore\n{END}\nafter\n"
    assert script_parts(script) == (f"setup\n{START}\nold", "tests\nmore")
    again = f"{START}\none\n{END}\nbetween\n{START}\ntwo\n{END}\n{START}"
    assert script_parts(again) == (f"{START}\none\n{END}\nbetween", "two")
    for broken in ("", START, f"{START}\n \n{END}", f"{END}\n{START}\ntests", f"{START} x\ntests\n{END}"):
        with pytest.raises(DataError, match="no test command"):
            script_parts(broken)
