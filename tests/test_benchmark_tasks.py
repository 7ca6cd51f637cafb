"""Tasks of benchmarks, made near their functions: function calls, dialogues, code, subjects, needles and pages."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmark_rows import names, refused, written
from firsthand.benchmarks import bfcl, bfcl_multi_turn, gsm8k, mbpp, mmlu
from firsthand.benchmarks.sources.datasets import Rows
from firsthand.errors import ConfigError, DataError
from firsthand.message import system
from firsthand.scorers.expected_calls import check_accepted
from firsthand.task import Task
from firsthand.trace import Trace
from firsthand.worlds.function_turns import TurnTask


def zipped(files: dict[str, str]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return held.getvalue()


def test_the_authors_zip_of_mmlu_is_read_subject_by_subject_up_to_its_unpacked_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    b, a = 'Why?,1,2,3,4,C\n"Two\nlines",5,6,7,8,A\n', "What?,x,y,z,w,D\n"
    raw = zipped({"data/test/b_test.csv": b, "data/test/a_law_test.csv": a, "data/dev/a_dev.csv": "Dev?,1,2,3,4,B\n"})
    path, where = Path("m.zip"), "m.zip, data/test/"
    assert list(mmlu._zipped(raw, path, "test")) == [
        ({"subject": "a_law",
          "question": "What?", "choices": ["x", "y", "z", "w"], "gold": 3}, f"{where}a_law_test.csv, line 1"),
        ({"subject": "b",
          "question": "Why?", "choices": ["1", "2", "3", "4"], "gold": 2}, f"{where}b_test.csv, line 1"),
        ({"subject": "b",
          "question": "Two\nlines", "choices": ["5", "6", "7", "8"], "gold": 0}, f"{where}b_test.csv, line 3"),
    ]  # fmt: skip
    assert [row["gold"] for row, _ in mmlu._zipped(raw, path, "dev")] == [1]
    monkeypatch.setattr(mmlu, "MAX_BYTES", len(a + b))
    assert len(list(mmlu._zipped(raw, path, "test"))) == 3
    monkeypatch.setattr(mmlu, "MAX_BYTES", len(a + b) - 1)
    said = "m.zip unpacks to more than 0 MiB: is it the right file?"
    assert refused(DataError, lambda: list(mmlu._zipped(raw, path, "test"))) == said
    monkeypatch.setattr(mmlu, "MAX_BYTES", 2_000_000)
    bomb = zipped({"test/x_test.csv": "a" * 2_100_000})  # some two thousand bytes packed
    said = "m.zip unpacks to more than 1 MiB: is it the right file?"
    assert len(bomb) < 10_000 and refused(DataError, lambda: list(mmlu._zipped(bomb, path, "test"))) == said
    monkeypatch.undo()
    for line in ("q,1,2,3,A", "q,1,2,3,4,E", "q,1,2,3,4,AB", "q,1,2,3,4,", "q,1,2,3,4,A,B"):
        wrong = refused(
            DataError, lambda line=line: list(mmlu._zipped(zipped({"test/x_test.csv": line}), path, "test"))
        )
        start = "m.zip, test/x_test.csv, line 1: a question, four choices and a letter were expected, not ['q', "
        assert wrong.startswith(start)
    said = "m.zip holds no folder 'val': give the authors' data archive"
    assert refused(DataError, lambda: list(mmlu._zipped(raw, path, "val"))) == said
    broken = "is not a complete zip file of CSV files"
    assert broken in refused(DataError, lambda: list(mmlu._zipped(raw[:-9], path, "test")))


def test_mmlu_shows_the_subjects_own_examples_and_takes_one_subject(tmp_path: Path) -> None:
    def row(subject: str, question: str, gold: int) -> dict[str, Any]:
        return {"subject": subject, "question": question, "choices": ["w", "x", "y", "z"], "gold": gold}

    test = [row("a_law", " Q1 ", 2), {**row("bio", "Q2", 0), "row": 77}, row("a_law", "Q3", 1)]
    dev = [row(subject, f"D{at} {subject}", at % 4) for at in range(5) for subject in ("bio", "a_law")]
    written(tmp_path / "mcq" / "mmlu_test.jsonl", *test)
    written(tmp_path / "mcq" / "mmlu_dev.jsonl", *dev)
    made = mmlu.mmlu(data=str(tmp_path))
    first, second, third = made.tasks(0)
    assert [first.id, second.id, third.id] == ["test-00000", "test-00077", "test-00002"]
    options = "\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    shown = "\n\n".join(f"D{at} a_law{options} {'ABCD'[at % 4]}" for at in range(5))
    head = "The following are multiple choice questions (with answers) about a law.\n\n"
    assert [before for before, _ in first.requests] == [f"{head}{shown}\n\nQ1{options}"] * 4
    assert [text for _, text in first.requests] == [" A", " B", " C", " D"]
    assert first.secret == {"gold": 2, "answer": "C"} and first.metadata == {"subject": "a law", "stratum": "a law"}
    assert first.prompt == "Q1"
    one = mmlu.mmlu(data=str(tmp_path), subject="a_law", protocol="cloze")
    assert [task.id for task in one.tasks(0)] == ["test-00000", "test-00002"] and one.name == "mmlu@cloze"
    assert str(one.options["data"]).endswith("; subject a law") and "subject" not in str(made.options["data"])
    said = "subject is 'law': give one of a_law, bio"
    assert refused(DataError, mmlu.mmlu, data=str(tmp_path), subject="law") == said
    raw = zipped({"data/test/x_test.csv": "Q,1,2,3,4,B\n"})
    (tmp_path / "z" / "mcq").mkdir(parents=True)
    (tmp_path / "z" / "mcq" / "mmlu_csv.zip").write_bytes(raw)
    split = mmlu._split("test", str(tmp_path / "z"))
    assert (split.origin, split.sha256) == ("test split, the authors' files, 1 items", hashlib.sha256(raw).hexdigest())
    from_hub = {"subject": "s", "question": "q", "choices": ("a", "b"), "answer": "1", "other": 0}
    assert mmlu.from_hub(from_hub) == {"subject": "s", "question": "q", "choices": ["a", "b"], "gold": 1}


def test_mbpp_keeps_the_test_split_and_shows_three_examples_before_it(tmp_path: Path) -> None:
    def row(number: int, **changes: Any) -> dict[str, Any]:
        code = f"def helper{number}():\r\n    return 1\ndef f{number}(x):\n    return x\n"
        tests = [f"assert f{number}(1) == 1", f"assert f{number}(2) == helper{number}() + 1"]
        return {"task_id": number, "text": f"T{number}", "code": code, "test_list": tests, **changes}

    numbers = (2, 3, 4, 10, 510, 511, 11, 367)
    rows = [row(number) for number in numbers]
    rows[6]["test_setup_code"] = "a = 1\r\nb = 2"
    file = written(tmp_path / "mbpp.jsonl", *rows)
    for protocol in mbpp.PROTOCOLS:
        made = mbpp.mbpp(data=str(file), protocol=protocol)
        assert [task.id for task in made.tasks(0)] == ["mbpp-510", "mbpp-11"]
        assert str(made.options["data"]).endswith(", of which the test split's 2 with plain values")
        task = made.tasks(0)[1]
        tests = "assert f11(1) == 1\nassert f11(2) == helper11() + 1"
        secret = {
            "setup": "a = 1\nb = 2",
            "cpu_s": 30.0,
            "entry_point": "f11",
            "solution": rows[6]["code"],
            "tests": tests,
        }
        assert task.secret == secret and task.hint == "a Python function in a ```python block"
        assert (made.licence, names(made)) == ("CC BY 4.0", ("passes_tests",))
    shots = next(name for name, each in mbpp.PROTOCOLS.items() if each.shots)
    assert mbpp.PROTOCOLS[shots].max_tokens == 256, "the harness's limit where a task sets none"
    context = mbpp.mbpp(data=str(file), protocol=shots).tasks(0)[1].context
    assert context is not None and context.index("T2") < context.index("T3") < context.index("T4") < context.index(
        "T11"
    )
    written(file, *(row(number) for number in (2, 4, 11)))
    said = refused(DataError, mbpp.mbpp, data=str(file), protocol=shots)
    assert said == f"{file} lacks problems [3], the few-shot examples: give the file with all 974 problems"
    for wrong, held in (([row(11), row(11)], "11"), ([row(11), row(11, task_id="12")], "12")):
        written(file, *wrong)
        said = f"{file}, line 2: the field 'task_id' holds '{held}', and a number of its own was expected"
        assert refused(DataError, mbpp.mbpp, data=str(file), protocol=shots) == said
    assert mbpp._tested("x = 1", ["assert g() == 1"], "w") == ""
    assert refused(DataError, mbpp._tested, "def f(:", ["assert f()"], "w").startswith(
        "w: code or tests are not Python ("
    )
    lists = "w: the field 'test_list' is not a list of assertions"
    for wrong in ([], [1], "assert 1", None):
        assert refused(DataError, mbpp._item, 11, row(11, test_list=wrong), "w") == lists
    said = "w: the field 'test_setup_code' holds '[1]', and code was expected"
    assert refused(DataError, mbpp._item, 11, row(11, test_setup_code=[1]), "w") == said


def test_gsm8k_draws_examples_anew_for_each_question_and_reads_the_last_number() -> None:
    rows = tuple({"question": f"q{at}", "answer": f"a{at} #### 1,00{at}."} for at in range(9))
    test = Rows(({**rows[0], "question": "t0"}, {**rows[1], "question": "t1"}), "o", Path("t"), "5")
    train = Rows(rows, "o", Path("u"), "6")
    chosen = gsm8k.PROTOCOLS["lm-eval-5shot-strict"]
    found, draw = gsm8k._prompted(test, train, chosen), Random(1234)
    for at, task in enumerate(found):
        places = draw.sample(range(9), 5)
        shown = "".join(f"Question: q{n}\nAnswer: a{n} #### 1,00{n}.\n\n" for n in places)
        assert task.context == f"{shown}Question: t{at}\nAnswer:"
        assert (task.id, task.prompt, task.hint) == (f"test-000{at}", f"t{at}", "a number")
        assert task.secret == {"answer": f"100{at}", "solution": f"a{at} #### 1,00{at}."}
    for text, number in (("#### -3", "-3"), ("#### 7 #### 1.5 \n", "1.5"), ("####12.", "12")):
        assert gsm8k._gold({"answer": text}, "w") == number
    for text in ("#### x", "5", "#### 5 apples"):
        assert refused(DataError, gsm8k._gold, {"answer": text}, "w") == "w: the answer does not end with '#### number'"
    example = {"question": "q1", "answer": "a #### 2"}
    assert gsm8k._example({**example, "more": 1}, "w") == gsm8k._from_hub({**example, "more": 1}) == example


def a_function(name: str = "math.add") -> dict[str, Any]:
    properties = {
        "a": {"type": "float", "description": "First."},
        "b": {"type": "dict", "properties": {"c": {"type": "any"}}},
    }
    return {
        "name": name,
        "description": "Adds.",
        "parameters": {"type": "dict", "properties": properties, "required": ["a"]},
    }


def bfcl_rows(folder: Path, category: str, *rows: dict[str, Any], answers: list[Any] | None = None) -> Path:
    file = written(folder / f"BFCL_v4_{category}.json", *rows)
    if answers is not None:
        given = [{"id": row["id"], "ground_truth": each} for row, each in zip(rows, answers, strict=True)]
        written(folder / "possible_answer" / file.name, *given)
    return file


def test_function_calls_are_asked_natively_or_in_a_prompt(tmp_path: Path) -> None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Add 1."}]
    row = {"id": "s_0", "question": [said], "function": [a_function()]}
    dialogue = {**row, "id": "s_1", "question": [[*said, {"role": "assistant", "content": "Yes?"}]]}
    accepted = [{"math.add": {"a": [1.0]}}]
    simple = bfcl_rows(tmp_path, "simple_python", row, dialogue, answers=[accepted, accepted])
    alone = {"id": "i_0", "question": [said[1:]], "function": [a_function("f")]}
    none = bfcl_rows(tmp_path, "irrelevance", alone)
    some = bfcl_rows(tmp_path, "live_relevance", {**alone, "id": "r_0"})
    made = bfcl.bfcl(data=str(tmp_path))
    first, second, third = made.tasks(0)
    hint = " Note that the provided function is in Python 3 syntax."
    described = {**a_function("math_add"), "description": f"Adds.{hint}"}
    schema = {
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"type": "number", "format": "float", "description": "First. This is a float type value."},
            "b": {"type": "object", "properties": {"c": {"type": "string"}}},
        },
    }
    offered = {"name": "math_add", "description": f"Adds.{hint}", "parameters": schema}
    assert (first.id, first.prompt, first.conversation) == ("s_0", "Add 1.", (system("Be brief."),)) and first.calls
    assert first.secret == {
        "calls": {"kind": "calls", "accepted": [{"math_add": {"a": [1.0]}}], "functions": [described]}
    }
    assert first.metadata == {"category": "simple_python", "stratum": "simple_python", "functions": [offered]}
    assert (second.id, second.secret["calls"]["kind"], second.secret["calls"]["accepted"]) == ("i_0", "none", [])
    assert (third.id, third.secret["calls"]["kind"], third.conversation) == ("r_0", "some", ())
    hashes = "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in (simple, none, some))
    counts = "simple_python 1, irrelevance 1, live_relevance 1"
    assert made.options["data"] == f"the leaderboard's files, 3 items ({counts}), each counted once"
    assert made.options["sha256"] == hashlib.sha256(hashes.encode()).hexdigest()
    assert made.environment is not None
    (tool,) = made.environment(first).tools
    assert (tool.name, tool.effect, asyncio.run(tool({"a": 1}))) == ("math_add", "read", "The call was noted.")
    prompted = bfcl.bfcl(data=str(tmp_path), protocol="prompt", category="simple_python")
    (task,) = prompted.tasks(0)
    listed = json.dumps([{**a_function(), "description": f"Adds.{hint}"}], indent=4)
    assert task.conversation == (system(f"{bfcl.SYSTEM}{listed}\n\n\nBe brief."),) and not task.calls
    assert task.metadata == {"category": "simple_python", "stratum": "simple_python"} and prompted.environment is None
    assert task.secret["calls"]["accepted"] == accepted and task.secret["calls"]["functions"][0]["name"] == "math.add"
    assert (
        bfcl.bfcl(data=str(tmp_path), protocol="prompt", category="irrelevance")
        .tasks(0)[0]
        .conversation[0]
        .text.endswith("]\n")
    )
    assert refused(ConfigError, bfcl.bfcl, data=str(tmp_path), category="java").startswith(
        "category is 'java': give one of "
    )
    assert refused(DataError, bfcl.bfcl, data=str(tmp_path), category="multiple") == (
        f"{str(tmp_path)!r} has no BFCL_v4_multiple.json: put the file there"
    )


def test_functions_that_cannot_be_offered_are_refused() -> None:
    def told(*functions: Any) -> str:
        return refused(DataError, bfcl._functions, {"function": list(functions)}, "w")

    nameless = "w: a function has no name, or no parameters with properties"
    assert told({**a_function(), "name": 1}) == told({"name": "f", "parameters": {}}) == told("f") == nameless
    assert refused(DataError, bfcl._functions, {"function": {}}, "w") == "w: 'function' is not a list of functions"
    twice = "w: two functions have the same name after dots become underscores"
    assert told(a_function("a.b"), a_function("a_b")) == twice
    assert told(a_function("a b")) == "w: a function is named 'a b': letters, digits, _ . - were expected"
    assert told(a_function("a" * 65)).startswith("w: a function is named 'aaa")
    assert len(bfcl._functions({"function": [a_function("a" * 64), a_function("b-C.9_")]}, "w")) == 2
    bad = a_function()
    bad["parameters"]["properties"]["b"] = {"type": "array", "items": {"type": "int"}}
    assert told(bad).startswith("w: argument 'b' of math.add has no type of ")
    bad["parameters"]["properties"]["b"] = {"type": "tuple"}
    assert told(bad).startswith("w: argument 'b' of math.add has no type of ")
    functions = [a_function("f")]
    shape = "an accepted call is not {name: {argument: [values]}}: "
    for wrong in ("f", {}, {"f": {}, "g": {}}, {"f": {"a": 1}}, {"f": [1]}):
        assert refused(ValueError, check_accepted, [wrong], functions) == f"{shape}{wrong}"
    said = "the accepted call 'g' is not of an offered function"
    assert refused(ValueError, check_accepted, [{"f": {}}, {"g": {"a": [1]}}], functions) == said


def test_a_dialogue_of_the_multi_turn_files_is_read_from_both_lines() -> None:
    (service, other) = sorted(bfcl_multi_turn.MODULES)[:2]
    row = {
        "id": "multi_turn_miss_func_3",
        "question": [[{"content": "a"}, {"content": "b"}], [{"content": "c"}]],
        "involved_classes": [other, service],
        "initial_config": {"x": 1},
        "excluded_function": ["e"],
        "missed_function": {"1": ["f", "g"]},
    }
    answer = {"id": row["id"], "ground_truth": [["p()"], ["q()", "r()"]]}
    turns = TurnTask(
        row["id"], ("a\nb", "c"), (other, service), {"x": 1}, ("e",), (("p()",), ("q()", "r()")), False, {1: ("f", "g")}
    )  # fmt: skip
    assert bfcl_multi_turn._turn_task(row, answer, "w") == turns
    long = {**row, "id": "multi_turn_long_context_0"}
    del long["excluded_function"], long["missed_function"]
    found = bfcl_multi_turn._turn_task(long, {**answer, "id": long["id"]}, "w")
    assert (found.long, found.excluded, dict(found.later)) == (True, (), {})
    said = "w: the question is multi_turn_miss_func_3 and the answer z: fetch both files again"
    assert refused(DataError, bfcl_multi_turn._turn_task, row, {**answer, "id": "z"}, "w") == said
    short = {**answer, "ground_truth": [["p()"]]}
    said = "w: 2 turns, 1 answers, unknown services []"
    assert refused(DataError, bfcl_multi_turn._turn_task, row, short, "w") == said
    odd = {**row, "involved_classes": ["Zoo", service, "Bar"]}
    said = "w: 2 turns, 2 answers, unknown services ['Bar', 'Zoo']"
    assert refused(DataError, bfcl_multi_turn._turn_task, odd, answer, "w") == said
    del row["initial_config"]
    said = "w: no task of the multi-turn categories ('initial_config')"
    assert refused(DataError, bfcl_multi_turn._turn_task, row, answer, "w") == said


def test_turns_that_passed_are_a_share_and_all_must_be_right() -> None:
    def scores(**state: Any) -> tuple[float, float]:
        task, trace = Task("t", "p"), Trace("t", "b", "t", {"name": "a"}, 0, 0, "", 0.0, final_state=state)
        right, passed = bfcl_multi_turn.turns_right(task, trace), bfcl_multi_turn.turns_passed(task, trace)
        assert (right.name, passed.name) == ("right", "passed")
        return right.value, passed.value

    assert scores(result={"won": True, "passed": 3, "turns": 4}) == (1.0, 0.75)
    assert scores(result={"won": 1, "turns": 4}) == (0.0, 0.0) and scores() == (0.0, 0.0)
    assert scores(result={"passed": 0, "turns": 0}) == (0.0, 0.0)


def test_accepted_answers_and_messages_of_function_calls_are_read_row_by_row(tmp_path: Path) -> None:
    rows = bfcl._read(written(tmp_path / "q.json", {"id": 1}, {"id": 2}))
    file = written(tmp_path / "a" / "q.json", {"ground_truth": [{"f": {}}]}, {"ground_truth": []})
    said = f"{file}, line 2: 'ground_truth' is not a list of calls"
    assert refused(DataError, bfcl._answers, file, rows) == said
    written(file, {"ground_truth": [{"f": {}}]}, {"ground_truth": ["x", "y"]})
    assert bfcl._answers(file, rows) == [[{"f": {}}], ["x", "y"]]
    written(file, {"ground_truth": ["x"]})
    said = f"{file} has 1 rows, and q.json 2: fetch both again"
    assert refused(DataError, bfcl._answers, file, rows) == said
    gone = tmp_path / "none.json"
    said = f"{gone} is missing: put the accepted answers next to the questions"
    assert refused(DataError, bfcl._answers, gone, rows) == said
    first, second = {"role": "system", "content": "S"}, {"role": "user", "content": "U"}
    for messages, found in (
        ([second], ("", "U")),
        ([first, second], ("S", "U")),
        ([second, first], None),
        ([first], None),
    ):
        assert bfcl._messages({"question": [messages]}, "w") == found
    for wrong in ([], [[second], [second]], [[{"role": "user"}]], ["x"], None):
        told = refused(DataError, bfcl._messages, {"question": wrong}, "w")
        assert told == "w: 'question' is not a list of one list of messages"
