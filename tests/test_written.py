"""Written answers: each published rule of extraction finds what it says, and mathematics is compared without being run."""

import dataclasses
import itertools
import json
import os
import re
import tomllib
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import at_most_cpu_s
from firsthand import catalog
from firsthand.errors import DataError, UnknownName
from firsthand.scorers.instructions import (
    VERIFIERS,
    count_sentences,
    follows,
    instruction_loose,
    instruction_strict,
    prompt_loose,
    prompt_strict,
    versions,
)
from firsthand.scorers.mathematics.answer_text import plain
from firsthand.scorers.mathematics.latex import parse
from firsthand.scorers.symbolic import boxed, comparison, minerva, same_answer
from firsthand.scorers.written import (
    bbh_exact,
    gsm8k_cot_strict,
    gsm8k_flexible,
    gsm8k_strict,
    mmlu_pro_letter,
    mmlu_pro_tiger,
)
from firsthand.task import Task
from firsthand.trace import Trace

SHARED = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs_data = pytest.mark.skipif(not (SHARED / "math").is_dir(), reason="the full data is not on this machine")
EMPTY = Trace("t", "b", "a", {"name": "n"}, 0, 0, "2026-01-01T00:00:00+00:00", 0.0)


@pytest.fixture(autouse=True)
def a_clean_place(monkeypatch, tmp_path):
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def value(scorer, text, **secret):
    return scorer(Task("a", "p", secret=secret), dataclasses.replace(EMPTY, answer=text)).value


@pytest.mark.parametrize(
    ("scorer", "text", "answer", "expected"),
    [
        (gsm8k_strict, "So 40 + 2.\n#### 42", "42", 1),
        (gsm8k_strict, "#### 1,042.", "1042", 1),
        (gsm8k_strict, "#### 41\n#### 42", "42", 0),  # the first one counts
        (gsm8k_strict, "the answer is 42", "42", 0),
        (gsm8k_flexible, "the answer is $42.", "42", 1),
        (gsm8k_flexible, "first 42, then 7", "42", 0),
        (gsm8k_flexible, "it is 42.50", "42.5", 0),  # compared as text, as the harness does
        (gsm8k_flexible, "none", "42", 0),
        (gsm8k_cot_strict, "The answer is 42.\n\nQ: x The answer is 1.", "42", 1),
        (gsm8k_cot_strict, "the answer is 42.", "42", 0),
        (bbh_exact, "Then so the answer is (B).", "(B)", 1),
        (bbh_exact, "So the answer is valid", "valid", 0),  # the rule drops the last character, a full stop or not
        (mmlu_pro_letter, "so the answer is (C). No, the answer is (D)", "C", 1),
        (mmlu_pro_letter, "Answer: C", "C", 0),
    ],
)
def test_each_rule_finds_what_it_says(scorer, text, answer, expected):
    assert value(scorer, text, answer=answer) == expected


def test_tiger_tries_three_rules_and_then_guesses_the_same_for_as_many_options():
    assert value(mmlu_pro_tiger, "the answer is (C)", answer="C", options=10) == 1
    assert value(mmlu_pro_tiger, "Answer: C", answer="C", options=10) == 1
    assert value(mmlu_pro_tiger, "it may be C or maybe D.", answer="D", options=10) == 1
    for options in range(2, 11):
        guess = "ABCDEFGHIJ"[Random(12345).randint(0, options - 1)]
        assert value(mmlu_pro_tiger, "no idea", answer=guess, options=options) == 1
        assert value(mmlu_pro_letter, "no idea", answer=guess, options=options) == 0
    assert value(mmlu_pro_tiger, "no idea", answer="A", options=10) == 0


TOPICS = tomllib.loads((Path(__file__).parent / "data" / "math_pairs.toml").read_text())


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if topic != "not_yet"])
def test_pairs_of_answers_get_the_verdict_of_a_mathematician(topic):
    for verdict in ("same", "different"):
        wrong = [pair for pair in TOPICS[topic][verdict] if same_answer(*pair) != (verdict == "same")]
        assert not wrong, f"not {verdict}"


def test_the_table_of_pairs_is_broad_and_says_what_is_still_wrong():
    pairs = [pair for kinds in TOPICS.values() for kind in kinds.values() for pair in kind]
    assert len(pairs) > 600 and len(TOPICS) > 25
    assert [pair for pair in TOPICS["not_yet"]["same"] if same_answer(*pair)] == []  # move one that is right now


@given(
    st.text(alphabet="0123456789.,+-*/^_()[]{}\\|!%$&<>=: abexyzip½√°×", max_size=40),
    st.sampled_from(["3", "x^2", "1,2", "(0,1)"]),
)
def test_any_text_gets_a_verdict(text, reference):
    assert same_answer(text, reference) in (True, False)
    assert same_answer(text, text) is bool(plain(text))


