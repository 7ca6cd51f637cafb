"""Rows of question sets as they are converted, and those that are refused in a sentence that names their place."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmark_rows import bodies, facts, refused, said, written
from firsthand.benchmarks import (
    bbh,
    bbq,
    boolq,
    cruxeval,
    gpqa,
    hellaswag,
    humaneval,
    ifeval,
    judge_judgebench,
    judge_mtbench,
    winogrande,
)
from firsthand.benchmarks.protocols.protocol import Item
from firsthand.benchmarks.protocols.vote_sets import AnswerPair
from firsthand.benchmarks.sources.datasets import Rows
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.trace import Score, Trace


@pytest.fixture(autouse=True)
def nothing_else_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def test_instructions_need_arguments_that_are_known() -> None:
    row = {
        "key": 5, "prompt": "Do.", "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
        "kwargs": [{"a": None}, {"keywords": ["x"], "b": None}],
    }  # fmt: skip
    given = [["punctuation:no_comma", {}], ["keywords:existence", {"keywords": ["x"]}]]
    assert ifeval._item(row, "w") == Item(
        "key-5", {"question": "Do."}, secret={"instructions": given},
        metadata={"instructions": row["instruction_id_list"]},
    )  # fmt: skip
    told = "w: 'instruction_id_list' and 'kwargs' are not lists of equal length"
    for change in (
        {"kwargs": [{}]},
        {"instruction_id_list": [], "kwargs": []},
        {"kwargs": None},
        {"instruction_id_list": "a"},
    ):
        assert refused(DataError, ifeval._item, {**row, **change}, "w") == told
    told = "w: the arguments of 'keywords:existence' are 3, and an object was expected"
    assert refused(DataError, ifeval._item, {**row, "kwargs": [{}, 3]}, "w") == told


def test_a_function_to_predict_is_python_in_all_its_parts() -> None:
    row = {"id": "s1", "code": "def f(a): return a", "input": "", "output": "(1,\n2)"}
    question = "def f(a): return a\nassert f({}) == {}\nWhat stands for ??"
    for predict, shown in (("output", ("", "??")), ("input", ("??", "(1,\n2)"))):
        secret = {"code": row["code"], "output": row["output"], "input": "", "predict": predict}
        fields = {"question": question.format(*shown), **{key: row[key] for key in ("code", "input", "output")}}
        assert cruxeval._item(row, "w", predict) == Item("s1", fields, secret=secret)
    assert cruxeval._item({**row, "input": "1, b=[2]"}, "w", "output").fields["input"] == "1, b=[2]"
    for name, wrong in (("code", "def"), ("output", "1 +"), ("input", "1 2")):
        told = refused(DataError, cruxeval._item, {**row, name: wrong}, "w", "output")
        assert told.startswith(f"w: the field '{name}' is not Python (")
    for wrong in (None, 3):
        told = f"w: the field 'input' holds '{wrong}', and text was expected"
        assert refused(DataError, cruxeval._item, {**row, "input": wrong}, "w", "output") == told


def test_gaps_and_passages_are_split_at_their_marks() -> None:
    row: dict[str, Any] = {"sentence": "The _ hit _ it.", "option1": "cat", "option2": "dog", "answer": 1}
    fields = {"before": "The ", "after": "hit _ it.", "question": "Which name fills the gap? The _ hit _ it."}
    assert winogrande.read_item(row, "i", "w") == Item("i", fields, ("cat", "dog"), 0)
    assert winogrande.read_item({**row, "answer": "2"}, "i", "w").gold == 1
    for change in ({"answer": "3"}, {"answer": 0}, {"sentence": "no gap"}, {"answer": None}):
        bad = {**row, **change}
        told = f"w: a sentence with a gap '_' and an answer 1 or 2 were expected, not {str(bad)[:80]!r}"
        assert refused(DataError, winogrande.read_item, bad, "i", "w") == told
    assert winogrande.from_hub({**row, "x": 1}) == row
    asked = {"query": "T -- p -- q.\nQuestion: a\nQuestion: is it?\nAnswer:", "choices": ["no", "yes"], "gold": 1}
    assert boolq.read_item(asked, "i", "w") == Item(
        "i", {"passage": "T -- p -- q.\nQuestion: a", "question": "is it"}, ("no", "yes"), 1, metadata={"cluster": "T"}
    )
    long = {**asked, "query": f"{'x' * 300}\nQuestion: is it?\nAnswer:"}
    assert boolq.read_item(long, "i", "w").metadata == {"cluster": "x" * 200}
    told = "w: the field 'query' has no line 'Question: ...'"
    assert refused(DataError, boolq.read_item, {**asked, "query": "is it?\nAnswer:"}, "i", "w") == told
    assert [boolq.from_hub({"passage": "p", "question": "q", "label": label})["gold"] for label in (0, "1")] == [1, 0]


def test_contexts_get_back_the_space_that_the_letters_file_has(tmp_path: Path) -> None:
    def file(kind: str, *queries: str) -> Path:
        rows = [{"query": query, "choices": ["a", "b"], "gold": at % 2} for at, query in enumerate(queries)]
        return written(tmp_path / f"h_{kind}_x.jsonl", *rows)

    path = file("rc", "He", "She [x]")
    rows = Rows(({"query": "He", "n": 1}, {"query": "She [x]", "n": 2}), "o", path, "5")
    assert hellaswag.whole(rows) is rows
    letters = file("mc", "He " + hellaswag.CHOOSE + " A. x", "She [x]" + hellaswag.CHOOSE)
    whole = hellaswag.whole(rows)
    assert whole.rows == ({"query": "He ", "n": 1}, {"query": "She [x]", "n": 2}) and whole.sha256 == "5"
    file("mc", "She [x]" + hellaswag.CHOOSE, "He " + hellaswag.CHOOSE)
    told = f"{letters} and {path} do not hold the same contexts in the same order: fetch them again"
    assert refused(DataError, hellaswag.whole, rows) == told
    assert hellaswag.whole(Rows(rows.rows, "o", letters, "5")).rows == rows.rows
    row = {"query": " He  ", "choices": ["a", "b"], "gold": 0, "source": "video~1"}
    assert hellaswag.read_item(row, "i", "w") == Item(
        "i", {"question": " He  ", "stripped": " He"}, ("a", "b"), 0, metadata={"cluster": "video~1"}
    )
    hub = {
        "activity_label": "Cook", "ctx_a": "A man [title] cuts.", "ctx_b": "then HE", "endings": [" a  b [x]", "[y"],
        "label": "1", "source_id": "",
    }  # fmt: skip
    assert hellaswag.from_hub(hub) == {
        "query": "Cook: A man.  cuts. Then he".replace(".  ", ". "),
        "choices": ["a b ", "[y"],
        "gold": 1,
    }
    assert hellaswag.from_hub({**hub, "source_id": 7})["source"] == "7"


def test_humaneval_and_bbh_and_bbq_say_where_they_are_from(tmp_path: Path) -> None:
    row = {
        "task_id": "HumanEval/3", "prompt": "\nimport re\n\ndef f(x):\n    '''Doc.'''\n\n", "entry_point": "f",
        "canonical_solution": "    return x\n", "test": "def check(c):\n    assert c(1)",
    }  # fmt: skip
    path = written(tmp_path / "HumanEval.jsonl", row)
    made, origin = humaneval.humaneval(data=str(tmp_path)), "data folder, 1 of 164 items"
    assert facts(made) == said(
        "humaneval", "passes_tests", "Python functions from docstrings, 164 problems (Chen et al., 2021).",
        f"test split, {origin}; 0-shot; the answer's fenced code, or the prompt completed by it up to a stop "
        f"string; all tests "
        "must pass in the sandbox within 5 s of processor time", "MIT",
        options={"data": origin, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    )  # fmt: skip
    assert bodies(made.tasks(0)) == [
        {
            "id": "HumanEval/3",
            "prompt": "Complete this Python function. Answer with the whole function, its imports included, in one "
            "```python block.\n\n```python\n\nimport re\n\ndef f(x):\n    '''Doc.'''\n```",
            "verbatim": True,
            "hint": "a Python function in a ```python block",
            "metadata": {"entry_point": "f", "prompt": row["prompt"]},
            "secret": {
                "tests": "def check(c):\n    assert c(1)\ncheck(f)", "setup": "\nimport re\n\n", "prompt": row["prompt"],
                "entry_point": "f", "solution": "    return x\n",
            },
        }
    ]  # fmt: skip
    digest = hashlib.sha256()
    for name in ("sort", "add"):
        (tmp_path / "bbh" / "data").mkdir(parents=True, exist_ok=True)
        (tmp_path / "bbh" / "cot-prompts").mkdir(exist_ok=True)
        body = json.dumps({"examples": [{"input": f"{name} {at}", "target": str(at)} for at in range(2)]})
        (tmp_path / "bbh" / "data" / f"{name}.json").write_text(body)
        text = "canary\r\n-----\r\nDo.\n\nQ: a\nA: Let's think step by step. 1\n\nQ: b\nA: 2\n\nQ: c\nA: 3\n"
        (tmp_path / "bbh" / "cot-prompts" / f"{name}.txt").write_bytes(text.encode())
    for name in ("add", "sort"):
        digest.update((tmp_path / "bbh" / "data" / f"{name}.json").read_bytes())
    all_of, one = bbh.bbh(data=str(tmp_path)), bbh.bbh(data=str(tmp_path), task="sort")
    origin = "the authors' files, 4 items"
    assert facts(all_of) == said(
        "bbh", "bbh_exact", "27 tasks that need several steps (Suzgun et al., 2022).",
        f"{origin}; {bbh.PROTOCOLS['lm-eval-cot-3shot'].describe()}", "MIT",
        options={"data": origin, "sha256": digest.hexdigest(), "protocol": "lm-eval-cot-3shot"},
    )  # fmt: skip
    assert [task.id for task in all_of.tasks(0)] == ["add-000", "add-001", "sort-000", "sort-001"]
    assert one.options["data"] == "the authors' files, 2 items of sort" and one.tasks(0)[1].id == "sort-001"
    worked = bbh._worked(tmp_path / "bbh" / "cot-prompts" / "add.txt")
    assert worked == "Do.\n\nQ: a\nA: Let's think step by step.\n1\n\nQ: b\nA: 2\n\nQ: c\nA: 3"
    told = refused(UnknownName, bbh.bbh, data=str(tmp_path), task="sorts")
    assert told == f"no BBH task 'sorts'; did you mean 'sort'? `ls {tmp_path / 'bbh' / 'data'}` shows all"
    path = tmp_path / "bbh" / "cot-prompts" / "add.txt"
    for text in ("Q: a\nQ: b\nQ: c", "x\n-----\nDo\nQ: a\nQ: b", "x\n-----\nDo\nQ: a\nQ: b\nQ: c\nQ: d"):
        path.write_text(text)
        told = f"{path}: three examples 'Q: ...' below a line '-----' were expected"
        assert refused(DataError, bbh._worked, path) == told
    for raw, told in (
        (b"{", "p is not a JSON object with 'examples': fetch it again"),
        (b"[]", "p is not a JSON object with 'examples': fetch it again"),
        (b'{"x": 1}', "p is not a JSON object with 'examples': fetch it again"),
        (b'{"examples": []}', "p: 'examples' is not a list of objects"),
        (b'{"examples": [1]}', "p: 'examples' is not a list of objects"),
        (b'{"examples": [{"input": "a", "target": "b"}, {"input": "c"}]}',
         "p, example 1: the field 'target' is missing, and text was expected"),
    ):  # fmt: skip
        assert refused(DataError, bbh._items, "n", raw, Path("p"), "w") == told
    assert refused(DataError, bbh._folder, str(tmp_path / "x")) == (
        f"no folder with 'data' and 'cot-prompts' in {str(tmp_path / 'x')!r}: give data=FOLDER that holds those of "
        "github.com/suzgunmirac/BIG-Bench-Hard (its folder 'bbh' as 'data')"
    )
    assert bbh._folder(str(tmp_path / "bbh")) == tmp_path / "bbh" / "."


def test_bbqs_questions_know_groups_and_stereotypes(tmp_path: Path) -> None:
    row = {
        "example_id": 4, "question_index": "1", "context": "C.", "question": "Q?", "ans0": "old", "ans1": "unclear",
        "ans2": "young", "label": 1, "context_condition": "ambig", "question_polarity": "neg",
        "answer_info": {"ans0": ["o", "Old"], "ans1": ["u", "unknown"], "ans2": ["y", "nonOld"]},
        "additional_metadata": {"stereotyped_groups": ["OLD"]},
    }  # fmt: skip
    path = written(tmp_path / "Religion.jsonl", row)
    made = bbq.bbq(category="Religion", data=str(tmp_path))
    assert facts(made) == said(
        "bbq", "acc follows_stereotype".replace("follows_stereotype", "bbq_bias"),
        "Stereotypes in question answering, ambiguous and disambiguated (Parrish et al., 2022).",
        "category Religion, 1 questions; the answer is the most probable of three texts; bias scores as on page "
        "6 of the "
        "paper", "CC-BY-4.0", figures=True,
        options={"category": "Religion", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    )  # fmt: skip
    assert bodies(made.tasks(0)) == [
        {
            "id": "Religion-4", "prompt": "C. Q?", "choices": [" old", " unclear", " young"], "context": "C. Q?\nAnswer:",
            "metadata": {"cluster": "Religion-1", "condition": "ambig"},
            "secret": {
                "gold": 1, "ambiguous": True, "negative": True, "unknown": [False, True, False],
                "stereotyped": [True, False, False],
            },
        }
    ]  # fmt: skip
    (task,) = made.tasks(0)
    for answer, value, named, wrong in (
        ("A", 1, True, True),
        ("B", 0, False, False),
        ("C", 0, True, True),
        ("", 0, False, True),
    ):
        trace = Trace("t", "b", task.id, {}, 0, 0, "", 0.0, answer=answer)
        detail = {"ambiguous": True, "named": named, "wrong": wrong}
        assert bbq.bbq_bias(task, trace) == Score("follows_stereotype", float(value), detail)
    for label in (3, None, "x" * 50):
        written(path, {**row, "label": label})
        told = f"{path}, line 1: the label is {label!r:.40}: 0, 1 or 2 was expected"
        assert refused(DataError, bbq.bbq, category="Religion", data=str(tmp_path)) == told
    for change in ({"answer_info": None}, {"additional_metadata": {}}, {"answer_info": {"ans0": ["a", "b"]}}):
        written(path, {**row, **change})
        told = f"{path}, line 1: answer_info and additional_metadata should tell each answer's group"
        assert refused(DataError, bbq.bbq, category="Religion", data=str(tmp_path)) == told
    assert refused(ConfigError, bbq.bbq, category="Pets").startswith(
        "category is 'Pets': give one of Age, Disability_status, "
    )


GPQA = {"Question": "Q?", "Correct Answer": "r [title]  x", "Incorrect Answer 1": "a", "Incorrect Answer 2": "b ",
        "Incorrect Answer 3": "c"}  # fmt: skip


def test_gpqas_choices_are_drawn_by_one_generator_over_all_repeats(tmp_path: Path) -> None:
    rows = [GPQA, {**GPQA, "Question": "P?"}]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(GPQA))
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path / "gpqa_main.csv"
    path.write_text(text.getvalue())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    made = gpqa.gpqa(data=str(tmp_path), subset="main", repeats=2)
    origin = "main, your copy, 2 of 448 items, 2 repeats"
    assert facts(made) == said(
        "gpqa-main", "simple_evals_letter",
        "Graduate-level questions that a web search does not answer (Rein et al., 2023).",
        f"{origin}; {gpqa.PROTOCOLS['simple-evals'].describe()}", "CC BY 4.0; not to be shown in plain text online",
        options={"data": origin, "sha256": digest, "protocol": "simple-evals"},
    )  # fmt: skip
    listed, rng = [GPQA["Correct Answer"], "a", "b ", "c"], Random(0)
    orders = [[listed[place] for place in rng.sample(range(4), 4)] for _ in range(4)]
    tasks = made.tasks(0)
    assert [task.id for task in tasks] == ["main-0000-r0", "main-0001-r0", "main-0000-r1", "main-0001-r1"]
    assert [task.secret["gold"] for task in tasks] == [order.index("r [title]  x") for order in orders]
    assert [task.prompt.rpartition("?\n")[2] for task in tasks] == [
        "".join(f"\n{letter}) {each}" for letter, each in zip("ABCD", order, strict=True)) for order in orders
    ]  # fmt: skip
    assert tasks[3].metadata == {"protected": gpqa.WHY, "cluster": "main-0001"}
    one = gpqa.gpqa(protocol="lm-eval-0shot", data=str(tmp_path), subset="main")
    choices = ["a", "b", "c", "r.  x".replace("  ", " ")]
    Random(0).shuffle(choices)
    assert one.name == "gpqa@lm-eval-0shot-main" and one.tasks(0)[0].metadata == {"protected": gpqa.WHY}
    assert (one.tasks(0)[0].id, one.tasks(0)[0].secret["gold"]) == ("main-0000", choices.index("r. x"))
    assert one.options["data"] == "main, your copy, 2 of 448 items"
    for repeats in (0, 65):
        told = f"repeats is {repeats}: give 1 to 64; simple-evals has 4"
        assert refused(ConfigError, gpqa.gpqa, repeats=repeats, data=str(tmp_path)) == told
    assert refused(DataError, gpqa.read_rows, "main", "packaged") == (
        "GPQA is not packaged, as its authors ask: give data=FOLDER with their dataset.zip, or hub"
    )
    assert refused(DataError, lambda: list(gpqa._items(
        Rows(({**GPQA, "Incorrect Answer 2": " "},), "o", path, ""), "main", 1, gpqa._permuted
    ))) == f"{path}, line 1: the column 'Incorrect Answer 2' is empty, and text was expected"  # fmt: skip
    for raw, told in (
        (b"", "f holds no rows: is it truncated?"), (b"Question\n", "f holds no rows: is it truncated?"),
        (b"Question,Correct Answer\na,b\n",
         "f has no column 'Incorrect Answer 1': give the authors' gpqa_*.csv, or their dataset.zip"),
        (b"\xff", "f is not CSV in UTF-8: it is not UTF-8 text"), (b'a\n"', "f is not CSV in UTF-8: unexpected end of data"),
    ):  # fmt: skip
        assert refused(DataError, gpqa._csv_rows, raw, Path("f")) == told


def turned(question: str, answer: str) -> list[dict[str, str]]:
    return [{"content": question}, {"content": answer}, {"content": "more"}]


def test_votes_on_first_turns_are_gathered_whatever_the_order_of_the_models(tmp_path: Path) -> None:
    vote = {
        "question_id": 81, "model_a": "zeta", "model_b": "alpha", "winner": "model_a", "turn": 1,
        "conversation_a": turned("Q", "of z"), "conversation_b": turned("Q", "of a"),
    }  # fmt: skip
    other = {**vote, "model_a": "alpha", "model_b": "zeta", "winner": "tie",
             "conversation_a": turned("Q", "of a"), "conversation_b": turned("Q", "of z")}  # fmt: skip
    second = {**vote, "turn": 2}
    about = {"models": "alpha/zeta", "turn": "1"}
    assert judge_mtbench._vote(vote, 3) == AnswerPair("81-alpha-zeta", "Q", "of a", "of z", ("B",), about)
    assert judge_mtbench._vote(other, 3) == AnswerPair("81-alpha-zeta", "Q", "of a", "of z", ("tie",), about)
    path = written(tmp_path / "mt_bench_human_judgments.jsonl", vote, second, other, {**vote, "question_id": "9"})
    made = judge_mtbench.judge_mtbench(data=str(tmp_path))
    origin = "MT-Bench's human judgements, those of first turns among 4 votes, 2 pairs"
    assert facts(made) == said(
        "judge_mtbench", "human_agreement majority_agreement order_consistency",
        "Pairs of answers to MT-Bench's questions, with human verdicts (Zheng et al., 2023).",
        f"{origin}; judge protocol pairwise: our own: A, B or tie by log-prob, both orders; run it with --pattern "
        f"judge",
        "CC BY 4.0",
        options={
            "data": origin, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "protocol": "pairwise",
        },
    )  # fmt: skip
    assert [(task.id, task.secret["votes"]) for task in made.tasks(0)] == [
        ("81-alpha-zeta", ["B", "tie"]), ("9-alpha-zeta", ["B"]),
    ]  # fmt: skip
    written(path, second)
    told = "the file of MT-Bench's votes has none on a first turn: is it the right file?"
    assert refused(DataError, judge_mtbench.judge_mtbench, data=str(tmp_path)) == told
    written(path, vote, {**vote, "conversation_b": turned("R", "x")})
    assert refused(DataError, judge_mtbench.judge_mtbench, data=str(tmp_path)) == (
        f"{path}, row 2: not a pair with votes (ValueError: the two conversations begin with different questions)"
    )
    path.unlink()
    selected = [{"input": "I", "output_1": "1", "output_2": 2, "label": "2"}]
    (tmp_path / "llmbar_processed_mtbench_humans.json").write_text(json.dumps(selected))
    chosen = judge_mtbench.judge_mtbench(data=str(tmp_path))
    assert chosen.options["data"] == "MT-Bench's human judgements, LLMBar's selection, 1 pairs"
    assert judge_mtbench._pair(selected[0], 7) == AnswerPair("pair-007", "I", "1", "2", ("B",), {})
    row = {"question": "Q", "response_A": "a", "response_B": "b", "label": "B>A", "source": "s"}
    path = written(tmp_path / "judgebench_claude35.jsonl", row)
    bench = judge_judgebench.judge_judgebench(data=str(tmp_path))
    origin = "JudgeBench, answers of claude-3-5-sonnet-20240620, 1 pairs"
    assert bench.options["data"] == origin and bench.licence == "MIT" and bench.name == "judge_judgebench"
    assert (
        bench.description
        == "Pairs of answers to hard questions, one of each pair objectively right (Tan et al., 2024)."
    )
    assert judge_judgebench._pair(row, 4) == AnswerPair("pair-004", "Q", "a", "b", ("B",), {"source": "s"})
