"""Readers of data sets on small files of the same form: the gold answer, the examples shown, and what is normalised."""

import importlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.system.first_rows import first_rows

HUB_ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "sources.arc_files": (
        {"question": "Q?", "choices": {"text": ["a", "b", "c", "d"], "label": ["A", "B", "C", "D"]}, "answerKey": "C"},
        "Q?",
        "c",
    ),
    "boolq": ({"passage": "P.", "question": "is it", "label": 1}, "P.\nQuestion: is it?\nAnswer:", "yes"),
    "commonsense_qa": (
        {"question": " Q? ", "choices": {"text": list("vwxyz"), "label": list("ABCDE")}, "answerKey": "D"},
        "Q?",
        "y",
    ),
    "hellaswag": (
        {"activity_label": "Cooking", "ctx_a": "A man.", "ctx_b": "he", "endings": ["w", "x", "y", "z"], "label": "1"},
        "Cooking: A man. He",
        "x",
    ),
    "mmlu": ({"subject": "anatomy", "question": "Q?", "choices": list("pqrs"), "answer": 2}, "Q?", "r"),
    "openbookqa": (
        {"question_stem": "Q", "choices": {"text": list("klmn"), "label": list("ABCD")}, "answerKey": "B"},
        "Q",
        "l",
    ),
    "piqa": ({"goal": "Boil", "sol1": "one", "sol2": "two", "label": 1}, "Goal: Boil\nAnswer:", "two"),
    "social_iqa": (
        {"context": "C.", "question": "Q?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"},
        "C. Q?",
        "z",
    ),
}


@pytest.mark.parametrize("name", HUB_ROWS)
def test_the_gold_choice_of_a_hub_row_is_the_one_its_label_names(name: str) -> None:
    row, query, gold = HUB_ROWS[name]
    made = importlib.import_module(f"firsthand.benchmarks.{name}").from_hub(row)
    assert query in str(made.get("query", made.get("question")))
    assert made["choices"][made["gold"]] == gold and made["choices"].count(gold) == 1


def test_boolq_says_no_for_0_and_winogrande_and_truthfulqa_keep_their_columns() -> None:
    from firsthand.benchmarks import boolq, truthfulqa, winogrande

    made = boolq.from_hub({"passage": "P.", "question": "is it", "label": 0})
    assert made["choices"][made["gold"]] == "no"
    query = "A -- P?\nQuestion: is it raw?\nQuestion: was there an answer?\nAnswer:"
    item = boolq.read_item({**made, "query": query}, "i", "here")
    assert item.fields == {"passage": "A -- P?\nQuestion: is it raw?", "question": "was there an answer"}
    assert (item.id, item.choices, item.gold, item.metadata) == ("i", ("yes", "no"), 1, {"cluster": "A"})
    targets = {"choices": ["t1", "f1", "t2"], "labels": [1, 0, 1]}
    made = truthfulqa.from_hub(
        {"question": "Q?", "mc2_targets": targets, "mc1_targets": {"choices": ["f1", "t1"], "labels": [0, 1]}}
    )
    assert made == {"question": "Q?", "true": ["t1", "t2"], "false": ["f1"]}
    row = {"sentence": "The _ fell.", "option1": "cup", "option2": "hat", "answer": "2", "qID": "x"}
    assert winogrande.from_hub(row) == {key: row[key] for key in ("sentence", "option1", "option2", "answer")}


def mmlu_folder(tmp_path: Path, form: str) -> Path:
    """Two subjects with seven development and three test questions each; the answer of each is the text `right`."""
    subjects = ("anatomy", "high_school_physics")
    rows = {"dev": [], "test": []}  # type: dict[str, list[dict[str, Any]]]
    for subject in subjects:
        for split, count in (("dev", 7), ("test", 3)):
            for index in range(count):
                gold = (index + len(subject)) % 4
                choices = [f"wrong {place}" for place in range(4)]
                choices[gold] = f"right {split} {index}"
                question = f"{subject} {split} {index}?"
                row = {"subject": subject, "question": question, "choices": choices, "gold": gold}
                rows[split].append(row)
    (tmp_path / "mcq").mkdir()
    if form == "jsonl":
        for split, each in rows.items():
            (tmp_path / "mcq" / f"mmlu_{split}.jsonl").write_text("\n".join(map(json.dumps, each)))
        return tmp_path
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for split, each in rows.items():
            for subject in subjects:
                lines = [
                    ",".join([row["question"], *row["choices"], "ABCD"[row["gold"]]])
                    for row in each
                    if row["subject"] == subject
                ]
                archive.writestr(f"data/{split}/{subject}_{split}.csv", "\n".join(lines) + "\n")
    (tmp_path / "mcq" / "mmlu_csv.zip").write_bytes(packed.getvalue())
    return tmp_path