@pytest.mark.slow
@pytest.mark.parametrize(
    "hostile",
    [
        "9**9**9", "9^{9^{9^{9}}}", "10^{10^{10}}!", "((((" * 300, r"\frac{" * 200,
        "__import__('os').system('touch {mark}')",
        "exec(open('{mark}','w'))", "lambda: 0", "x" * 100_000, "\\" * 500, "{" * 499, "2^" * 200 + "2", "1/0", "0^{-1}",
        "{" * 40 + "1" + "}" * 40, "[" * 30 + "1" + "]" * 30, r"\pm" * 200 + "1", ",".join(["\\sqrt{x}"] * 60),
        "1," * 249 + "1",
        "|" * 400, "1" * 499, "1e" + "9" * 400, r"\binom{999}{499}!", r"\{" * 40 + "1" + r"\}" * 40, "-" * 450 + "1",
        "1+" * 240 + "1",
        r"\cup".join(["(0,1)"] * 80), r"\exp(\exp(\exp(\exp(99))))", "0." + r"\overline{" + "3" * 400 + "}",
        r"\sqrt[0]{5}", r"\log_1 5", "((((((((((((9!)!)!)!)!)!)!)!)!)!)!)!", "\ud800", "\0",
    ],
)  # fmt: skip
def test_hostile_answers_are_wrong_at_once_and_nothing_of_them_runs(hostile, tmp_path):
    mark = tmp_path / "mark"
    with at_most_cpu_s(5):
        for reference in ("3", "x^2", r"\sqrt{2}", ",".join(["\\sqrt{y}"] * 60), "[0,1]", "y=3"):
            assert not same_answer(hostile.replace("{mark}", str(mark)), reference)
    assert not mark.exists()


def test_the_method_of_each_verdict_is_recorded():
    tower = "x^{5^{5^{5}}}"
    assert comparison(tower, tower + "+0") == (False, "points")  # no point where both have a value
    assert comparison(r"\sin(x)^{2}+\cos(x)^{2}", "1") == (True, "points")
    assert comparison("0.5", r"\frac12") == (True, "numbers")
    assert comparison("(1,2)", "(1, 2 )") == (True, "text") and comparison("[0,1]", r"0 \le x \le 1") == (True, "tree")
    assert comparison(r"\int x", r"\int x dx") == (False, "unread")


def test_answers_are_found_where_the_protocols_say():
    assert value(boxed, r"so \boxed{\frac{1}{2}} or \boxed{\dfrac{3}{4}}.", answer=r"\frac34") == 1
    assert value(boxed, "0.75", answer=r"\frac34") == 1 and value(boxed, "x" * 101 + "0.75", answer="0.75") == 0
    assert value(boxed, r"\boxed{5", answer="5") == 0
    said = "We get 5.\nFinal Answer: The final answer is $5$. I hope it is correct."
    assert value(minerva, said, answer="5") == 1 and value(minerva, r"\boxed{5}", answer="5") == 0


