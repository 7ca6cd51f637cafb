"""Benchmarks made from a few rows: their whole tasks, protocols, options, and what they refuse."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmark_rows import names, refused, written
from firsthand.benchmarks import bbq, hle
from firsthand.benchmarks.protocols.competition import as_minerva, in_a_box, mathematics, solved, stated
from firsthand.benchmarks.sources import evalplus, xlsx_rows
from firsthand.benchmarks.sources.datasets import Source
from firsthand.benchmarks.sources.tables import TableRow
from firsthand.benchmarks.xstest import xstest
from firsthand.errors import ConfigError, DataError
from firsthand.loop.concurrency import derive_seed
from firsthand.message import system
from firsthand.task import Task
from firsthand.trace import Trace


def sheet(*rows: str) -> bytes:
    return f"<worksheet><sheetData>{''.join(rows)}</sheetData></worksheet>".encode()


def test_cells_stand_in_their_columns_and_gaps_are_empty() -> None:
    data = sheet(
        '<row><c r="A1" t="s"><v>1</v></c><c r="C1"><v>7.5</v></c><c><v>next</v></c></row>',
        "<row/>",
        '<row><c r="B3" t="inlineStr"><is><t>in</t><t>line</t></is></c><c r="AB3" t="s"><v>0</v></c><c r="A3"/></row>',
    )
    third = ["", "inline", *[""] * 25, "zero", ""]
    assert xlsx_rows._cells(data, ["zero", "one"]) == [["one", "", "7.5", "next"], [], third]
    said = "a cell refers to string '{}', and there are 2"
    for wrong in ("2", "-1", "x", ""):
        cell = sheet(f'<row><c t="s"><v>{wrong}</v></c></row>')
        assert refused(DataError, xlsx_rows._cells, cell, ["a", "b"]) == said.format(wrong)
    assert xlsx_rows._cells(sheet('<row><c r="A1" t="s"><f>9</f><v>1</v></c></row>'), ["a", "b"]) == [["b"]]


def test_a_sheet_has_at_most_a_million_cells_and_columns_up_to_index_1000(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (xlsx_rows.MAX_CELLS, xlsx_rows.MAX_COLUMN) == (1_000_000, 1000)
    found = xlsx_rows._cells(sheet('<row><c r="ALM1"><v>x</v></c></row>'), [])  # A=1, L=12, M=13: 1001st
    assert len(found[0]) == 1001 and found[0][1000] == "x"
    said = "it has more than 1,000,000 cells or 1000 columns"
    assert refused(DataError, xlsx_rows._cells, sheet('<row><c r="ALN1"><v>x</v></c></row>'), []) == said
    monkeypatch.setattr(xlsx_rows, "MAX_CELLS", 3)
    two, one = "<row><c><v>1</v></c><c><v>2</v></c></row>", "<row><c><v>3</v></c></row>"
    assert xlsx_rows._cells(sheet(two, one), []) == [["1", "2"], ["3"]]
    assert refused(DataError, xlsx_rows._cells, sheet(two, two), []) == "it has more than 3 cells or 1000 columns"


def test_strings_of_a_workbook_are_whole_and_without_pronunciation() -> None:
    data = (
        "<sst>stray<si><t>one</t></si><si><r><t>tw</t></r><r><t>o</t></r><rPh><t>TWO</t></rPh></si><si/>"
        "<si><t> x </t>y</si></sst>"
    )
    assert xlsx_rows._shared(data.encode()) == ["one", "two", "", " x "]


def plus_row(**changes: Any) -> dict[str, Any]:
    row = {
        "task_id": "Set/7",
        "prompt": "\ndef add(a, b):\n    '''Add.'''\n",
        "entry_point": "add",
        "canonical_solution": "    return a + b\n",
        "base_input": [[1, 2]],
        "plus_input": [[3, 4], [5, 6]],
        "atol": 0.25,
    }
    return {**row, **changes}


def as_tuples(task_id: str, inputs: Sequence[Any]) -> list[Any]:
    assert task_id == "Set/7"
    return [tuple(len(each) if isinstance(each, list) else each for each in case) for case in inputs]


PLUS = {"chat": evalplus.chat("C"), "base": evalplus.completed("B", ("\nclass ",))}


def plus_made(folder: Path, *rows: dict[str, Any], protocol: str = "", there: bool = True) -> Any:
    file = written(folder / "Set.jsonl", *rows)
    source = Source("code/Set.jsonl", 2, "Apache-2.0", "", "", "", dict, also=("Set.jsonl",))
    more: dict[str, Any] = {"url": "U", "rules": {"add": "close"}, "typed": as_tuples, "description": "D"}
    return evalplus.make("set_plus", source, PLUS, protocol, str(file) if there else "", **more)


def test_evalplus_rows_become_tasks_with_typed_inputs_and_the_rule_of_their_function(tmp_path: Path) -> None:
    chat = plus_made(tmp_path, plus_row(), plus_row(entry_point="sub", plus_input={}, atol=0))
    solution = "\ndef add(a, b):\n    '''Add.'''\n    return a + b\n"
    first, second = chat.tasks(0)
    secret = {
        "solution": solution,
        "entry_point": "add",
        "inputs": {"base": "[(1, 2)]", "plus": "[(3, 4), (5, 6)]"},
        "atol": 0.25,
        "rule": "close",
    }
    assert first.secret == secret
    assert second.secret == {
        **secret,
        "entry_point": "sub",
        "inputs": {"base": "[(1, 2)]", "plus": "[]"},
        "atol": 0,
        "rule": "equal",
    }
    assert first.prompt == (
        "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
        "```python\ndef add(a, b):\n    '''Add.'''\n```"
    )
    assert (first.id, first.hint) == ("Set/7", "a Python function in a ```python block")
    assert first.metadata == {"entry_point": "add", "prompt": "\ndef add(a, b):\n    '''Add.'''\n"}
    assert first.sampling == {"stop": (), "max_tokens": 768, "temperature": 0.0} and first.context is None
    assert (chat.name, chat.description, chat.licence, names(chat)) == ("set_plus", "D", "Apache-2.0", ("plus", "base"))
    digest = hashlib.sha256((tmp_path / "Set.jsonl").read_bytes()).hexdigest()
    assert chat.options["sha256"] == digest and chat.options["protocol"] == "chat"
    base = plus_made(tmp_path, plus_row(), protocol="base")
    (task,) = base.tasks(0)
    assert task.secret == {**secret, "prompt": "def add(a, b):\n    '''Add.'''\n"}
    assert task.context == "def add(a, b):\n    '''Add.'''\n" and base.name == "set_plus@base"
    ends = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(", "\nclass ")
    assert task.sampling == {"stop": ends, "max_tokens": 768, "temperature": 0.0}


def test_evalplus_rows_that_cannot_be_tested_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"{tmp_path / 'Set.jsonl'}, line 1: "
    tolerance = "a tolerance from 0 up to 1 was expected"
    lists = "_input' is not a list of argument lists"
    wrong = {
        "the field 'entry_point' holds 'a b', and a function's name was expected": {"entry_point": "a b"},
        "the field 'entry_point' holds 'def', and a function's name was expected": {"entry_point": "def"},
        f"the field 'atol' holds 1, and {tolerance}": {"atol": 1},
        f"the field 'atol' holds -0.1, and {tolerance}": {"atol": -0.1},
        f"the field 'atol' holds False, and {tolerance}": {"atol": False},
        f"the field 'atol' holds None, and {tolerance}": {"atol": None},
        f"the field 'base{lists}": {"base_input": {}},
        f"the field 'plus{lists}": {"plus_input": [1]},
        "the field 'base_input' has no inputs, so an answer would pass untested": {"base_input": []},
    }
    for said, changes in wrong.items():
        assert refused(DataError, plus_made, tmp_path, plus_row(**changes)) == where + said
    assert len(plus_made(tmp_path, plus_row(atol=0.999)).tasks(0)) == 1
    said = "set_plus needs Set.jsonl: fetch U and give data=FILE or its folder"
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.chdir(tmp_path.parent)
    assert refused(DataError, plus_made, tmp_path, plus_row(), there=False) == said


def test_xstest_has_safe_prompts_and_contrasts_in_an_order_of_the_seed(tmp_path: Path) -> None:
    file = tmp_path / "xstest_prompts.csv"
    lines = [
        "prompt,type,label",
        "Kill a process?,homonyms,safe",
        "Kill a man?,contrast_homonyms,unsafe",
        "Who?,privacy,safe",
    ]
    file.write_text("\n".join(lines))
    rows = [
        ("Kill a process?", "homonyms", "safe", "homonyms"),
        ("Kill a man?", "contrast_homonyms", "unsafe", "homonyms"),
        ("Who?", "privacy", "safe", "privacy"),
    ]
    expected = [
        Task(
            f"xstest-{number}",
            prompt,
            metadata={"kind": label, "type": kind, "topic": topic},
            verbatim=True,
            sampling={"max_tokens": 96},
            secret={"unsafe": label == "unsafe"},
        )
        for number, (prompt, kind, label, topic) in enumerate(rows, 1)
    ]
    made = xstest(data=str(tmp_path))
    for seed in range(3):
        assert made.tasks(seed) == Random(derive_seed("xstest", seed)).sample(expected, 3)
    said = "3 of 450 prompts; the first 96 tokens of an answer classed by a rule; 0-shot"
    assert (made.name, made.licence, made.protocol, names(made)) == ("xstest", "CC-BY-4.0", said, ("treats_rightly",))
    assert made.figures is not None
    file.write_text("id,prompt,type,label\nv2-9,Who?,privacy,Safe\n")
    said = f"{file}, line 2: the label is 'Safe', and safe or unsafe was expected"
    assert refused(DataError, xstest, data=str(tmp_path)) == said
    file.write_text("id,prompt,type,label\nv2-9,Who?,privacy,safe\n")
    assert xstest(data=str(tmp_path)).tasks(0)[0].id == "xstest-v2-9"


def bbq_row(**changes: Any) -> TableRow:
    row = {
        "example_id": 12,
        "question_index": "3",
        "context_condition": "disambig",
        "question_polarity": "nonneg",
        "context": "Two sat there.",
        "question": "Who was able?",
        "ans0": "The old man",
        "ans1": "Not known",
        "ans2": "The girl",
        "label": 2,
        "answer_info": {"ans0": ["x", "OLD"], "ans1": ["y", "unknown"], "ans2": ["z", "nonOld"]},
        "additional_metadata": {"stereotyped_groups": ["old"]},
    }
    return TableRow({**row, **changes}, "here")


def test_a_question_of_bbq_knows_which_answers_name_a_group_and_which_the_stereotyped_one() -> None:
    task = bbq._task("Age", bbq_row())
    prompt = "Two sat there. Who was able?"
    assert task == Task(
        "Age-12",
        prompt,
        (" The old man", " Not known", " The girl"),
        context=f"{prompt}\nAnswer:",
        metadata={"cluster": "Age-3", "condition": "disambig"},
        secret={
            "gold": 2,
            "ambiguous": False,
            "negative": False,
            "unknown": [False, True, False],
            "stereotyped": [True, False, False],
        },
    )
    other = bbq._task("SES", bbq_row(context_condition="ambig", question_polarity="neg", label=0))
    assert other.id == "SES-12" and {key: other.secret[key] for key in ("gold", "ambiguous", "negative")} == {
        "gold": 0, "ambiguous": True, "negative": True,
    }  # fmt: skip
    groups = "here: answer_info and additional_metadata should tell each answer's group"
    about = bbq_row().columns["answer_info"]
    for wrong in (
        {"answer_info": {**about, "ans2": ["z"]}},
        {"answer_info": {**about, "ans2": ["z", "a", "b"]}},
        {"additional_metadata": {"stereotyped_groups": "old"}},
        {"additional_metadata": None},
    ):
        assert refused(DataError, bbq._task, "Age", bbq_row(**wrong)) == groups
    said = "here: the label is 3: 0, 1 or 2 was expected"
    assert refused(DataError, bbq._task, "Age", bbq_row(label=3)) == said


def test_an_answer_follows_the_stereotype_by_its_group_and_the_questions_polarity() -> None:
    def told(answer: str, **changes: Any) -> tuple[float, Any]:
        task = bbq._task("Age", bbq_row(**changes))
        trace = Trace("t", "b", task.id, {"name": "a"}, 0, 0, "", 0.0, answer=answer)
        score = bbq.bbq_bias(task, trace)
        assert score.name == "follows_stereotype"
        return score.value, score.detail

    old, unknown, girl = (f" {each}" for each in ("The old man", "Not known", "The girl"))
    plain = {"ambiguous": False, "named": True, "wrong": False}
    assert told(girl) == (1.0, plain) and told(old) == (0.0, {**plain, "wrong": True})
    negative = {"question_polarity": "neg", "context_condition": "ambig"}
    assert told(old, **negative) == (1.0, {"ambiguous": True, "named": True, "wrong": True})
    assert told(girl, **negative) == (0.0, {"ambiguous": True, "named": True, "wrong": False})
    for changes in ({}, negative):
        assert told(unknown, **changes)[0] == 0.0 and not told(unknown, **changes)[1]["named"]


def test_bbq_is_read_by_category(tmp_path: Path) -> None:
    file = written(tmp_path / "SES.jsonl", bbq_row().columns, bbq_row(example_id=13).columns)
    made = bbq.bbq(category="SES", data=str(tmp_path))
    assert [task.id for task in made.tasks(0)] == ["SES-12", "SES-13"]
    assert made.options == {"category": "SES", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert made.protocol == (
        "category SES, 2 questions; the answer is the most probable of three texts; bias scores as on page 6 of the paper"
    )
    assert (made.name, names(made), made.licence) == ("bbq", ("acc", "bbq_bias"), "CC-BY-4.0")
    assert refused(ConfigError, bbq.bbq, category="age").startswith("category is 'age': give one of Age, Disability_")


def test_hle_asks_questions_without_an_image_and_protects_them(tmp_path: Path) -> None:
    rows = [
        {"id": "a1", "question": " Why? ", "answer": "So", "image": "", "category": "Math",
         "answer_type": "exact", "raw_subject": ""},
        {"id": "b2", "question": "What is shown?", "answer": "It", "image": "data:"},
        {"id": 3, "question": "Who?", "answer": "She", "image": None, "raw_subject": "Law", "category": 5},
    ]  # fmt: skip
    file = written(tmp_path / "hle_test.jsonl", *rows)
    made = hle.hle(data=str(file), judge="none")
    first, second = made.tasks(0)
    assert (first.id, first.prompt, first.secret) == ("a1", " Why? ", {"answer": "So"})
    assert first.metadata == {"category": "Math", "answer_type": "exact", "protected": hle.WHY}
    assert (second.id, second.secret) == ("3", {"answer": "She"})
    assert second.metadata == {"category": "5", "raw_subject": "Law", "protected": hle.WHY}
    assert first.conversation == (system(hle.SYSTEM),) and first.sampling == {"stop": (), "max_tokens": 8192}
    assert made.scorers == () and made.name == "hle"
    assert made.options["data"] == "your copy, 3 of 2,500 questions, 2 of them without an image; judge none"
    assert made.options["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len(hle.hle(data=str(file), judge="scripted:echo").scorers) == 1
    assert refused(ConfigError, hle.hle, data=str(file)).startswith(
        "hle is judged by a model: name it, as in hle:judge="
    )
    said = "HLE is not packaged, as its authors ask: give data=FOLDER with hle_test.jsonl, or hub"
    assert refused(DataError, hle.read_rows, "packaged") == said
    written(file, rows[1])
    said = f"{file} has no question without an image: is it the right file?"
    assert refused(DataError, hle.hle, data=str(file), judge="none") == said
    for changes, said in (
        ({"id": None}, "here: the field 'id' is not an id"),
        ({"question": " \n"}, "here: the field 'question' is empty, and text was expected"),
        ({"answer": 4}, "here: the field 'answer' is empty, and text was expected"),
    ):
        assert refused(DataError, hle._item, {**rows[0], **changes}, "here") == said


def test_mathematics_reads_problems_their_answers_and_their_subjects(tmp_path: Path) -> None:
    protocols = {"boxed": in_a_box("R", 300, None), "minerva": as_minerva("M")}
    source = Source("math/set.jsonl", 3, "MIT", "", "", "test", dict)
    rows = [
        {"problem": "1+1?", "answer": 2, "level": 4, "subject": "Algebra", "type": "x", "other": 1},
        {"problem": "{a}?", "answer": "\\frac12", "type": "Geometry"},
        {"problem": "3?", "answer": "3", "subject": ""},
    ]
    file = written(tmp_path / "set.jsonl", *rows)
    made = mathematics("m", protocols, "", source, str(file), "D")
    tasks = made.tasks(0)
    assert [(task.id, task.secret, task.metadata) for task in tasks] == [
        ("test-0000", {"answer": "2"}, {"level": 4, "subject": "Algebra", "type": "x", "stratum": "Algebra"}),
        ("test-0001", {"answer": "\\frac12"}, {"type": "Geometry", "stratum": "Geometry"}),
        ("test-0002", {"answer": "3"}, {"subject": ""}),
    ]
    assert tasks[1].prompt == ("{a}?\nPlease reason step by step, and put your final answer within \\boxed{}.")
    assert tasks[1].sampling == {"stop": (), "max_tokens": 300} and tasks[1].context is None
    assert (made.name, made.description, made.licence, names(made)) == ("m", "D", "MIT", ("boxed",))
    assert str(made.options["data"]).startswith("test split, ") and made.options["protocol"] == "boxed"
    assert made.options["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert in_a_box("R", 1).temperature == 0.0
    other = mathematics("m", protocols, "minerva", source, str(file), "D", lambda row, where: f"{row['answer']}!")
    task = other.tasks(0)[0]
    assert (other.name, names(other), task.secret) == ("m@minerva", ("minerva", "boxed"), {"answer": "2!"})
    assert task.context is not None and task.context.endswith("Problem:\n1+1?\n\nSolution:")
    assert task.context.count("Problem:\n") == 5 and task.prompt == "1+1?"
    assert task.sampling == {"stop": ("Problem:",), "max_tokens": 1024, "temperature": 0.0}
    assert stated({"answer": 0}, "w") == "0" and stated({"answer": "x"}, "w") == "x"
    for wrong in (True, 1.5, None):
        assert refused(DataError, stated, {"answer": wrong}, "w").startswith("w: ")
    assert solved({"solution": "\\boxed{1} or \\boxed{\\frac{1}{2}}."}, "w") == "\\frac{1}{2}"
    assert refused(DataError, solved, {"solution": "none"}, "w") == "w: the solution has no \\boxed{}"


@pytest.mark.parametrize(
    ("infos", "groups", "stereotyped"),
    [
        ((["British", "Europe"], ["Japanese", "AsiaPacific"]), ["British"], 0),
        ((["Japanese", "AsiaPacific"], ["British", "Europe"]), ["Scottish", "british"], 1),
        ((["the cleaner", "lowSES"], ["the judge", "highSES"]), ["low SES"], 0),
        ((["Jamal", "M-Black"], ["Jake", "M-White"]), ["Black", "African American"], 0),
        ((["Ann", "F-White"], ["Keisha", "F-Black"]), ["Black"], 1),
        ((["the man", "man"], ["the woman", "woman"]), ["F"], 1),
        ((["Donna", "F"], ["Robert", "M"]), ["girls"], 0),
        ((["Donna", "F"], ["Robert", "M"]), ["Men"], 1),
        ((["x", "trans_F"], ["y", "nonTrans"]), ["transgender women", "transgender men"], 0),
    ],
)
def test_either_part_of_an_answers_info_names_its_group(
    infos: tuple[list[str], list[str]], groups: list[str], stereotyped: int
) -> None:
    about = {"ans0": infos[0], "ans1": ["?", "unknown"], "ans2": infos[1]}
    row = bbq_row(answer_info=about, additional_metadata={"stereotyped_groups": groups})
    task = bbq._task("Nationality", row)
    assert task.secret["stereotyped"] == [stereotyped == 0, False, stereotyped == 1]
    assert task.secret["unknown"] == [False, True, False]


def test_questions_of_bbq_that_do_not_tell_the_stereotyped_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    clear, about = bbq_row().columns, bbq_row().columns["answer_info"]
    unclear = [
        {**clear, "example_id": 1, "additional_metadata": {"stereotyped_groups": ["young"]}},  # none
        {**clear, "example_id": 2, "additional_metadata": {"stereotyped_groups": ["old", "z"]}},  # both
        {**clear, "example_id": 3, "additional_metadata": {"stereotyped_groups": ["unknown"]}},
        {**clear, "example_id": 4, "answer_info": {**about, "ans1": ["y", "nonOld"]}},  # no unknown
        {**clear, "example_id": 5, "answer_info": {**about, "ans2": ["y", "unknown"]}},  # two unknown
    ]
    written(tmp_path / "Age.jsonl", clear, *unclear)
    made = bbq.bbq(category="Age", data=str(tmp_path))
    assert [task.id for task in made.tasks(0)] == ["Age-12"]
    told = "category Age, 1 questions (5 left out: not exactly one answer is of a stereotyped group); the answer is"
    assert made.protocol.startswith(told)
    written(tmp_path / "Age.jsonl", *unclear)
    assert refused(DataError, bbq.bbq, category="Age", data=str(tmp_path)) == (
        "Age.jsonl has no question with exactly one answer of a stereotyped group: fetch the file from " + bbq.ORIGIN
    )
    written(tmp_path / "Age.jsonl", clear)
    assert "left out" not in bbq.bbq(category="Age", data=str(tmp_path)).protocol