@pytest.mark.parametrize(("form", "count"), [("zip", 4), ("jsonl", 2)])
def test_of_a_file_its_first_rows_are_read_alone(tmp_path: Path, form: str, count: int) -> None:
    name = f"mmlu@lm-eval-0shot:data={mmlu_folder(tmp_path, form)}"
    with first_rows(2):
        assert len(catalog.benchmark(name).tasks(0)) == count, "two of each of the archive's two subjects"
    assert len(catalog.benchmark(name).tasks(0)) == 6


@pytest.mark.parametrize("form", ["zip", "jsonl"])
def test_mmlu_shows_five_development_questions_of_the_subject_and_asks_one_of_test(tmp_path: Path, form: str) -> None:
    folder = mmlu_folder(tmp_path, form)
    tasks = catalog.benchmark(f"mmlu@lm-eval-5shot:data={folder}").tasks(0)
    assert len(tasks) == 6
    for place, task in enumerate(tasks):
        subject, index = ("anatomy", "high school physics")[place // 3], place % 3
        raw = subject.replace(" ", "_")
        text = task.context or ""
        assert text.startswith(f"The following are multiple choice questions (with answers) about {subject}.\n\n")
        shown = [f"{raw} dev {each}?" for each in range(7) if f"{raw} dev {each}?" in text]
        assert shown == [f"{raw} dev {each}?" for each in range(5)]  # the first five, of this subject alone
        assert text.count("?") == 6 and text.rstrip().endswith("Answer:") and f"{raw} test {index}?" in text
        for each in range(5):  # each with the letter of its own answer
            letter = "ABCD"[(each + len(raw)) % 4]
            block = text[text.index(f"dev {each}?") :]
            assert f"{letter}. right dev {each}\n" in block and block.split("Answer:")[1].startswith(f" {letter}")
        gold = task.secret["gold"]
        assert task.choices[gold].strip() in ("ABCD"[(index + len(raw)) % 4], f"right test {index}")


def test_mmlu_without_shots_shows_none(tmp_path: Path) -> None:
    tasks = catalog.benchmark(f"mmlu@lm-eval-0shot:data={mmlu_folder(tmp_path, 'zip')}").tasks(0)
    assert all((task.context or "").count("?") == 1 for task in tasks)


def gsm8k_folder(tmp_path: Path) -> Path:
    for split, count in (("train", 30), ("test", 4)):
        rows = [
            {"question": f"{split} {index}?", "answer": f"Think {index}.\n#### {1000 * index + 1234:,}"}
            for index in range(count)
        ]
        (tmp_path / f"gsm8k_{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_gsm8k_golds_have_no_commas_and_examples_come_from_train(tmp_path: Path) -> None:
    folder = gsm8k_folder(tmp_path)
    plain = catalog.benchmark(f"gsm8k:data={folder}").tasks(0)
    assert [task.secret["answer"] for task in plain] == ["1234", "2234", "3234", "4234"]
    assert [each["question"] for each in plain[0].metadata["examples"]] == [f"train {index}?" for index in range(8)]
    shot = catalog.benchmark(f"gsm8k@lm-eval-5shot-strict:data={folder}").tasks(0)
    drawn = []
    for index, task in enumerate(shot):
        text = task.context or ""
        questions = [line for line in text.split("\n") if line.endswith("?")]
        assert questions[-1] == f"Question: test {index}?" and len(questions) == 6
        examples = [line.removeprefix("Question: ") for line in questions[:-1]]
        assert all(each.startswith("train ") for each in examples) and len(set(examples)) == 5
        assert task.secret["answer"] == str(1000 * index + 1234)
        drawn.append(examples)
    assert len(set(map(tuple, drawn))) == len(drawn)  # drawn anew for each question
    again = catalog.benchmark(f"gsm8k@lm-eval-5shot-strict:data={folder}").tasks(7)
    assert [task.context for task in again] == [task.context for task in shot]
