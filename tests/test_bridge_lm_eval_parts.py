"""Parts of the bridge to lm-evaluation-harness one by one: task files, documents as tasks, responses, logged samples."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.bridges.lm_eval import sample_lines, task_files
from firsthand.bridges.lm_eval.document_scores import DocumentRequests, _alone, _is_number, answers, shown
from firsthand.bridges.lm_eval.document_tasks import as_marker, entries_of, protocol_text
from firsthand.bridges.lm_eval.sample_lines import import_samples
from firsthand.bridges.lm_eval.task_files import code_in, names_in, with_includes
from firsthand.bridges.lm_eval.task_loading import _refuse, is_task_file, prepare, task_errors
from firsthand.bridges.lm_eval.task_yaml import read_yaml
from firsthand.errors import ConfigError, DataError, ModelError
from firsthand.message import Message, Text, assistant, user
from firsthand.runs.store import open_run
from firsthand.task import Task
from firsthand.trace import Call, Score, Trace

needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs pip install 'firsthand[lm-eval]'"
)


METRICS = ("acc", "exact_match")


# -- task files --


def test_code_is_listed_in_reading_order_with_the_file_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yaml").write_text(
        "process_docs: !function utils.docs\ninclude: ../c.yaml\ndataset_path: data/x.py\n"
    )
    (tmp_path / "c.yaml").write_text("use_prompt: lib\nclass: ''\nmetric_list:\n  - {metric: acc, hf_evaluate: true}\n")
    path = tmp_path / "a.yaml"
    path.write_text("task: t\ninclude: sub/b.yaml\ndataset_path: pandas\nodd: !function [1]\n")
    assert code_in(path, METRICS) == [
        "dataset_path: pandas (a.yaml)", "!function ? (a.yaml)", "!function utils.docs (b.yaml)",
        "dataset_path: data/x.py (b.yaml)", "use_prompt: a prompt library (c.yaml)",
        "hf_evaluate: a metric fetched from the hub (c.yaml)",
    ]  # fmt: skip
    assert [each.name for each in with_includes(path)] == ["a.yaml", "b.yaml", "c.yaml"]
    with monkeypatch.context() as fewer:
        fewer.setattr(task_files, "MAX_FILES", 3)
        assert len([*with_includes(path)]) == 3
        fewer.setattr(task_files, "MAX_FILES", 2)
        with pytest.raises(DataError) as many:
            code_in(path, METRICS)
        assert str(many.value) == f"{path} includes more than 2 files: include fewer"
    path.write_text(f"dataset_path: {'d' * 60}.py\n")
    assert code_in(path, METRICS) == [f"dataset_path: {'d' * 60} (a.yaml)"]
    for dataset, runs in (
        ("json", False),
        ("x.pkl", True),
        ("x.pickle", True),
        ("eval", True),
        ("webdataset", True),
        ("py", False),
    ):
        path.write_text(f"dataset_path: {dataset}\n")
        assert bool(code_in(path, METRICS)) == runs


def test_a_metric_that_the_harness_does_not_know_is_a_script(tmp_path: Path) -> None:
    """The harness loads it as a file of the current folder or from the hub, without `hf_evaluate` too."""
    path = tmp_path / "a.yaml"
    for name in ("./lm/evil", "/x/evil.py", "evil", "acc.py", "ACC", "[acc]"):
        path.write_text(f"metric_list:\n  - metric: acc\n  - metric: '{name}'\n")
        assert code_in(path, METRICS) == [f"metric: {name}, which is none of lm-eval's own (a.yaml)"]
    path.write_text("metric_list: [{metric: exact_match}, {metric: acc}]\n")
    assert code_in(path, METRICS) == []


def test_a_group_lists_its_tasks_and_those_of_its_subgroups(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text("group: g\ntask:\n  - one\n  - {task: two}\n  - group: sub\n    task: [three, {task: four}]\n")
    assert names_in(path) == ["one", "two", "sub", "three", "four"]
    path.write_text("group: g\n")
    assert names_in(path) == []


@pytest.mark.slow
def test_files_that_are_too_large_or_no_mapping_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("- 1\n")
    with pytest.raises(DataError, match="holds a list: a mapping with `task` or `group` was expected"):
        read_yaml(path)
    path.write_text("a: 1" + " " * ((1 << 20) - 4))
    assert read_yaml(path) == {"a": 1}
    path.write_text("a: 1" + " " * ((1 << 20) - 3))
    with pytest.raises(DataError, match="is larger than 1 MiB"):
        read_yaml(path)
    path.write_text(f"a: {'9' * 1000}\nb: 0.{'5' * 998}\n")
    assert read_yaml(path) == {"a": 10**1000 - 1, "b": float("0." + "5" * 998)}, "as many digits as there may be"
    path.write_text(f"a: 1\nb: !{'x' * 300} 1\n")
    with pytest.raises(DataError, match=rf"^{path} has a value of the type !x{{59}} in line 2: text, numbers"):
        read_yaml(path)
    for text, why in (
        ("a: [\n", "while parsing a flow node"),
        ("[" * 5000, "while increasing flow level exceeded maximum nesting depth"),
    ):
        path.write_text(text)
        with pytest.raises(DataError) as refused:
            read_yaml(path)
        told = str(refused.value)
        assert told.startswith(f"{path} is not YAML: {why}") and len(told) <= len(f"{path} is not YAML: ") + 200
        assert "\n" not in told
    with pytest.raises(DataError, match=r"no\.yaml cannot be read: No such file"):
        read_yaml(tmp_path / "no.yaml")
    for digits, is_read in ((1000, True), (1001, False)):
        path.write_text(f"a: {'1' * digits}\n")
        if is_read:
            assert read_yaml(path) == {"a": int("1" * digits)}
        else:
            with pytest.raises(DataError, match="a number has more than 1000 digits"):
                read_yaml(path)


def test_code_is_refused_unless_trusted_and_errors_name_the_task() -> None:
    _refuse("t.yaml", [], False), _refuse("t.yaml", ["a"], True)
    with pytest.raises(ConfigError, match=r"t\.yaml runs code of its author with your rights: a, b, c\. Read it"):
        _refuse("t.yaml", ["a", "b", "c", "d"], False)
    assert [is_task_file(each) for each in ("a.yaml", "a.yml", "yaml", "a.yaml.txt")] == [True, True, False, False]
    for raised, kind, told in (
        (DataError("no rows"), DataError, "the task 't' cannot be run here: no rows"),
        (ModelError("gone"), ModelError, "^gone$"),
        (KeyError("a\n b"), DataError, r"could not load the task 't' \(KeyError: 'a\\n b'\): check the file"),
        (SystemExit(2), DataError, r"\(SystemExit: 2\)"),
    ):
        with pytest.raises(kind, match=told), task_errors("t"):
            raise raised
    with pytest.raises(DataError) as long, task_errors("t"):
        raise ValueError("a\n b " + "x" * 400)
    assert str(long.value) == (
        f"lm-evaluation-harness could not load the task 't' (ValueError: a b {'x' * 296}): "
        "check the file, its columns and whether its data is on this machine"
    )
    with pytest.raises(ConfigError) as several:
        _refuse("f.yaml", list("abcd"), False)
    assert str(several.value).startswith("f.yaml runs code of its author with your rights: a, b, c. Read it, then")


def config_task(**config: Any) -> Any:
    made: dict[str, Any] = {"told": {}}

    def set_config(key: str, value: Any) -> None:
        made["told"][key] = value

    def set_fewshot_seed(seed: int) -> None:
        made["seed"] = seed

    return SimpleNamespace(get_config=config.get, set_config=set_config, set_fewshot_seed=set_fewshot_seed, made=made)


def test_a_task_is_prepared_with_its_shots_and_its_seed() -> None:
    for default, asked, set_to in ((5, 2, 2), (0, 2, None), (None, 2, 2), (None, None, 0), (5, None, None), (5, 0, 0)):
        task = config_task(num_fewshot=default)
        prepare("t", task, asked, 7)
        assert task.made["told"].get("num_fewshot") == set_to and task.made["seed"] == 7
    for name, told in (("UNSAFE_CODE", "t runs model-written code"), ("MULTIMODAL", "t has images or audio")):
        with pytest.raises(ConfigError, match=told):
            prepare("t", SimpleNamespace(**{name: True}), None, 0)


# -- documents --


def harness_task(instances: list[Any], *, choices: Any = None, text: Any = "Q?") -> Any:
    return SimpleNamespace(
        instances=instances, doc_to_target=lambda doc: f"target {doc['n']}", doc_to_choice=lambda doc: choices,
        doc_to_text=lambda doc: text, get_config=lambda key: choices if key == "doc_to_choice" else None,
    )  # fmt: skip


def instance(kind: str, *args: Any, doc: int = 0, idx: int = 0) -> Any:
    return SimpleNamespace(doc_id=doc, idx=idx, doc={"n": doc}, request_type=kind, args=args, repeats=1)


def ours(*instances: Any, several: bool = False, **about: Any) -> list[Task]:
    return [each.ours for each in entries_of("quiz", harness_task(list(instances), **about), of_several=several)]


def test_documents_become_tasks_with_their_requests() -> None:
    pair = [
        instance("loglikelihood", "Q? A", " no", doc=3, idx=1),
        instance("loglikelihood", "Q? A", " yes", doc=3, idx=0),
    ]
    [task] = ours(*pair, choices=["yes", 2], several=True)
    assert task == Task(
        "quiz-0003", "Q?", choices=("yes", "2"), requests=(("Q? A", " yes"), ("Q? A", " no")), hint="a letter",
        metadata={"lm_eval_task": "quiz", "request": "loglikelihood", "stratum": "quiz"},
        secret={"doc": {"n": 3}, "target": "target 3"},
    )  # fmt: skip
    without = [instance("loglikelihood", "", " yes", idx=2), instance("loglikelihood", "", " no", idx=3)]
    first = [instance("loglikelihood", "Q", " yes"), instance("loglikelihood", "Q", " no", idx=1)]
    [mutual] = ours(*first, *without, choices=["yes", "no"])
    assert (
        mutual.baseline == "" and mutual.requests == (("Q", " yes"), ("Q", " no")) and "stratum" not in mutual.metadata
    )
    with pytest.raises(DataError, match="it scores other texts without the question than with it"):
        ours(*first, *without[::-1][:1], choices=["yes", "no"])
    with pytest.raises(DataError, match="it scores other texts"):
        ours(*first, instance("loglikelihood", "x", " yes", idx=2), choices=["yes", "no"])
    [plain] = ours(instance("loglikelihood", "Q", " yes"), text=3)
    assert (plain.prompt, plain.choices, plain.hint, plain.baseline) == (
        "Which of these comes before: target 0",
        (),
        None,
        None,
    )
    [whole] = ours(instance("loglikelihood_rolling", "All of it."))
    assert (whole.prompt, whole.requests) == ("", (("", "All of it."),))
    [writing] = ours(instance("generate_until", "Q: x\nA:", {"until": ["\n"], "temperature": 0.5}))
    assert (writing.prompt, writing.context, writing.verbatim, writing.conversation) == ("Q?", "Q: x\nA:", True, ())
    assert writing.sampling == {"stop": ("\n",), "max_tokens": 256, "temperature": 0.5}
    with pytest.raises(
        DataError, match="it makes 2 requests of the kinds generate_until, loglikelihood for one document"
    ):
        ours(instance("loglikelihood", "Q", "a"), instance("generate_until", "Q", {}, idx=1))
    with pytest.raises(DataError, match="it makes 2 requests of the kinds generate_until for"):
        ours(instance("generate_until", "Q", {}), instance("generate_until", "Q", {}, idx=1))
    assert [
        task.id for task in ours(instance("generate_until", "a", {}, doc=1), instance("generate_until", "b", {}, doc=0))
    ] == [
        "quiz-0001",
        "quiz-0000",
    ]


def test_a_chat_becomes_a_conversation_that_is_the_same_for_all_choices() -> None:
    chat = as_marker([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}])
    [writing] = ours(instance("generate_until", chat, {}))
    assert (writing.prompt, writing.context, writing.conversation) == ("U", None, (Message("system", (Text("S"),)),))
    [choosing] = ours(
        instance("loglikelihood", chat, "a"), instance("loglikelihood", chat, "b", idx=1), choices=["a", "b"]
    )
    assert (
        choosing.requests == ((None, "a"), (None, "b")) and choosing.prompt == "U" and len(choosing.conversation) == 1
    )
    other = as_marker([{"role": "user", "content": "V"}])
    with pytest.raises(DataError, match="its choices stand in different conversations"):
        ours(instance("loglikelihood", chat, "a"), instance("loglikelihood", other, "b", idx=1), choices=["a", "b"])
    with pytest.raises(DataError, match="its answers begin with a prefix"):
        as_marker([], add_generation_prompt=False)


@needs_harness
def test_the_protocol_says_shots_seed_messages_and_what_is_ignored() -> None:
    def task(shots: int | None, repeats: int | None, **settings: Any) -> Any:
        config = {"num_fewshot": shots, "generation_kwargs": settings, "repeats": repeats}
        return SimpleNamespace(get_config=config.get, config=SimpleNamespace(repeats=repeats))

    both = {"a": task(5, 1, until=[], odd=1), "b": task(None, 3, zeal=2, max_tokens=3)}
    parts = protocol_text(both, 7, True, True, "Be brief.").split("; ")
    assert parts[0].endswith(", 2 tasks") and parts[1:] == [
        "0/5-shot, examples by seed 7", "as messages, examples as turns", "system 'Be brief.'", "ignored: odd, zeal",
        "b asks 3 times: run it with --epochs 3",
    ]  # fmt: skip
    names = {"once": task(0, 1), "twice": task(0, 2), "unsaid": task(0, None), "none": task(0, 0)}
    assert protocol_text(names, 0, False, False, "").split("; ")[1:] == [
        "0-shot, examples by seed 0", "twice asks 2 times: run it with --epochs 2",
    ]  # fmt: skip
    one = protocol_text({"a": task(5, 1)}, 0, True, False, "").split("; ")
    assert one[0].endswith(", 1 task") and one[1:] == ["5-shot, examples by seed 0", "as messages"]
    assert len(protocol_text({"a": task(5, 1)}, 0, False, True, "").split("; ")) == 2


# -- responses --


def scored(*calls: tuple[str | None, list[tuple[str, float, bool]]], answer: str | None = None) -> Trace:
    made = tuple(
        Call(str(n), "score", None, 0.0, 1.0, "", detail={"prompt": prompt, "likelihoods": [
            {"text": text, "logprob": logprob, "is_greedy": greedy} for text, logprob, greedy in each]})
        for n, (prompt, each) in enumerate(calls)
    )  # fmt: skip
    return Trace("id", "lm", "t", {"name": "a"}, 0, 0, "", 1.0, calls=made, answer=answer)


def test_responses_are_log_probs_by_request_or_the_letter_that_was_chosen() -> None:
    base = {"id": "t", "prompt": "Q", "requests": (("Q", " a"), ("Q", " b"))}
    choice = Task(**base, choices=("a", "b"), metadata={"request": "loglikelihood"})
    trace = scored(("Q", [(" b", -2.0, False), (" a", -1.0, True)]))
    assert answers(choice, trace) == [(-1.0, True), (-2.0, False)]
    mutual = Task(**base, choices=("a", "b"), baseline="", metadata={"request": "loglikelihood"})
    both = scored(("Q", [(" a", -1.0, True), (" b", -2.0, False)]), ("", [(" a", -3.0, False), (" b", -4.0, True)]))
    assert answers(mutual, both) == [(-1.0, True), (-2.0, False), (-3.0, False), (-4.0, True)]
    assert answers(choice, scored(answer="B")) == [(-math.inf, False), (0.0, True)]
    assert answers(choice, scored(answer="no idea")) == [(-math.inf, False)] * 2
    for lacking in (trace, scored(answer="B"), scored(("", [(" a", -3.0, True), (" b", -1.0, False)]))):
        with pytest.raises(DataError) as refused:  # a letter tells nothing of the texts without the question
            answers(mutual, lacking)
        assert str(refused.value) == (
            "the attempt lacks the log-probs that this task needs: run it with the pattern direct"
        )
    with pytest.raises(DataError, match="lacks the log-probs"):
        answers(Task(**base, metadata={"request": "loglikelihood"}), scored(answer="B"))
    rolling = Task("t", "", requests=(("", "All."),), metadata={"request": "loglikelihood_rolling"})
    assert answers(rolling, scored(("", [("All.", -9.0, False)]))) == [-9.0]
    writing = Task("t", "Q", metadata={"request": "generate_until"})
    assert answers(writing, scored(answer="text")) == ["text"] and answers(writing, scored()) == [""]


def test_a_metric_of_one_document_is_its_number_or_the_aggregate_of_it() -> None:
    task = SimpleNamespace(aggregation=lambda: {"sum": sum, "big": lambda items: math.exp(items[0][0])})
    entry = DocumentRequests("quiz", task, {}, (), Task("t", "?"))
    assert _alone(entry, ("sum", "none"), 3) == 3.0 and _alone(entry, ("sum", "none"), True) == 1.0
    assert _alone(entry, ("big", "none"), [1000.0]) == math.inf and _alone(entry, ("big", "none"), [0.0]) == 1.0
    assert (
        math.isnan(_alone(entry, ("none", "none"), [1]))
        and _is_number(1.5)
        and not _is_number("1")
        and not _is_number([1])
    )
    assert shown(("acc", "none")) == "acc" and shown(("acc", "strict")) == "acc,strict"


# -- logged samples --


def test_logged_samples_become_a_run_with_an_agent_for_each_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "org__model"
    folder.mkdir()
    (folder / "results_1.json").write_text('{"model_name": "older"}')
    (folder / "results_2.json").write_text('{"model_name": "org/model"}')
    (folder / "results_3.json").write_text("{")
    (folder / "results_4.json").write_text("[" * 100_000)
    (folder / "results_5.json").write_bytes(b"\xff")
    rows = [
        {
            "doc_id": 0,
            "doc": {"q": "x", "long": "y" * 101, "n": 3, "l": [1]},
            "target": 5,
            "filter": "strict",
            "metrics": ["em"],
            "arguments": {"gen_args_0": {"arg_0": "Q: x", "arg_1": {}}},
            "resps": [["It is five"]],
            "filtered_resps": ["five"],
            "em": 1.0,
            "other": 2.0,
        },
        {
            "doc_id": 0,
            "filter": "loose",
            "arguments": [["Q: y", " a"], ["Q: z", " b"]],
            "resps": [[-1.5, True], [-2.5, False]],
            "filtered_resps": [[-1.5, True], [-2.5, False]],
            "em": True,
            "text": "no",
            "doc_hash": 3,
        },
    ]
    path = folder / "samples_quiz_v2_2025-01-02T03-04-05.678.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    id, count = import_samples(path, tmp_path / "home")
    assert count == 2
    with open_run(id, tmp_path / "home") as run:
        assert run.config["benchmarks"] == ["quiz_v2"] and run.config["model"] == "org/model" and run.status == "done"
        assert list(run.agents()) == ["org/model:strict", "org/model:loose"]
        one, two = sorted(run.traces(), key=lambda trace: trace.agent_name, reverse=True)
        assert (one.agent_name, one.answer, one.scores) == ("org/model:strict", "five", (Score("em", 1.0),))
        assert [node.message for node in one.nodes] == [user("Q: x"), assistant("It is five")]
        assert (two.answer, two.scores) == ("[[-1.5, true], [-2.5, false]]", (Score("em", 1.0),))
        assert two.nodes[0].message.text == "Q: y" and one.agent == {"name": "org/model:strict", "model": "org/model"}
        task = run.task("quiz_v2", "0")
        assert task is not None and (task.prompt, task.secret, task.metadata) == ("Q: y", {}, {})
    path.write_text(json.dumps(rows[0]) + "\n")
    again, _ = import_samples(path, tmp_path / "home")
    with open_run(again, tmp_path / "home") as run:
        assert list(run.agents()) == ["org/model"]
        task = run.task("quiz_v2", "0")
        assert task is not None and (task.prompt, task.secret, task.metadata) == (
            "Q: x",
            {"answer": "5"},
            {"q": "x", "n": 3},
        )
    for text, told in (
        ("\n", "has no samples"),
        ('{"doc_id": 1}\n', "line 1: a sample of lm-eval with doc_id"),
        ("\n[]\n", "line 2: a sample"),
        ("[" * 100_000, "line 1: a sample"),
        ('{"doc_id": 1, "filtered_resps": []}\n{\n', "line 2: a sample"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=told):
            import_samples(path, tmp_path / "home")
    path.write_bytes(b'{"doc_id": "\xff"}\n')
    with pytest.raises(DataError, match=r"678\.jsonl cannot be read: "):
        import_samples(path, tmp_path / "home")
    with pytest.raises(DataError, match=r"no\.jsonl cannot be read"):
        import_samples(tmp_path / "no.jsonl", tmp_path / "home")
    plain = tmp_path / "alone" / f"samples_{'x' * 50}.jsonl"
    plain.parent.mkdir()
    plain.write_text(json.dumps(rows[0]) + "\n")
    monkeypatch.setattr(sample_lines, "MAX_LINE_CHARS", len(plain.read_text()) - 1)
    with pytest.raises(DataError, match="line 1: a sample"):
        import_samples(plain, tmp_path / "home")
    monkeypatch.setattr(sample_lines, "MAX_LINE_CHARS", len(plain.read_text()))
    id, _ = import_samples(plain, tmp_path / "home")
    assert "lm-eval-" + "x" * 32 in id and "x" * 33 not in id
    with open_run(id, tmp_path / "home") as run:
        assert (run.config["model"], run.config["benchmarks"]) == ("alone", ["x" * 50])