@pytest.mark.slow
@needs_data
def test_every_reference_of_math_is_understood_and_equals_its_common_respellings():
    rows = [json.loads(line) for line in (SHARED / "math" / "math500.jsonl").read_text().splitlines()]
    assert len(rows) == 500 and [row["answer"] for row in rows if parse(row["answer"]) is None] == []
    respellings = (
        lambda text: f" ${text}$ ", lambda text: text.replace(r"\frac", r"\dfrac"), lambda text: f"\\boxed{{{text}}}",
        lambda text: re.sub(r"_(\d)$", r"_{\1}", text), lambda text: re.sub(r",\\!\s*", ",", text), lambda text: text + ".",
        lambda text: text.replace("(", "\\left(").replace(")", "\\right)") if "left" not in text else text,
        lambda text: re.sub(r"([-+=])", r" \1 ", text), lambda text: text.replace(r"\pi", "π").replace(r"\infty", "∞"),
        lambda text: re.sub(r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2", text), lambda text: text.replace(r"\text", r"\textbf"),
        lambda text: re.sub(r"\\sqrt\{(\d)\}", r"√\1", text), lambda text: text.replace("^\\circ", "°"),
    )  # fmt: skip
    for respelled in respellings:
        assert [row["answer"] for row in rows if not same_answer(respelled(row["answer"]), row["answer"])] == []
    tasks = catalog.benchmark(f"math500:data={SHARED}").tasks(0)
    made = [value(boxed, row["solution"], **task.secret) for row, task in zip(rows, tasks, strict=True)]
    assert sum(made) == 500
    others = [same_answer(row["answer"], other["answer"]) for row, other in itertools.pairwise(rows)]
    assert sum(others) == 3  # neighbours whose answers are truly equal


@pytest.mark.slow
@needs_data
def test_protocols_of_written_benchmarks_hold_their_examples():
    math = catalog.benchmark(f"math@minerva-4shot:data={SHARED}").tasks(0)
    assert len(math) == 5000 and math[0].context.count("Problem:\n") == 5 and math[0].verbatim
    assert math[0].sampling == {"stop": ("Problem:",), "max_tokens": 1024, "temperature": 0.0}
    bbh = catalog.benchmark(f"bbh:data={SHARED}").tasks(0)
    assert len(bbh) == 6511 and {task.context.count("\nQ: ") for task in bbh} == {4}
    assert all("canary" not in task.context for task in bbh)
    for name in ("sports_understanding", "word_sorting"):  # as the harness writes them
        (first, *_) = catalog.benchmark(f"bbh:task={name}:data={SHARED}").tasks(0)
        assert first.context.count("\nA: Let's think step by step.\n") == 4
    one = catalog.benchmark(f"bbh:task=word_sorting:data={SHARED}").tasks(0)
    assert len(one) == 250
    with pytest.raises(UnknownName, match="did you mean 'word_sorting'"):
        catalog.benchmark(f"bbh:task=word_sort:data={SHARED}")
    strict = catalog.benchmark(f"gsm8k@lm-eval-5shot-strict:data={SHARED}").tasks(0)
    assert strict[0].context.count("Question: ") == 6 and strict[0].context.count("#### ") == 5
    assert strict[0].context != strict[1].context.replace(strict[1].prompt, strict[0].prompt)  # drawn anew


def test_mmlu_pro_shows_its_category_and_drops_what_is_not_applicable(tmp_path):
    row = {
        "question_id": 7, "question": "Q?", "options": ["x ", "N/A", "y"], "answer": "B", "answer_index": 1,
        "category": "law", "cot_content": "A: Let's think step by step. It is y. The answer is (B).",
    }  # fmt: skip
    for split, question in (("test", "Q?"), ("validation", "V?")):
        rows = [json.dumps({**row, "question": question}) + "\n" for _ in range(5)]
        (tmp_path / f"mmlu_pro_{split}.jsonl").write_text("".join(rows))
    (task, *_) = catalog.benchmark(f"mmlu_pro:data={tmp_path}").tasks(0)
    asked = "Question:\nQ?\nOptions:\nA. x \nB. y\nAnswer: Let's think step by step."
    shown = asked.replace("Q?", "V?")
    assert task.context.startswith("The following are multiple choice questions (with answers) about law. Think step")
    assert task.context.endswith(f" It is y. The answer is (B).\n\n{asked}") and task.context.count(shown) == 5
    assert task.secret == {"gold": 1, "answer": "B", "options": 2} and task.prompt == "Q?\nA. x \nB. y"
    harness = catalog.benchmark(f"mmlu_pro@lm-eval:data={tmp_path}").tasks(0)[0]
    assert "A. x\nB. y" in harness.context
    (tmp_path / "mmlu_pro_test.jsonl").write_text(json.dumps({**row, "answer": "A"}) + "\n")
    with pytest.raises(DataError, match="line 1: 'answer_index' is 1 and 'answer' 'A'"):
        catalog.benchmark(f"mmlu_pro:data={tmp_path}")


@pytest.mark.slow
@needs_data
def test_mmlu_and_truthfulqa_read_the_authors_files():
    made = catalog.benchmark(f"mmlu@lm-eval-0shot:subject=anatomy:data={SHARED}")
    first = made.tasks(0)[0]
    assert len(made.tasks(0)) == 135 and first.metadata["stratum"] == "anatomy"
    assert first.scored[0][0].startswith(
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
    )
    assert [text for _, text in first.scored] == [" A", " B", " C", " D"]
    with pytest.raises(DataError, match="subject is 'anatomie': give one of abstract_algebra"):
        catalog.benchmark(f"mmlu@cloze:subject=anatomie:data={SHARED}")
    asked = catalog.benchmark(f"truthfulqa:data={SHARED}").tasks(0)
    assert (
        len(asked) == 813
        and asked[0].context.count("Q: ") == 7
        and asked[0].secret["true"][0] == asked[0].secret["gold"]
    )


def test_a_broken_archive_is_a_sentence(tmp_path):
    (tmp_path / "mmlu_csv.zip").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(DataError, match="not a complete zip file"):
        catalog.benchmark(f"mmlu:data={tmp_path}")


FOLLOWED = {
    "keywords:existence": ("Red and BLUE.", "Red.", {"keywords": ["red", "blue"]}),
    "keywords:frequency": ("a a b", "a b", {"keyword": "a", "frequency": 2, "relation": "at least"}),
    "keywords:forbidden_words": ("rocket", "a Rock.", {"forbidden_words": ["rock"]}),
    "keywords:letter_frequency": ("#a #b", "#a", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}),
    "language:response_language": (
        "Das ist ein ganz gewöhnlicher deutscher Satz.", "This is a plain English sentence.", {"language": "de"},
    ),
    "length_constraints:number_sentences": ("One. Two!", "One.", {"num_sentences": 2, "relation": "at least"}),
    "length_constraints:number_paragraphs": ("a\n***\nb", "a\n\nb", {"num_paragraphs": 2}),
    "length_constraints:number_words": ("one two", "one two three", {"num_words": 3, "relation": "less than"}),
    "length_constraints:nth_paragraph_first_word": (
        "a\n\n'Hello, b", "a\n\nb Hello", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "hello"},
    ),
    "detectable_content:number_placeholders": ("[a] [b]", "[a] b", {"num_placeholders": 2}),
    "detectable_content:postscript": ("Bye\nP.S. x", "Bye ps", {"postscript_marker": "P.S."}),
    "detectable_format:number_bullet_lists": ("* a\n- b", "* a\n- b\n* c", {"num_bullets": 2}),
    "detectable_format:constrained_response": ("My answer is yes.", "Yes.", {}),
    "detectable_format:number_highlighted_sections": ("*a* *b*", "*a* b", {"num_highlights": 2}),
    "detectable_format:multiple_sections": (
        "SECTION 1\na\nSECTION 2", "SECTION 1", {"section_spliter": "SECTION", "num_sections": 2},
    ),
    "detectable_format:json_format": ('```json\n{"a": 1}\n```', "{a}", {}),
    "detectable_format:title": ("<<T>>\nx", "<< >>", {}),
    "combination:two_responses": ("a\n******\nb", "a\n******\na", {}),
    "combination:repeat_prompt": ("Do it. Done.", "Done.", {"prompt_to_repeat": "do it."}),
    "startend:end_checker": ('x. The End."', "The End. x", {"end_phrase": "the end."}),
    "startend:quotation": ('"a"', 'a"', {}),
    "change_case:capital_word_frequency": ("AA BB c", "AA b", {"capital_frequency": 2, "capital_relation": "at least"}),
    "change_case:english_capital": ("THIS IS AN ENGLISH SENTENCE.", "This is an English sentence.", {}),
    "change_case:english_lowercase": ("this is an english sentence.", "This is an English sentence.", {}),
    "punctuation:no_comma": ("a b", "a, b", {}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", VERIFIERS)
def test_every_instruction_is_verified_both_ways(name):
    yes, no, arguments = FOLLOWED[name]
    assert follows(yes, name, arguments) and not follows(no, name, arguments) and not follows("  ", name, arguments)


def test_strict_and_loose_count_prompts_and_instructions():
    both = [["punctuation:no_comma", {}], ["startend:end_checker", {"end_phrase": "done."}]]
    text = "Sure, here it is:\n*It is done.*"
    found = {s.__name__: value(s, text, instructions=both) for s in (prompt_strict, prompt_loose)}
    assert found == {"prompt_strict": 0, "prompt_loose": 1}
    assert value(instruction_strict, text, instructions=both) == 0
    assert value(instruction_loose, text, instructions=both) == 1
    assert value(instruction_strict, "a, done.", instructions=both) == 0.5
    assert len(versions("a\nb\nc")) == 8 and versions("*a*\nb\nc")[-1] == "b"


def test_sentences_are_counted_by_a_stated_rule():
    assert count_sentences('Dr. No came at 5 p.m. today. "Why?" Nobody knew! See e.g. www.x.org') == 4
    assert count_sentences("") == 0 and count_sentences("no end mark") == 1 and count_sentences("One.\n\nTwo.") == 2


@needs_data
def test_all_of_ifeval_is_read_and_broken_rows_are_named(tmp_path):
    tasks = catalog.benchmark(f"ifeval:data={SHARED}").tasks(0)
    assert len({task.id for task in tasks}) == len(tasks) == 541
    used = {name for task in tasks for name, _ in task.secret["instructions"]}
    assert used == set(VERIFIERS) and len(used) == 25
    for names, kwargs, says in [
        (["nope:nope"], [{}], "is not one of IFEval's 25 instructions"),
        (["keywords:existence"], [{}], "keywords:existence cannot take"),
        (["keywords:existence"], [], "are not lists of equal length"),
    ]:
        row = {"key": 1, "prompt": "p", "instruction_id_list": names, "kwargs": kwargs}
        (tmp_path / "input_data.jsonl").write_text(json.dumps(row) + "\n")
        with pytest.raises(DataError, match=says):
            catalog.benchmark(f"ifeval:data={tmp_path}")
