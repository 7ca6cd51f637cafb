"""A file as `data` holds the tested rows alone: worked examples come from elsewhere, and none asks its own question."""

import json
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmarks import gsm8k, mmlu, mmlu_pro
from firsthand.benchmarks.mteb.labelled_texts import banking77
from firsthand.benchmarks.sources.datasets import beside, is_file
from firsthand.errors import DataError


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sums(name: str, count: int = 3) -> list[dict[str, Any]]:
    return [{"question": f"{name}{each}?", "answer": f"{each} of {name} #### {each}"} for each in range(count)]


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)


def test_worked_examples_of_gsm8k_are_never_those_of_the_test_file(tmp_path: Path) -> None:
    file = written(tmp_path / "mine.jsonl", sums("test"))
    shots = gsm8k.gsm8k(protocol="lm-eval-5shot-strict", data=file)
    assert "train split, packaged slice" in shots.protocol and len(shots.tasks(0)) == 3
    assert not any(f"of test{other}" in task.context for task in shots.tasks(0) for other in range(3))
    for task in gsm8k.gsm8k(data=file).tasks(0):
        assert len(examples := task.metadata["examples"]) == 8 and not any(
            "test" in each["question"] for each in examples
        )
    written(tmp_path / "gsm8k_train.jsonl", sums("train", 9))
    beside_it = gsm8k.gsm8k(protocol="lm-eval-5shot-strict", data=file)
    assert "train split, beside the data file, 9 of 7,473 items" in beside_it.protocol
    assert all("of train" in task.context for task in beside_it.tasks(0))


def test_a_question_of_gsm8k_is_not_among_its_own_examples(tmp_path: Path) -> None:
    written(tmp_path / "gsm8k_test.jsonl", sums("x", 7))
    written(tmp_path / "gsm8k_train.jsonl", sums("x", 10))
    for index, task in enumerate(gsm8k.gsm8k(protocol="lm-eval-5shot-strict", data=str(tmp_path)).tasks(0)):
        assert task.context.count(f"x{index}?") == 1 and task.context.count("####") == 5
    for index, task in enumerate(gsm8k.gsm8k(data=str(tmp_path)).tasks(0)):
        shown = [each["question"] for each in task.metadata["examples"]]
        assert shown == [f"x{other}?" for other in range(10) if other != index][:8]


def test_a_folder_needs_a_train_file_where_a_protocol_shows_one_alone(tmp_path: Path) -> None:
    written(tmp_path / "gsm8k_test.jsonl", sums("x"))
    assert gsm8k.gsm8k(protocol="cot-8shot", data=str(tmp_path)).protocol.count("split") == 1
    for protocol in ("", "lm-eval-5shot-flexible"):
        with pytest.raises(DataError, match="gsm8k_train"):
            gsm8k.gsm8k(protocol=protocol, data=str(tmp_path))


def test_examples_of_mmlu_are_those_of_its_development_questions(tmp_path: Path) -> None:
    def row(name: str) -> dict[str, Any]:
        return {"subject": "anatomy", "question": f"{name}?", "choices": ["a", "b", "c", "d"], "gold": 1}

    file = written(tmp_path / "mine.jsonl", [row(f"test{each}") for each in range(6)])
    shot = next(name for name, each in mmlu.PROTOCOLS.items() if each.shots == 5)
    assert not any(task.context.count("test") > 1 for task in mmlu.mmlu(protocol=shot, data=file).tasks(0))
    written(tmp_path / "mmlu_dev.jsonl", [row(name) for name in ("d0", "test1", "d2", "d3", "d4", "d5")])
    made = mmlu.mmlu(protocol=shot, data=file).tasks(0)
    assert made[1].context.count("test1?") == 1 and "d5?" in made[1].context and "d5?" not in made[0].context


def test_examples_of_mmlu_pro_are_those_of_its_validation_questions(tmp_path: Path) -> None:
    def row(number: int, name: str) -> dict[str, Any]:
        return {"question_id": number, "question": f"{name}?", "options": ["a", "b"], "answer": "A", "answer_index": 0,
                "category": "law", "cot_content": f"A: Let's think step by step. So {name}."}  # fmt: skip

    file = written(tmp_path / "mine.jsonl", [row(each, f"test{each}") for each in range(7)])
    names = ("v0", "test1", "v2", "v3", "v4", "v5")
    written(tmp_path / "mmlu_pro_validation.jsonl", [row(100 + each, name) for each, name in enumerate(names)])
    made = mmlu_pro.mmlu_pro(data=file).tasks(0)
    assert made[1].context.count("test1?") == 1 and "So v5." in made[1].context and "So v0." in made[0].context
    named = mmlu_pro.mmlu_pro(data=file, examples=str(tmp_path / "mmlu_pro_validation.jsonl")).tasks(0)
    assert [each.context for each in named] == [each.context for each in made]


def test_classifiers_are_not_fitted_to_the_file_that_they_are_tested_on(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("text,category\na,b\n")
    assert banking77("test", str(tmp_path / "mine.csv")) == (["a"], ["b"])
    with pytest.raises(DataError, match=r"with train\.csv and test\.csv"):
        banking77("train", str(tmp_path / "mine.csv"))
    (tmp_path / "train.csv").write_text("text,category\nc,d\n")
    assert banking77("train", str(tmp_path / "mine.csv")) == (["c"], ["d"])
    with pytest.raises(DataError):
        banking77("train", str(tmp_path / "train.csv"))
    assert banking77("train", str(tmp_path)) == (["c"], ["d"])


def test_one_file_is_a_file_and_no_word_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hub").write_text("x")
    monkeypatch.chdir(tmp_path)
    assert not any(map(is_file, ("", "hub", "packaged", str(tmp_path), "none"))) and is_file("./hub")
    assert beside("./hub", "hub") is None and beside("./hub", "none") is None


def test_a_mark_of_byte_order_and_blank_lines_at_the_end_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "gsm8k_test.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(sums("x")[2]).encode() + b"\r\n\r\n \n")
    (task,) = gsm8k.gsm8k(protocol="cot-8shot", data=str(tmp_path)).tasks(0)
    assert task.secret["answer"] == "2"
    (tmp_path / "gsm8k_test.jsonl").write_text(json.dumps(sums("x")[2]) + "\n\n" + json.dumps(sums("x")[1]))
    with pytest.raises(DataError, match="line 2: not JSON"):
        gsm8k.gsm8k(protocol="cot-8shot", data=str(tmp_path))
