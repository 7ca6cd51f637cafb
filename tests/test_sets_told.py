"""Question sets from small files: all that each says of itself, and the rows that are refused in a sentence."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
from pathlib import Path
from typing import Any

import pytest

from benchmark_rows import bodies, facts, refused, said, written
from firsthand.benchmarks import (
    gsm8k,
    hle,
    mbpp,
    mmlu,
    mmlu_pro,
    truthfulqa,
)
from firsthand.benchmarks.protocols.protocol import Item
from firsthand.benchmarks.sources import arc_files
from firsthand.benchmarks.sources.datasets import Rows, Source
from firsthand.errors import ConfigError, DataError, UnknownName


@pytest.fixture(autouse=True)
def nothing_else_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


QUESTION = {"query": "Question: Who?\nAnswer:", "choices": ["a", "b"], "gold": 1}
PROBLEM = {"problem": "1 + 1?", "answer": "2", "solution": "So \\boxed{2}."}
CODED = {"id": "s", "code": "def f(a): return a", "input": "1", "output": "1"}
EVALPLUS = {
    "task_id": "T/1", "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "    return 0\n", "atol": 0,
    "base_input": [[1]], "plus_input": [[2]],
}  # fmt: skip
SETS: dict[str, tuple[str, dict[str, Any], str, str, str, str, str]] = {
    "arc_easy": ("arc_easy.jsonl", QUESTION, "lm-eval-0shot", "acc acc_norm", "test split, data folder, 1 of 2,376 items",
        "ARC-Easy: grade-school science questions, multiple choice (Clark et al., 2018).", "CC-BY-SA-4.0"),
    "arc_challenge": ("arc_challenge.jsonl", QUESTION, "smollm2", "acc_norm acc",
        "test split, data folder, 1 of 1,172 items",
        "ARC-Challenge: grade-school science questions, multiple choice (Clark et al., 2018).", "CC-BY-SA-4.0"),
    "boolq": ("boolq_validation.jsonl", {**QUESTION, "query": "P -- Q.\nQuestion: is it?\nAnswer:"}, "olmes-rc", "acc",
        "validation split, data folder, 1 of 3,270 items", "Yes/no questions about a passage (Clark et al., 2019).",
        "CC-BY-SA-3.0"),
    "commonsense_qa": ("commonsense_qa_validation.jsonl", QUESTION, "smollm2", "acc_norm acc",
        "validation split, data folder, 1 of 1,221 items", "Common-sense concepts, five choices (Talmor et al., 2019).",
        "MIT"),
    "hellaswag": ("hellaswag_validation.jsonl", QUESTION, "olmes-mc", "acc",
        "validation split, data folder, 1 of 10,042 items", "A scene's continuation, four choices (Zellers et al., 2019).",
        "MIT"),
    "openbookqa": ("openbookqa_test.jsonl", QUESTION, "olmes-rc", "acc_norm acc acc_mutual_info",
        "test split, data folder, 1 of 500 items",
        "Elementary science with a fact and common sense (Mihaylov et al., 2018).", "Apache-2.0"),
    "piqa": ("piqa_validation.jsonl", {**QUESTION, "query": "Goal: x\nAnswer:"}, "smollm2", "acc_norm acc",
        "validation split, data folder, 1 of 1,838 items", "Physical common sense, two choices (Bisk et al., 2020).",
        "AFL-3.0"),
    "social_iqa": ("social_iqa_validation.jsonl", QUESTION, "", "acc", "validation split, data folder, 1 of 1,954 items",
        "People's feelings, intentions and actions (Sap et al., 2019).", "CC-BY-4.0"),
    "winogrande": ("winogrande_validation.jsonl",
        {"sentence": "A saw _ go.", "option1": "x", "option2": "y", "answer": "2"}, "smollm2", "acc_norm acc",
        "validation split, data folder, 1 of 1,267 items",
        "The name that fills a gap, two choices (Sakaguchi et al., 2020).", "CC-BY-4.0"),
    "math": ("math_test_5000.jsonl", PROBLEM, "minerva-4shot", "minerva boxed",
        "test split, data folder, 1 of 5,000 items",
        "MATH: competition mathematics, 5,000 problems (Hendrycks et al., 2021).", "MIT"),
    "math500": ("math500.jsonl", PROBLEM, "", "boxed", "test split, data folder, 1 of 500 items",
        "MATH-500: 500 problems of MATH, selected by Lightman et al. (2023).", "MIT"),
    "aime24": ("aime24.jsonl", PROBLEM, "", "boxed", "train split, data folder, 1 of 30 items",
        "AIME 2024: 30 problems whose answer is an integer from 0 to 999.", "the problems are the MAA's"),
    "aime25": ("aime25.jsonl", PROBLEM, "", "boxed", "test split, data folder, 1 of 30 items",
        "AIME 2025: 30 problems whose answer is an integer from 0 to 999.", "the problems are the MAA's"),
    "cruxeval": ("cruxeval.jsonl", CODED, "input-cot", "cruxeval_assertion", "data folder, 1 of 800 items",
        "Predict a short Python function's output, or an input for an output (Gu et al., 2024).", "MIT"),
    "humaneval_plus": ("HumanEvalPlus.jsonl", EVALPLUS, "", "plus base", "HumanEvalPlus.jsonl, 1 of 164 items",
        "HumanEval's functions tested on 80 times as many inputs, 164 problems (Liu et al., 2023).",
        "Apache-2.0 (HumanEval: MIT)"),
    "mbpp_plus": ("MbppPlus.jsonl", EVALPLUS, "evalplus-base", "plus base", "MbppPlus.jsonl, 1 of 378 items",
        "Basic Python problems tested on 35 times as many inputs, 378 of them (Liu et al., 2023).",
        "Apache-2.0 (MBPP: CC BY 4.0)"),
    "ifeval": ("input_data.jsonl",
        {"key": 3, "prompt": "Do.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}, "lm-eval-raw",
        "prompt_strict instruction_strict prompt_loose instruction_loose", "data folder, 1 of 541 items",
        "Prompts with instructions that a program can verify (Zhou et al., 2023).", "Apache-2.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_a_question_set_says_where_it_is_from_and_how_it_is_asked(name: str, tmp_path: Path) -> None:
    file, row, protocol, scorers, origin, description, licence = SETS[name]
    path = written(tmp_path / file, row)
    room = importlib.import_module(f"firsthand.benchmarks.{name}")
    made = getattr(room, name)(protocol=protocol, data=str(tmp_path))
    first = next(iter(room.PROTOCOLS))
    chosen = room.PROTOCOLS[protocol or first]
    assert facts(made) == said(
        name if protocol in ("", first) else f"{name}@{protocol}", scorers, description, f"{origin}; {chosen.describe()}",
        licence,
        options={
            "data": origin, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "protocol": protocol or first,
        },
    )  # fmt: skip
    assert len(made.tasks(0)) == 1 and made.tasks(0) == made.tasks(7)
    told = refused(UnknownName, getattr(room, name), protocol="xyzzy", data=str(tmp_path))
    assert told.startswith(f"no protocol of {name} 'xyzzy'") and "firsthand list benchmarks" in told


def test_files_of_foundrys_are_corrected_by_their_rows(tmp_path: Path) -> None:
    source = Source("mcq/arc_easy.jsonl", 3, "", "", "", "", dict)
    rows = tuple({**QUESTION, "query": f"Q{at}"} for at in range(2376))
    plain = Rows(rows, "o", tmp_path, "other")
    assert arc_files.corrected("arc_easy", plain, source) is plain
    known = Rows(rows, "o", tmp_path, arc_files.FOUNDRY_SHA256["arc_easy"])
    fixed = arc_files.corrected("arc_easy", known, source)
    changed = [at for at in range(2376) if fixed.rows[at] is not rows[at]]
    assert fixed.origin == "o, 82 of them corrected" and len(changed) == 82
    assert all(fixed.rows[at]["row"] == at for at in changed) and fixed.sha256 == known.sha256
    hub = {"question": "Q?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}
    assert arc_files.from_hub(hub) == {"query": "Question: Q?", "choices": ["x", "y"], "gold": 1}


def test_gsm8k_shows_the_first_eight_of_train_and_refuses_answers_without_a_number(tmp_path: Path) -> None:
    train = [{"question": f"t{at}", "answer": f"So {at}.\n#### {at}"} for at in range(9)]
    written(tmp_path / "gsm8k_train.jsonl", *train)
    test = written(tmp_path / "gsm8k_test.jsonl", {"question": "q", "answer": "1\n####  -1,234.50"}, train[3])
    made = gsm8k.gsm8k(data=str(tmp_path))
    digest = hashlib.sha256(test.read_bytes()).hexdigest()
    assert facts(made) == said(
        "gsm8k", "flexible strict", "Grade-school maths word problems (Cobbe et al., 2021).",
        "test split, data folder, 2 of 1,319 items; worked examples: the first 8 of train (data folder, 9 of "
        "7,473 items); "
        "flexible: the last number of the answer; strict: stated as '#### number', as in lm-evaluation-harness", "MIT",
        options={"data": "data folder, 2 of 1,319 items", "sha256": digest},
    )  # fmt: skip
    assert bodies(made.tasks(0))[0] == {
        "id": "test-0000", "prompt": "q", "hint": "a number", "metadata": {"examples": train[:8]},
        "secret": {"answer": "-1234.50", "solution": "1\n####  -1,234.50"},
    }  # fmt: skip
    other = gsm8k.gsm8k(protocol="lm-eval-5shot-strict", data=str(tmp_path))
    origin = "test split, data folder, 2 of 1,319 items; train split, data folder, 9 of 7,473 items"
    assert other.options == {"data": origin, "sha256": digest, "protocol": "lm-eval-5shot-strict"}
    assert (other.name, other.licence, len(other.tasks(0))) == ("gsm8k@lm-eval-5shot-strict", "MIT", 2)
    for answer, gold in (("x#### 7.", "7"), ("#### 1,0", "10"), (f"#### 3 {'x' * 400}#### 5 ", "5")):
        assert gsm8k._gold({"answer": answer}, "w") == gold
    for answer in ("7", "#### x", "#### 7 apples", "### 7"):
        told = "w: the answer does not end with '#### number'"
        assert refused(DataError, gsm8k._gold, {"answer": answer}, "w") == told
        assert refused(DataError, gsm8k._example, {"question": "q", "answer": answer}, "w") == told


def problem(number: Any, **changes: Any) -> dict[str, Any]:
    row = {
        "task_id": number,
        "text": f"Do {number}.",
        "code": f"def f{number}(x): return x",
        "test_list": ["assert f(1)"],
    }
    return {**row, "test_list": [f"assert f{number}(1) == len([1])", "assert 1"], **changes}


def test_mbpp_asks_problems_11_to_510_but_one_after_problems_2_to_4(tmp_path: Path) -> None:
    numbers = (510, 2, 367, 3, 11, 4, 10, 511)
    path = written(tmp_path / "mbpp.jsonl", *map(problem, numbers))
    made = mbpp.mbpp(data=str(tmp_path))
    origin = "data folder, 8 of 974 items, of which the test split's 2 with plain values"
    assert facts(made) == said(
        "mbpp", "passes_tests", "Basic Python problems with three tests each (Austin et al., 2021).",
        f"{origin}; {mbpp.PROTOCOLS['lm-eval-3shot'].describe()}", "CC BY 4.0",
        options={
            "data": origin, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "protocol": "lm-eval-3shot",
        },
    )  # fmt: skip
    assert [task.id for task in made.tasks(0)] == ["mbpp-510", "mbpp-11"]
    task = made.tasks(0)[0]
    assert task.context.index("Do 2.") < task.context.index("Do 3.") < task.context.index("Do 4.")
    assert task.secret == {
        "tests": "assert f510(1) == len([1])\nassert 1", "setup": "", "cpu_s": 30.0, "entry_point": "f510",
        "solution": "def f510(x): return x",
    }  # fmt: skip
    assert mbpp._item(7, problem(7, test_setup_code="a\r\nb"), "w").secret["setup"] == "a\nb"
    written(path, problem(2), problem(4), problem(20))
    assert refused(DataError, mbpp.mbpp, data=str(tmp_path)) == (
        f"{path} lacks problems [3], the few-shot examples: give the file with all 974 problems"
    )
    assert len(mbpp.mbpp(data=str(tmp_path), protocol="chat-0shot").tasks(0)) == 1
    for rows, shown in (((problem("5"),), "5"), ((problem(5), problem(5)), "5"), ((problem(None),), "None")):
        written(path, *rows)
        assert refused(DataError, mbpp.mbpp, data=str(tmp_path)) == (
            f"{path}, line {len(rows)}: the field 'task_id' holds {shown!r}, and a number of its own was expected"
        )
    for tests in ([], "assert 1", [1], None):
        told = "w: the field 'test_list' is not a list of assertions"
        assert refused(DataError, mbpp._item, 7, problem(7, test_list=tests), "w") == told
    told = "w: the field 'test_setup_code' holds '7', and code was expected"
    assert refused(DataError, mbpp._item, 7, problem(7, test_setup_code=7), "w") == told
    assert mbpp._tested("class A: pass\ndef g(): pass", ["assert h(A(g))"], "w") == "A"
    assert mbpp._tested("x = 1", ["assert x"], "w") == ""
    told = refused(DataError, mbpp._tested, "def", ["assert x"], "w")
    assert told.startswith("w: code or tests are not Python (invalid syntax")


def test_hle_is_judged_by_a_named_model_or_later(tmp_path: Path) -> None:
    row = {"id": 7, "question": "Q?", "answer": "A", "category": "Maths", "answer_type": "", "raw_subject": "Sets"}
    path = written(tmp_path / "hle_test.jsonl", row, {**row, "image": "data:"})
    made = hle.hle(judge="none", data=str(tmp_path))
    origin = "your copy, 2 of 2,500 questions, 1 of them without an image; judge none"
    assert facts(made) == said(
        "hle", "", "Questions at the frontier of knowledge (Phan et al., 2025).",
        f"{origin}; {hle.PROTOCOLS['text-only'].describe()}", "MIT; not to be redistributed",
        options={"data": origin, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "protocol": "text-only"},
    )  # fmt: skip
    assert hle._item(row, "w") == Item(
        "7", {"question": "Q?"}, secret={"answer": "A"},
        metadata={"category": "Maths", "raw_subject": "Sets", "protected": hle.WHY},
    )  # fmt: skip
    (task,) = made.tasks(0)
    assert [message.text for message in task.conversation] == [hle.SYSTEM] and task.sampling == {
        "stop": (), "max_tokens": 8192,
    }  # fmt: skip
    (scorer,) = hle.hle(judge="scripted:echo", data=str(tmp_path)).scorers
    assert hasattr(scorer, "judged")
    assert refused(ConfigError, hle.hle, data=str(tmp_path)) == (
        "hle is judged by a model: name it, as in hle:judge=openai:o3-mini-2025-01-31 (the published one), or "
        "give judge=none "
        "and judge the run later with `firsthand score`"
    )
    written(path, {**row, "image": "data:"})
    told = f"{path} has no question without an image: is it the right file?"
    assert refused(DataError, hle.hle, judge="none", data=str(tmp_path)) == told
    assert refused(DataError, hle.read_rows, "packaged") == (
        "HLE is not packaged, as its authors ask: give data=FOLDER with hle_test.jsonl, or hub"
    )
    for change, told in (
        ({"id": None}, "w: the field 'id' is not an id"), ({"id": 1.5}, "w: the field 'id' is not an id"),
        ({"question": " "}, "w: the field 'question' is empty, and text was expected"),
        ({"answer": 3}, "w: the field 'answer' is empty, and text was expected"),
    ):  # fmt: skip
        assert refused(DataError, hle._item, {**row, **change}, "w") == told


def mmlu_row(subject: str, gold: int, **more: Any) -> dict[str, Any]:
    return {"subject": subject, "question": f" {subject}? ", "choices": ["a", "b", "c", "d"], "gold": gold, **more}


def test_mmlu_takes_one_subject_and_keeps_the_places_of_a_slice(tmp_path: Path) -> None:
    path = written(
        tmp_path / "mmlu_test.jsonl",
        mmlu_row("high_art", 2, row=40),
        mmlu_row("law", 0),
        mmlu_row("high_art", 3, row=90),
    )
    dev = ({**mmlu_row(name, at % 4), "question": "D"} for at in range(7) for name in ("law", "high_art"))
    written(tmp_path / "mmlu_dev.jsonl", *dev)
    made = mmlu.mmlu(subject="high_art", data=str(tmp_path))
    origin = "test split, data folder, 3 of 14,042 items; subject high art"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts(made) == said(
        "mmlu", "acc", "57 subjects from school to profession, four choices (Hendrycks et al., 2021).",
        f"{origin}; {mmlu.PROTOCOLS['lm-eval-5shot'].describe()}", "MIT",
        options={"data": origin, "sha256": digest, "protocol": "lm-eval-5shot"},
    )  # fmt: skip
    assert [task.id for task in made.tasks(0)] == ["test-00040", "test-00090"]
    every = mmlu.mmlu(protocol="cloze", data=str(tmp_path))
    assert [task.id for task in every.tasks(0)] == ["test-00040", "test-00001", "test-00090"]
    assert every.options["data"] == "test split, data folder, 3 of 14,042 items"
    assert mmlu.mmlu(subject="high art", data=str(tmp_path)).tasks(0)[0].metadata == {
        "subject": "high art", "stratum": "high art",
    }  # fmt: skip
    told = "subject is 'art': give one of high_art, law"
    assert refused(DataError, mmlu.mmlu, subject="art", data=str(tmp_path)) == told
    hub = {"subject": "s", "question": "q", "choices": ("a", "b"), "answer": "1"}
    assert mmlu.from_hub(hub) == {"subject": "s", "question": "q", "choices": ["a", "b"], "gold": 1}
    assert mmlu.mmlu_rows("test", str(tmp_path))[1] == (mmlu_row("law", 0), f"{path}, line 2")


def test_mmlu_pro_has_its_examples_from_a_folder_of_their_own(tmp_path: Path) -> None:
    row = {
        "question_id": 9, "question": "Q?", "options": ["a", "N/A", "b "], "answer": "B", "answer_index": 1,
        "category": "law", "cot_content": "A: Let's think step by step. So B.",
    }  # fmt: skip
    test = written(tmp_path / "mmlu_pro_test.jsonl", {**row, "cot_content": ""})
    written(tmp_path / "e" / "mmlu_pro_validation.jsonl", *({**row, "question": f"V{at}?"} for at in range(6)))
    made = mmlu_pro.mmlu_pro(data=str(tmp_path), examples=str(tmp_path / "e"))
    origin = "test split, data folder, 1 of 12,032 items; examples: validation split, data folder, 6 of 70 items"
    assert facts(made) == said(
        "mmlu_pro", "mmlu_pro_tiger mmlu_pro_letter",
        "14 categories, up to ten options, with a chain of thought (Wang et al., 2024).",
        f"{origin}; {mmlu_pro.PROTOCOLS['tiger'].describe()}", "MIT",
        options={"data": origin, "sha256": hashlib.sha256(test.read_bytes()).hexdigest(), "protocol": "tiger"},
    )  # fmt: skip
    (task,) = made.tasks(0)
    assert task.id == "test-9" and "V4?" in task.context and "V5?" not in task.context
    found = mmlu_pro._item(row, "i", "w")
    assert found == Item(
        "i", {"question": "Q?", "category": "law", "worked": "So B."}, ("a", "b "), 1, {"options": 2},
        {"category": "law", "stratum": "law"},
    )  # fmt: skip
    for options in ("ab", [1], None):
        told = f"w: the field 'options' is {str(options)!r}, and a list of texts was expected"
        assert refused(DataError, mmlu_pro._item, {**row, "options": options}, "i", "w") == told
    for change in (
        {"answer_index": 2, "answer": "C"}, {"answer": "A"}, {"answer_index": True}, {"answer_index": -1},
        {"options": [str(at) for at in range(11)]},
    ):  # fmt: skip
        wrong = {**row, **change}
        told = (
            f"w: 'answer_index' is {wrong['answer_index']!r} and 'answer' {wrong['answer']!r}: those of one "
            f"option were "
            "expected"
        )
        assert refused(DataError, mmlu_pro._item, wrong, "i", "w") == told
    ten = {**row, "options": [str(at) for at in range(10)], "answer_index": 9, "answer": "J"}
    assert mmlu_pro._item(ten, "i", "w").gold == 9


def table(path: Path, *rows: dict[str, str]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text("\ufeff" + text.getvalue(), encoding="utf-8")
    return path


def test_truthfulqas_answers_stand_in_an_order_of_the_question_and_their_places_are_kept(tmp_path: Path) -> None:
    row = {"Question": "Q?", "Best Answer": " B ", "Correct Answers": "A; B;; C ", "Incorrect Answers": "X; Y"}
    path = table(tmp_path / "TruthfulQA.csv", row, {**row, "Question": "Two\nlines?", "Best Answer": "D"})
    rows = truthfulqa.read_csv_rows(path)
    assert rows.rows == (
        {"question": "Q?", "true": ["B", "A", "C"], "false": ["X", "Y"]},
        {"question": "Two\nlines?", "true": ["D", "A", "B", "C"], "false": ["X", "Y"]},
    )
    assert (rows.lines, rows.origin) == ((2, 4), "the authors' file, 2 of 817 items")
    made = truthfulqa.truthfulqa(data=str(tmp_path))
    assert facts(made) == said(
        "truthfulqa", "mc2 mc1", "Questions that people often answer wrongly (Lin et al., 2022).",
        f"{rows.origin}; {truthfulqa.PROTOCOLS['lm-eval-mc'].describe()}", "Apache-2.0",
        options={"data": rows.origin, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "protocol": "lm-eval-mc"},
    )  # fmt: skip
    second = made.tasks(0)[1]
    assert (second.id, second.choices, second.secret) == (
        "q-0001", (" B", " D", " Y", " C", " X", " A"), {"gold": 1, "answer": "B", "true": [1, 5, 0, 3]},
    )  # fmt: skip
    assert second.context.count("Q: ") == 7 and second.context.endswith("\n\nQ: Two\nlines?\nA:")
    table(path, {**row, "Best Answer": " "})
    told = f"{path}, line 2: the field 'Best Answer' holds ' ', and text was expected"
    assert refused(DataError, truthfulqa.read_csv_rows, path) == told
    path.write_text("Question,Best Answer\n")
    assert refused(DataError, truthfulqa.read_csv_rows, path) == f"{path} holds no rows: is it truncated?"
    path.write_text('Question\n"x')
    assert refused(DataError, truthfulqa.read_csv_rows, path) == f"{path} is not a CSV file: unexpected end of data"
    for true, false in (([], ["x"]), (["a"], []), (["a", 1], ["x"]), ("a", ["x"])):
        bad = {"question": "Q", "true": true, "false": false}
        told = f"w: lists 'true' and 'false' of answers were expected, not {str(bad)[:80]!r}"
        assert refused(DataError, truthfulqa._item, bad, "i", "w") == told
