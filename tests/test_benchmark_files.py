"""Each reader on one small file of its form: gold, choices in order, what is shown before the question, and from where."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.benchmarks import creative, crosswords
from firsthand.benchmarks.protocols.protocol import Item, packaged_examples
from firsthand.task import Task
from firsthand.trace import Event, Trace

Row = dict[str, Any]
Prompt = Callable[[dict[str, str], Sequence[str]], str]


@pytest.fixture(autouse=True)
def a_clean_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def write(folder: Path, name: str, rows: Sequence[Row]) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tasks_of(name: str, folder: Path, **options: object) -> list[Task]:
    given = "".join(f":{key}={value}" for key, value in options.items())
    return list(catalog.benchmark(f"{name}:data={folder}{given}").tasks(0))


# -- multiple choice --

COUNTS = {"boolq": 2, "commonsense_qa": 5, "piqa": 2, "social_iqa": 3}


def rows_of(name: str) -> list[Row]:
    """Three items whose right choice is the first, the second and the last, each of a text of its own."""
    count, made = COUNTS.get(name, 4), []
    for index, gold in enumerate((0, 1, count - 1)):
        choices = [f"choice {index}{place}" for place in range(count)]
        queries = {
            "boolq": f"Title {index} -- Passage {index}.\nQuestion: is it {index}?\nAnswer:",
            "hellaswag": f"Scene {index}: he ",
            "piqa": f"Goal: Do {index}.\nAnswer:",
        }
        query = queries.get(name, f"Question: Who is {index}?\nAnswer:")
        made.append({"query": query, "choices": choices, "gold": gold})
    return made


def fields_of(name: str, index: int) -> dict[str, str]:
    passage = {"passage": f"Title {index} -- Passage {index}."} if name == "boolq" else {}
    question = {"boolq": f"is it {index}", "hellaswag": f"Scene {index}: he ", "piqa": f"Do {index}."}
    return {"question": question.get(name, f"Who is {index}?"), **passage}


def listed(choices: Sequence[str], indent: str = "") -> str:
    return "".join(f"{indent}{letter}. {text.strip()}\n" for letter, text in zip("ABCDE", choices, strict=False))


def plain(fields: dict[str, str], choices: Sequence[str]) -> str:
    return f"Question: {fields['question']}\nAnswer:"


def bare(fields: dict[str, str], choices: Sequence[str]) -> str:
    return fields["question"]


def stripped(fields: dict[str, str], choices: Sequence[str]) -> str:
    return fields["question"].rstrip()


def passage(fields: dict[str, str], choices: Sequence[str]) -> str:
    return f"{fields['passage']}\nQuestion: {fields['question']}?\nAnswer:"


def best(fields: dict[str, str], choices: Sequence[str]) -> str:
    return f"{fields['question']}\nChoose the best continuation:\n{listed(choices, ' ')}Answer:"


FILES = {
    "arc_easy": "arc_easy.jsonl",
    "arc_challenge": "arc_challenge.jsonl",
    "boolq": "boolq_validation.jsonl",
    "commonsense_qa": "commonsense_qa_validation.jsonl",
    "hellaswag": "hellaswag_validation.jsonl",
    "openbookqa": "openbookqa_test.jsonl",
    "piqa": "piqa_validation.jsonl",
    "social_iqa": "social_iqa_validation.jsonl",
}
PROMPTS: dict[str, tuple[Prompt, str, int]] = {  # the item's prompt, what of a choice is scored, and how many examples
    "arc_easy": (plain, "text", 0),
    "arc_easy@smollm2": (plain, "text", 0),
    "arc_easy@olmes-rc": (plain, "text", 5),
    "arc_challenge": (plain, "text", 0),
    "arc_challenge@smollm2": (plain, "text", 0),
    "arc_challenge@olmes-rc": (plain, "text", 5),
    "arc_challenge@olmes-mc": (lambda f, c: f"Question: {f['question']}\n{listed(c, ' ')}Answer:", "letter", 5),
    "boolq": (passage, "text", 0),
    "boolq@olmes-rc": (passage, "text", 5),
    "commonsense_qa": (lambda f, c: f"Question: {f['question']}\n{listed(c)}Answer:", "letter", 0),
    "commonsense_qa@smollm2": (bare, "text", 0),
    "commonsense_qa@olmes-rc": (plain, "text", 5),
    "hellaswag": (bare, "text", 0),
    "hellaswag@smollm2": (lambda f, c: f["question"].rstrip() + " ", "text", 0),
    "hellaswag@olmes-rc": (stripped, "text", 5),
    "hellaswag@olmes-mc": (best, "letter", 5),
    "openbookqa": (bare, "text", 0),
    "openbookqa@smollm2": (bare, "text", 0),
    "openbookqa@olmes-rc": (plain, "text", 5),
    "piqa": (plain, "text", 0),
    "piqa@smollm2": (plain, "text", 0),
    "piqa@olmes-rc": (lambda f, c: f"Goal: {f['question']}\nAnswer:", "text", 5),
    "social_iqa": (lambda f, c: f"Q: {f['question']}\nA:", "text", 0),
    "social_iqa@olmes-rc": (plain, "text", 5),
}


def said(choices: Sequence[str], index: int, kind: str) -> str:
    return f" {choices[index]}" if kind == "text" else f" {'ABCDE'[index]}"


def test_every_protocol_of_a_multiple_choice_set_has_its_prompt_here() -> None:
    for name in FILES:
        others = list(catalog.protocols(name))[1:]
        assert [name, *(f"{name}@{each}" for each in others)] == [p for p in PROMPTS if p.partition("@")[0] == name]


@pytest.mark.parametrize("protocol", PROMPTS)
def test_choices_stay_in_order_and_only_the_packaged_examples_are_shown(protocol: str, tmp_path: Path) -> None:
    name, (prompt, kind, shots) = protocol.partition("@")[0], PROMPTS[protocol]
    rows = rows_of(name)
    tasks = tasks_of(protocol, write(tmp_path, FILES[name], rows))
    examples: tuple[Item, ...] = packaged_examples(name) if shots else ()
    assert len(tasks) == len(rows) and len(examples) == shots
    before = "".join(
        prompt(dict(each.fields), each.choices) + said(each.choices, each.gold, kind) + "\n\n" for each in examples
    )
    for index, (task, row) in enumerate(zip(tasks, rows, strict=True)):
        own = prompt(fields_of(name, index), row["choices"])
        places = range(len(row["choices"]))
        assert list(task.scored) == [(before + own, said(row["choices"], place, kind)) for place in places]
        assert [choice.strip() for choice in task.choices] == row["choices"]
        assert (task.secret["gold"], task.secret["answer"]) == (row["gold"], "ABCDE"[row["gold"]])
        assert own not in before and task.baseline == (
            "Answer:" if "olmes-rc" in protocol and name != "boolq" else None
        )
    ids = [task.id for task in tasks]
    assert len(set(ids)) == 3 and ids[0].endswith("-0000") and ids[0].startswith(("test", "validation"))
    assert {task.cluster for task in tasks} == ({f"Title {n}" for n in range(3)} if name == "boolq" else {None})


@pytest.mark.parametrize(
    ("protocol", "shots"), [("winogrande", 0), ("winogrande@smollm2", 0), ("winogrande@olmes-rc", 5)]
)
def test_winogrande_fills_each_name_into_the_gap(protocol: str, shots: int, tmp_path: Path) -> None:
    rows = [
        {"sentence": "The _ fell on it.", "option1": "cup", "option2": "hat", "answer": "2"},
        {"sentence": "So _ won .", "option1": "Ann", "option2": "Bo", "answer": "1"},
    ]
    first, second = tasks_of(protocol, write(tmp_path, "winogrande_validation.jsonl", rows))
    assert (first.secret["gold"], second.secret["gold"]) == (1, 0)
    shown = ""
    for each in packaged_examples("winogrande")[:shots]:
        shown += f"{each.fields['before']}{each.choices[each.gold]} {each.fields['after']}\n\n"
    pairs = [("The ", "fell on it.", ("cup", "hat")), ("So ", "won .", ("Ann", "Bo"))]
    for task, (before, after, names) in zip((first, second), pairs, strict=True):
        if protocol.endswith("smollm2"):
            assert list(task.scored) == [(before, f"{name} {after}") for name in names]
        else:
            assert list(task.scored) == [(f"{shown}{before}{name}", f" {after}") for name in names]
        assert task.choices == tuple(f" {name}" for name in names) or protocol.endswith("smollm2")


def test_a_file_of_olmes_requests_has_each_document_once_and_none_without_its_question(tmp_path: Path) -> None:
    rows = rows_of("boolq")
    made = [{"doc_id": doc, "doc": rows[doc], "request": {}} for doc in (0, 0, 1, 1)]
    made += [{"doc_id": 1_000_000, "doc": rows[2], "request": {}}]
    path = tmp_path / "olmes" / "boolq_val_rc_5shot.requests.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress("".join(json.dumps(each) + "\n" for each in made).encode()))
    tasks = tasks_of("boolq", tmp_path)
    assert [task.secret["gold"] for task in tasks] == [0, 1]
    assert [task.choices[0] for task in tasks] == [" choice 00", " choice 10"]


def test_truthfulqa_knows_the_place_of_the_best_answer_and_has_no_answer_twice(tmp_path: Path) -> None:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["Question", "Best Answer", "Correct Answers", "Incorrect Answers"])
    writer.writeheader()
    writer.writerow(
        {"Question": "Q0?", "Best Answer": "best", "Correct Answers": "good; best ;", "Incorrect Answers": "bad; worse"}
    )
    (tmp_path / "TruthfulQA.csv").write_text(out.getvalue())
    (task,) = tasks_of("truthfulqa", tmp_path)
    assert sorted(task.choices) == [" bad", " best", " good", " worse"]
    assert [task.choices[at] for at in task.secret["true"]] == [" best", " good"]
    assert task.secret["gold"] == task.secret["true"][0] and task.secret["answer"] == task.letters[task.secret["gold"]]
    primer = "".join(
        f"Q: {each.fields['question']}\nA: {each.fields['answer']}\n\n" for each in packaged_examples("truthfulqa")
    )
    assert task.context == f"{primer}Q: Q0?\nA:" and primer.count("Q: ") == 6
    (tmp_path / "TruthfulQA.csv").unlink()
    row = {"question": "Q1?", "true": ["t1", "t2", "t3"], "false": ["f1"]}
    (task,) = tasks_of("truthfulqa", write(tmp_path, "truthfulqa_validation.jsonl", [row]))
    assert [task.choices[at] for at in task.secret["true"]] == [" t1", " t2", " t3"] and " f1" in task.choices


@pytest.mark.parametrize("protocol", ["mmlu_pro", "mmlu_pro@lm-eval"])
def test_mmlu_pro_shows_five_validation_questions_of_the_category(protocol: str, tmp_path: Path) -> None:
    def row(split: str, category: str, index: int) -> Row:
        gold = (index + len(category)) % 3
        steps = f"A: Let's think step by step. Thought {split} {index}. The answer is ({'ABC'[gold]})."
        return {
            "question_id": index, "question": f"{category} {split} {index}?", "options": ["x", "N/A", f"y{index}", "z"],
            "answer": "ABC"[gold], "answer_index": gold, "category": category, "cot_content": steps,
        }  # fmt: skip

    categories = ("law", "math")
    write(tmp_path, "mmlu_pro_test.jsonl", [row("test", each, n) for each in categories for n in range(3)])
    write(tmp_path, "mmlu_pro_validation.jsonl", [row("dev", each, n) for n in range(7) for each in categories])
    tasks = tasks_of(protocol, tmp_path)
    assert len(tasks) == 6
    for place, task in enumerate(tasks):
        category, index = categories[place // 3], place % 3
        text = task.context or ""
        asked = [line for line in text.split("\n") if line.endswith("?")]
        assert asked == [*(f"{category} dev {n}?" for n in range(5)), f"{category} test {index}?"]
        assert f"(with answers) about {category}. Think" in text and "N/A" not in text
        for n in range(5):
            gold = "ABC"[(n + len(category)) % 3]
            block = (
                f"A. x\nB. y{n}\nC. z\nAnswer: Let's think step by step. Thought dev {n}. The answer is ({gold}).\n\n"
            )
            assert block in text
        assert text.endswith(f"A. x\nB. y{index}\nC. z\nAnswer: Let's think step by step.")
        gold = (index + len(category)) % 3
        assert task.secret == {"gold": gold, "answer": "ABC"[gold], "options": 3} and (task.stratum, task.cluster) == (
            category,
            None,
        )


# -- written answers --


@pytest.mark.parametrize(
    ("name", "split"), [("aime24", "train"), ("aime25", "test"), ("math500", "test"), ("math", "test")]
)
def test_mathematics_keeps_its_reference_and_asks_for_a_box(name: str, split: str, tmp_path: Path) -> None:
    file = {"math": "math_test_5000.jsonl"}.get(name, f"{name}.jsonl")
    rows = [
        {
            "problem": "P0",
            "answer": 7,
            "solution": r"First \boxed{1}, then \boxed{7}.",
            "level": "Level 5",
            "type": "Algebra",
        },
        {"problem": "P1", "answer": r"\frac12", "solution": r"\boxed{\frac12}", "subject": "Number"},
    ]
    tasks = tasks_of(name, write(tmp_path, file, rows))
    assert [task.secret["answer"] for task in tasks] == ["7", r"\frac12"]
    assert [task.id for task in tasks] == [f"{split}-0000", f"{split}-0001"]
    step = "\nPlease reason step by step, and put your final answer within \\boxed{}."
    assert [task.prompt for task in tasks] == [f"P{n}{step}" for n in range(2)]
    assert dict(tasks[0].metadata) == {"level": "Level 5", "type": "Algebra", "stratum": "Algebra"}
    aime = name.startswith("aime")
    assert tasks[0].sampling == {"stop": (), "max_tokens": 32_768} if aime else {
        "stop": (), "max_tokens": 2048, "temperature": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["math", "math500"])
def test_minerva_shows_its_four_worked_examples(name: str, tmp_path: Path) -> None:
    file = {"math": "math_test_5000.jsonl"}.get(name, f"{name}.jsonl")
    row = {"problem": "P0", "answer": "7", "solution": r"\boxed{7}"}
    (task,) = tasks_of(f"{name}@minerva-4shot", write(tmp_path, file, [row]))
    shown = [
        f"Problem:\n{e.fields['question']}\n\nSolution: {e.fields['answer']}\n\n"
        for e in packaged_examples("math_minerva")
    ]
    assert len(shown) == 4 and task.context == "".join(shown) + "Problem:\nP0\n\nSolution:"


@pytest.mark.parametrize(
    ("protocol", "name", "label"),
    [("cot-8shot", "gsm8k_cot", "Q: |A:"), ("olmes-8shot", "gsm8k_olmes", "Question: |Answer:")],
)
def test_gsm8k_shows_the_eight_worked_examples_of_the_protocol(
    protocol: str, name: str, label: str, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        write(tmp_path, f"gsm8k_{split}.jsonl", [{"question": f"{split}?", "answer": "So.\n#### 1,234"}])
    (task,) = tasks_of(f"gsm8k@{protocol}", tmp_path)
    asked, answer = label.split("|")
    shown = [f"{asked}{e.fields['question']}\n{answer} {e.fields['answer']}\n\n" for e in packaged_examples(name)]
    assert len(shown) == 8 and task.context == "".join(shown) + f"{asked}test?\n{answer}"
    assert task.secret["answer"] == "1234"


def test_bbh_shows_the_three_worked_examples_of_its_task_below_the_canary(tmp_path: Path) -> None:
    for name in ("alpha", "beta"):
        for folder, text in (
            ("data", json.dumps({"examples": [{"input": f"{name} {n}?", "target": f"{name} {n}!"} for n in range(2)]})),
            ("cot-prompts", f"canary GUID\n-----\nDo {name}.\n\nQ: a\nA: 1\n\nQ: b\nA: 2\n\nQ: c\nA: 3\n"),
        ):  # fmt: skip
            (tmp_path / "bbh" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "bbh" / folder / f"{name}.{'json' if folder == 'data' else 'txt'}").write_text(text)
    tasks = tasks_of("bbh", tmp_path)
    assert [task.id for task in tasks] == ["alpha-000", "alpha-001", "beta-000", "beta-001"]
    for place, task in enumerate(tasks):
        name, index = ("alpha", "beta")[place // 2], place % 2
        worked = f"Do {name}.\n\nQ: a\nA: 1\n\nQ: b\nA: 2\n\nQ: c\nA: 3"
        assert task.context == f"{worked}\n\nQ: {name} {index}?\nA: Let's think step by step.\n"
        assert task.secret["answer"] == f"{name} {index}!" and (task.stratum, task.cluster) == (name, None)
    assert [task.id for task in tasks_of("bbh", tmp_path, task="beta")] == ["beta-000", "beta-001"]


def test_hle_leaves_out_questions_with_an_image_and_keeps_each_answer(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "question": "Qa?", "answer": "1", "image": "", "category": "Math"},
        {"id": "b", "question": "Qb?", "answer": "2", "image": "data:..."},
        {"id": "c", "question": "Qc?", "answer": "3", "image": None},
    ]
    tasks = tasks_of("hle", write(tmp_path, "hle_test.jsonl", rows), judge="none")
    assert [(task.id, task.prompt, task.secret["answer"]) for task in tasks] == [("a", "Qa?", "1"), ("c", "Qc?", "3")]
    assert (
        tasks[0].metadata["category"] == "Math"
        and tasks[0].protected
        and "Confidence:" in tasks[0].conversation[0].text
    )


def test_ifeval_keeps_each_instruction_with_its_own_arguments(tmp_path: Path) -> None:
    names = ["punctuation:no_comma", "length_constraints:number_words"]
    kwargs = [{"num_words": None}, {"num_words": 0, "relation": "at least", "keyword": None}]
    row = {"key": 1000, "prompt": "Write.", "instruction_id_list": names, "kwargs": kwargs}
    for protocol in ("ifeval", "ifeval@lm-eval-raw"):
        (task,) = tasks_of(protocol, write(tmp_path, "input_data.jsonl", [row]))
        given = [{}, {"num_words": 0, "relation": "at least"}]
        assert task.secret["instructions"] == [list(pair) for pair in zip(names, given, strict=True)]
        assert task.id == "key-1000" and task.prompt == "Write." and task.sampling["max_tokens"] == 1280
        assert task.context == ("Write." if "raw" in protocol else None)


# -- programs --


def test_humaneval_is_tested_by_its_own_check_after_the_prompts_imports(tmp_path: Path) -> None:
    rows = [
        {
            "task_id": f"HumanEval/{n}", "entry_point": f"f{n}",
            "prompt": f"import math\n\n\ndef f{n}(x):\n    '''Doc {n}.'''\n",
            "canonical_solution": f"    return {n}\n", "test": f"def check(candidate):\n    assert candidate(0) == {n}\n",
        }
        for n in range(2)
    ]  # fmt: skip
    tasks = tasks_of("humaneval", write(tmp_path, "HumanEval.jsonl", rows))
    for n, (task, row) in enumerate(zip(tasks, rows, strict=True)):
        assert task.id == f"HumanEval/{n}" and f"```python\n{row['prompt'].rstrip()}\n```" in task.prompt
        assert task.secret["tests"] == f"{row['test']}\ncheck(f{n})" and task.secret["setup"] == "import math\n\n\n"
        assert task.secret["solution"] == row["canonical_solution"] and task.secret["entry_point"] == f"f{n}"
        assert "assert" not in json.dumps(task.public().to_json())


@pytest.mark.parametrize("mini", [False, True])
def test_evalplus_keeps_both_kinds_of_inputs_and_the_whole_solution(mini: bool, tmp_path: Path) -> None:
    row = {
        "task_id": "HumanEval/32", "prompt": "\ndef find_zero(xs):\n", "entry_point": "find_zero", "atol": 1e-4,
        "canonical_solution": "    return 0\n", "base_input": [[[1, 2]]], "plus_input": [[[3]], [[4]]],
    }  # fmt: skip
    write(tmp_path, "HumanEvalPlus.jsonl", [row])
    write(tmp_path, "HumanEvalPlus-Mini.jsonl", [{**row, "plus_input": [[[3]]]}])
    for protocol in ("", "@evalplus-base"):
        (task,) = tasks_of(f"humaneval_plus{protocol}", tmp_path, mini=mini)
        plus = "[[[3]]]" if mini else "[[[3]], [[4]]]"
        assert task.secret["inputs"] == {"base": "[[[1, 2]]]", "plus": plus}
        assert task.secret["solution"] == "\ndef find_zero(xs):\n    return 0\n" and task.secret["atol"] == 1e-4
        assert task.secret["rule"] == "root" and (task.secret.get("prompt") is None) == (protocol == "")
    (other,) = tasks_of("humaneval_plus", write(tmp_path / "o", "HumanEvalPlus.jsonl", [{**row, "entry_point": "g"}]))
    assert other.secret["rule"] == "equal" and other.secret["entry_point"] == "g"


def test_mbpp_plus_restores_tuples_and_compares_by_its_rules(tmp_path: Path) -> None:
    row = {
        "task_id": "Mbpp/2", "prompt": "def similar_elements(a, b): ...\n", "entry_point": "similar_elements", "atol": 0,
        "canonical_solution": "    return a\n", "base_input": [[[3, 4], [5, 4]]], "plus_input": {},
    }  # fmt: skip
    rows = [row, {**row, "task_id": "Mbpp/3", "entry_point": "f", "base_input": [[[3, 4]]], "plus_input": [[[]]]}]
    first, second = tasks_of("mbpp_plus", write(tmp_path, "MbppPlus.jsonl", rows))
    assert first.secret["inputs"] == {"base": "[[(3, 4), (5, 4)]]", "plus": "[]"} and first.secret["rule"] == "set"
    assert second.secret["inputs"] == {"base": "[[[3, 4]]]", "plus": "[[[]]]"} and second.secret["rule"] == "equal"


@pytest.mark.parametrize("predict", ["input", "output"])
def test_cruxeval_hides_what_is_to_be_predicted(predict: str, tmp_path: Path) -> None:
    row = {"id": "sample_7", "code": "def f(a):\n    return a + 1", "input": "41", "output": "42"}
    for way in ("direct", "cot"):
        (task,) = tasks_of(f"cruxeval@{predict}-{way}", write(tmp_path, "cruxeval.jsonl", [row]))
        own = (task.context or "").rpartition("[PYTHON]\n")[2]
        asked = "assert f(41) == ??" if predict == "output" else "assert f(??) == 42"
        assert own == f"{row['code']}\n{asked}\n[/PYTHON]\n[{'ANSWER' if way == 'direct' else 'THOUGHT'}]\n"
        assert task.secret == {"code": row["code"], "output": "42", "input": "41", "predict": predict}
        assert task.id == "sample_7" and task.sampling["stop"] == ("[/ANSWER]",)


# -- human votes --


def test_votes_are_those_of_the_files_labels(tmp_path: Path) -> None:
    judgebench = [
        {"pair_id": "p", "source": "s", "question": f"Q{label}", "response_A": "a", "response_B": "b", "label": label}
        for label in ("A>B", "B>A")
    ]
    tasks = tasks_of("judge_judgebench", write(tmp_path, "judgebench_claude35.jsonl", judgebench))
    assert [task.secret["votes"] for task in tasks] == [["A"], ["B"]] and len({task.cluster for task in tasks}) == 2
    assert tasks[0].metadata["judge"]["fields"] == {"question": "QA>B", "answer_a": "a", "answer_b": "b"}
    llmbar = [{"input": f"I{label}", "output_1": "one", "output_2": "two", "label": label} for label in (1, 2)]
    (tmp_path / "llmbar").mkdir()
    (tmp_path / "llmbar" / "Natural.json").write_text(json.dumps(llmbar))
    tasks = tasks_of("judge_llmbar", tmp_path / "llmbar", subset="natural")
    assert [task.secret["votes"] for task in tasks] == [["A"], ["B"]]
    assert tasks[0].metadata["judge"]["fields"] == {"question": "I1", "answer_a": "one", "answer_b": "two"}
    (tmp_path / "llmbar_processed_mtbench_humans.json").write_text(json.dumps(llmbar))
    tasks = tasks_of("judge_mtbench", tmp_path)
    assert [task.secret["votes"] for task in tasks] == [["A"], ["B"]]
    assert tasks[1].metadata["judge"]["fields"]["answer_b"] == "two"
    pandalm = [
        {
            "instruction": "Do.", "input": given, "response1": "one", "response2": True, "cmp_key": "x_y",
            "annotator1": 1, "annotator2": 2, "annotator3": 0,
        }
        for given in ("it", " ")
    ]  # fmt: skip
    (tmp_path / "testset-v1.json").write_text(json.dumps(pandalm))
    first, second = tasks_of("judge_pandalm", tmp_path)
    assert first.secret["votes"] == ["A", "B", "tie"] and first.id == "pair-0000"
    assert first.metadata["judge"]["fields"] == {"question": "Do.\n\nit", "answer_a": "one", "answer_b": "True"}
    assert second.metadata["judge"]["fields"]["question"] == "Do."


# -- searches --


def test_the_papers_puzzles_are_taken_by_their_place(tmp_path: Path) -> None:
    games = [[[f"clue {game} {n}" for n in range(10)], list("abcde" * 5)] for game in range(105)]
    games[5][1] = list("abcdefghijklmnopqrstuvwxy")
    (tmp_path / "mini0505.json").write_text(json.dumps(games))
    tasks = tasks_of("crosswords", tmp_path)
    assert [task.id for task in tasks] == [f"game-{n:03d}" for n in range(0, 100, 5)]
    assert tasks[1].secret["board"] == "ABCDEFGHIJKLMNOPQRSTUVWXY" and tasks[1].metadata["clues"][9] == "clue 5 9"
    assert tasks[1].prompt.endswith("v4. clue 5 8\nv5. clue 5 9\n") and "h1. clue 5 0\n" in tasks[1].prompt
    assert len(tasks_of("crosswords", tmp_path, games="all")) == 105
    lines = "".join(f"{n},1 1 4 {n}\n" for n in range(1, 12))
    (tmp_path / "24.csv").write_text(f"Rank,Puzzles\n{lines}")
    tasks = tasks_of("game24", tmp_path, ranks="3-5")
    assert [(task.id, task.metadata["numbers"]) for task in tasks] == [
        (f"rank-000{n}", f"1 1 4 {n}") for n in (3, 4, 5)
    ]
    assert [task.id for task in tasks_of("game24", tmp_path, ranks="11")] == ["rank-0011"]
    (tmp_path / "tot_text_100.txt").write_text('It fell. "Why?" He ran!\n\nOne. Two.\n')
    first, second = tasks_of("creative", tmp_path)
    assert first.secret["endings"] == ["It fell.", '"Why?"', "He ran!"] and second.secret["endings"] == ["One.", "Two."]
    assert (first.id, second.id) == ("text-000", "text-002")


HUB = {
    "aime24": ("HuggingFaceH4/aime_2024", "default", "train", 30),
    "aime25": ("math-ai/aime25", "default", "test", 30),
    "boolq": ("aps/super_glue", "boolq", "validation", 3270),
    "commonsense_qa": ("tau/commonsense_qa", "default", "validation", 1221),
    "hellaswag": ("Rowan/hellaswag", "default", "validation", 10042),
    "ifeval": ("google/IFEval", "default", "train", 541),
    "math": ("DigitalLearningGmbH/MATH-lighteval", "default", "test", 5000),
    "math500": ("HuggingFaceH4/MATH-500", "default", "test", 500),
    "mbpp": ("google-research-datasets/mbpp", "full", "test", 974),
    "openbookqa": ("allenai/openbookqa", "main", "test", 500),
    "piqa": ("baber/piqa", "default", "validation", 1838),
    "social_iqa": ("lighteval/siqa", "default", "validation", 1954),
    "truthfulqa": ("truthfulqa/truthful_qa", "multiple_choice", "validation", 817),
    "winogrande": ("allenai/winogrande", "winogrande_xl", "validation", 1267),
    "cruxeval": ("cruxeval-org/cruxeval", "default", "test", 800),
    "bigcodebench": ("bigcode/bigcodebench-hard", "default", "v0.1.4", 148),
    "hle": ("cais/hle", "default", "test", 2500),
}


@pytest.mark.parametrize("name", HUB)
def test_the_hub_is_asked_for_the_split_that_is_scored(name: str) -> None:
    source = importlib.import_module(f"firsthand.benchmarks.{name}").SOURCE
    assert (source.dataset, source.config, source.split, source.rows) == HUB[name]


def answered(text: str, *shown: str) -> Trace:
    events = tuple(Event("branch", 0.0, {"answer": each}) for each in shown)
    return Trace("t", "b", "1", {"name": "a"}, 0, 0, "", 0.0, answer=text, events=events)


def test_a_crossword_is_scored_by_the_last_five_rows_of_letters() -> None:
    board = "ABCDEFGHIJKLMNOPQRSTUVWXY"
    rows = [" ".join(board[at : at + 5]) for at in range(0, 25, 5)]
    task = Task("1", "?", secret={"board": board})
    scorers = (crosswords.words, crosswords.letters, crosswords.game)
    right = answered("Z Z Z Z Z\nso:\n" + "\n".join(rows))
    assert [score(task, right).value for score in scorers] == [1.0, 1.0, 1.0]
    wrong = answered("\n".join([*rows[:4], "u v w x z"]))  # the last letter: one word across and one down
    assert [score(task, wrong).value for score in scorers] == [0.8, 24 / 25, 0.0]
    assert [score(task, answered(rows[0])).value for score in scorers] == [0.1, 0.2, 0.0]
    found = answered("none", "\n".join(rows[:2]), rows[0])
    assert crosswords.best_words(task, found).value == 0.2 and crosswords.best_letters(task, found).value == 0.4
    assert (
        crosswords.place("_" * 25, "v2. hello")[1::5] == "HELLO"
        and crosswords.place("_" * 25, "h2. hello")[5:10] == "HELLO"
    )


def test_endings_are_those_of_their_own_paragraphs() -> None:
    task = Task("1", "?", secret={"endings": ["It fell.", '"Why?"', "He ran!", "Done."]})
    text = "Plan: x\nPassage:\nOne. it fell.\n\nTwo. Why?\n\nThree. He sat.\n\nHe ran! Done."
    score = creative.endings(task, answered(text))
    assert score.value == 0.75 and score.detail == {"paragraphs": 4}
    assert creative.endings(task, answered("")).value == 0.0
    assert creative.endings(task, answered("He ran!\n\nIt fell.")).value == 0.0
