"""Logged samples of lm-evaluation-harness field by field, its task files and their code, and its documents as tasks."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.bridges.lm_eval.document_tasks import _question, _read, _sampling, as_marker
from firsthand.bridges.lm_eval.document_tasks import _task as document_task
from firsthand.bridges.lm_eval.result_models import ResultModels
from firsthand.bridges.lm_eval.sample_lines import (
    _answer,
    _prompt,
    _rows,
    _scores,
    _shown,
    _task,
    _trace,
    import_samples,
)
from firsthand.bridges.lm_eval.task_files import with_includes
from firsthand.bridges.lm_eval.task_loading import _check, _file_manager, installed_tasks, load_tasks, quiet
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.message import Message, Text, assistant, user
from firsthand.runs.store import open_run
from firsthand.task import Task
from firsthand.trace import Score

needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs pip install 'firsthand[lm-eval]'"
)

# -- logged samples --


def test_the_first_prompt_of_a_row_is_found_in_every_form_of_its_arguments() -> None:
    forms: list[tuple[Any, str]] = [
        ({"gen_args_0": {"arg_0": "Q: é", "arg_1": "x"}, "gen_args_1": {"arg_0": "other"}}, "Q: é"),
        ({"gen_args_0": {"arg_1": "x"}}, ""), ({}, ""), ([["Q: y", " a"], ["Q: z", " b"]], "Q: y"), ([[], "x"], "[]"),
        (["Q: w", "x"], "Q: w"), ([], ""), (None, ""), ("text", ""), ([5], "5"), ({"a": "plain"}, "plain"),
    ]  # fmt: skip
    assert [_prompt({"arguments": given}) for given, _ in forms] == [expected for _, expected in forms]
    assert _prompt({}) == ""


def test_a_rows_answer_is_its_only_text_and_its_scores_are_the_named_numbers() -> None:
    answers: list[tuple[Any, str]] = [
        ([["é"]], "é"), ("a", "a"), (["a", "b"], '["a", "b"]'), ([[-1.5, True]], "[-1.5, true]"), ([[]], "[]"), (None, ""),
        ([None], ""), (3, "3"),
    ]  # fmt: skip
    assert [_answer(given) for given, _ in answers] == [expected for _, expected in answers]
    assert [_shown(each) for each in ("é", None, {"a": "é"}, 0, "")] == ["é", "", '{"a": "é"}', "0", ""]
    row = {"metrics": ["em", 5, "flag", "lost"], "em": 0.25, "flag": True, "other": 2, "doc_id": 3, "text": "no"}
    assert list(_scores(row)) == [Score("em", 0.25), Score("flag", 1.0)]
    every = [Score("em", 0.25), Score("flag", 1.0), Score("other", 2.0)]
    for unnamed in ("none", [], [5]):
        assert list(_scores({**row, "metrics": unnamed})) == every
    assert (
        list(_scores({"doc_hash": 1, "prompt_hash": 2, "target_hash": 3, "filter": 4, "resps": 5, "target": 6})) == []
    )


def test_a_row_is_a_task_with_its_short_facts_and_an_attempt_with_two_messages() -> None:
    row: dict[str, Any] = {
        "doc_id": 7, "doc": {"q": "x" * 100, "long": "y" * 101, "n": 3, "none": None, "l": [1], "f": 0.5},
        "target": ["a", "é"], "arguments": [["Q?"]], "resps": [["It is five"]], "filtered_resps": ["five"], "em": 1,
    }  # fmt: skip
    secret = {"answers": ["a", "é"]}
    assert _task(row) == Task("7", "Q?", secret=secret, metadata={"q": "x" * 100, "n": 3, "f": 0.5})
    assert _task({**row, "doc": "text"}) == Task("7", "Q?", secret=secret)
    targets = [(0, "0"), (0.0, "0.0"), (False, "false"), ([1, "a"], '[1, "a"]'), ({}, "{}"), ("", ""), ("é", "é")]
    assert [_task({**row, "target": target}).secret for target, _ in targets] == [
        {"answer": text} for _, text in targets
    ]
    assert _task({"doc_id": 0}) == _task({"doc_id": 0, "target": []}) == Task("0", "")
    trace = _trace(row, "quiz", "m:strict", "m")
    assert (trace.benchmark, trace.task_id, trace.agent, trace.epoch, trace.duration_s, trace.started_at) == (
        "quiz", "7", {"name": "m:strict", "model": "m"}, 0, 0.0, "1970-01-01T00:00:00+00:00",
    )  # fmt: skip
    assert [(node.parent, node.message) for node in trace.nodes] == [(None, user("Q?")), (0, assistant("It is five"))]
    assert (trace.answer, trace.scores, len(trace.id)) == ("five", (Score("em", 1.0),), 16)
    others = {_trace({**row, "doc_id": 8}, "quiz", "m:strict", "m").id, _trace(row, "quiz", "m", "m").id,
              _trace(row, "quiz2", "m:strict", "m").id}  # fmt: skip
    assert len(others | {trace.id}) == 4 and _trace(row, "quiz", "m:strict", "other").id == trace.id
    silent = _trace({**row, "resps": []}, "quiz", "m", "m")
    assert silent.nodes[1].message == assistant("[]")
    assert _trace({**row, "resps": None}, "quiz", "m", "m").nodes[1].message == assistant("five")


def test_the_model_is_that_of_the_newest_results_that_name_one_or_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "org__m"
    folder.mkdir()
    path = folder / "samples_x.jsonl"
    assert ResultModels().of(path) == "org__m" and ResultModels().of(Path("samples_x.jsonl")) == "model"
    for name, body in (("1", '{"model_name": "old"}'), ("2", json.dumps({"model_name": "n" * 201})), ("3", "{"),
                       ("4", '{"model_name": 5}'), ("5", "[]")):  # fmt: skip
        (folder / f"results_{name}.json").write_text(body)
    assert ResultModels().of(path) == "n" * 200


@pytest.mark.slow
def test_rows_are_read_line_by_line_and_a_file_becomes_a_run(tmp_path: Path) -> None:
    path = tmp_path / "m" / "samples_ns_quiz_2025-01-02T03-04-05.678.jsonl"
    path.parent.mkdir()
    row = {"doc_id": 1, "filtered_resps": ["é"], "arguments": [["Q1"]], "em": 1.0}
    rows = [row, {**row, "doc_id": 2, "arguments": [["Q2"]], "em": 0.0}, {**row, "arguments": [["Q3"]], "filter": "l"}]
    path.write_text("\n \n" + "\n".join(json.dumps(each, ensure_ascii=False) for each in rows))
    assert list(_rows(path)) == rows
    id, count = import_samples(path, tmp_path / "home")
    assert count == 3 and "lm-eval-ns-quiz" in id
    with open_run(id, tmp_path / "home") as run:
        about = {"kind": "import", "imported": "lm-eval", "model": "m", "benchmarks": ["ns_quiz"], "file": path.name}
        assert {key: run.config[key] for key in about} == about and run.status == "done"
        assert run.agents() == {name: {"name": name, "model": "m"} for name in ("m:none", "m:l")}
        made = [(each.task_id, each.agent_name, each.answer, each.scores[0].value) for each in run.traces()]
        assert made == [("1", "m:none", "é", 1.0), ("2", "m:none", "é", 0.0), ("1", "m:l", "é", 1.0)]
        first, second = run.task("ns_quiz", "1"), run.task("ns_quiz", "2")
        assert first is not None and second is not None and (first.prompt, second.prompt) == ("Q3", "Q2")
    path.write_text(json.dumps(row))
    with open_run(import_samples(path, tmp_path / "home")[0], tmp_path / "home") as run:
        assert list(run.agents()) == ["m"] == [each.agent_name for each in run.traces()]
    path.write_text("\n".join(json.dumps({**row, "doc_id": number, "filter": "l"}) for number in (1, 2)))
    with open_run(import_samples(path, tmp_path / "home")[0], tmp_path / "home") as run:
        assert list(run.agents()) == ["m"], "one filter, however many samples it has"
        assert [(each.task_id, each.agent_name) for each in run.traces()] == [("1", "m"), ("2", "m")]
    path.write_bytes(b'{"doc_id": 1, "filtered_resps": []}\n\n\xff\n')
    with pytest.raises(DataError, match="cannot be read: "):
        list(_rows(path))


# -- task files --


def test_a_file_comes_before_what_it_includes_each_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    names = ["a.yaml", "sub/b.yaml", "c.yaml", "d.yaml"]
    bodies = ["include: sub/b.yaml\nmore: [{include: d.yaml}]", "include: ../c.yaml", "include: a.yaml", "task: x"]
    for name, body in zip(names, bodies, strict=True):
        (tmp_path / name).write_text(body)
    found = [str(each.relative_to(tmp_path.resolve())) for each in with_includes(tmp_path / "a.yaml")]
    assert found == ["a.yaml", "d.yaml", "sub/b.yaml", "c.yaml"]
    (tmp_path / "d.yaml").write_text("include: none.yaml")
    with pytest.raises(DataError, match=r"none\.yaml cannot be read"):
        list(with_includes(tmp_path / "a.yaml"))


class Index:
    """A harness's task manager: what it was made with, and an index of entries by name."""

    def __init__(self, entries: dict[str, Any], made: list[Any]):
        self.task_index, self.made = entries, made

    def __call__(self, **options: Any) -> Index:
        self.made.append(options)
        known = {
            name: each for name, each in self.task_index.items() if each.own or options.get("include_defaults", True)
        }
        return Index(known, self.made)


def entry_of(path: Path | None, *, own: bool = True, tags: Sequence[str] = ()) -> Any:
    return SimpleNamespace(yaml_path=path, tags=set(tags), own=own)


@needs_harness
def test_a_task_file_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "t.yaml").write_text("task: t\nclass: !function own.Task\ninclude: other.yaml\n")
    (tmp_path / "other.yaml").write_text("a: 1\n")
    assert list(with_includes(Path("~/t.yaml"))) == [tmp_path / "t.yaml", tmp_path / "other.yaml"]
    with pytest.raises(ConfigError, match=r"^t\.yaml runs code of its author with your rights: !function own\.Task"):
        load_tasks("~/t.yaml", "", False)


@needs_harness
def test_code_of_users_files_is_refused_through_groups_and_tags_and_installed_files_are_not_read(
    tmp_path: Path,
) -> None:
    import lm_eval

    bad, good, group = (tmp_path / f"{name}.yaml" for name in ("bad", "good", "group"))
    bad.write_text("task: bad\nclass: x.Y")
    good.write_text("task: good")
    group.write_text("group: g\ntask: [good, {task: bad}, unknown, g]")
    theirs = sorted((Path(lm_eval.__file__).parent / "tasks").glob("a*/*.yaml"))
    installed = next(file for file in theirs if "!function" in file.read_text(encoding="utf-8"))
    entries = {
        "bad": entry_of(bad), "good": entry_of(good), "g": entry_of(group), "t": entry_of(None, tags=["good", "h"]),
        "h": entry_of(None, tags=["bad", "t"]), "theirs": entry_of(installed, own=False),
    }  # fmt: skip
    told = r"^bad\.yaml runs code of its author with your rights: class: a Python class \(bad\.yaml\)\. Read it"
    for name in ("bad", "g", "t", "h"):
        with pytest.raises(ConfigError, match=told):
            _check(name, Index(entries, []), False)
        _check(name, Index(entries, []), True)
    for name in ("good", "unknown", "theirs"):
        _check(name, Index(entries, []), False)


@needs_harness
def test_a_file_is_loaded_by_its_path_and_a_group_by_its_name_with_its_neighbours(tmp_path: Path) -> None:
    task, group, code = (tmp_path / f"{name}.yaml" for name in ("task", "group", "code"))
    task.write_text("task: t")
    group.write_text("group: g\ntask: [t, arc]")
    code.write_text("task: !function x.y")
    made: list[Any] = []
    entries = {"g": entry_of(group), "t": entry_of(task), "arc": entry_of(None, own=False)}
    manager, name = _file_manager(task, "", False, Index(entries, made))
    assert name == str(task) and made == [{"include_defaults": False, "include_path": None}]
    made.clear()
    assert _file_manager(task, "more", False, Index({}, made))[1] == str(task) and made[0]["include_path"] == "more"
    made.clear()
    manager, name = _file_manager(group, "more", False, Index(entries, made))
    folders = [str(tmp_path), "more"]
    assert (name, made) == ("g", [{"include_defaults": False, "include_path": folders}, {"include_path": folders}])
    assert set(manager.task_index) == {"g", "t", "arc"}
    made.clear()
    group.write_text("group: g\ntask: [t]")
    assert _file_manager(group, "", False, Index(entries, made))[1] == "g"
    assert made == [{"include_defaults": False, "include_path": [str(tmp_path)]}]
    for wrong in ({"t": entry_of(task)}, {"t": entry_of(task), "g": entry_of(task)}):
        with pytest.raises(DataError, match=r"^another file in its folder has a group or task named 'g': rename one$"):
            _file_manager(group, "", False, Index(wrong, []))
    with pytest.raises(ConfigError, match=r"^code\.yaml runs code"):
        _file_manager(code, "", False, Index({}, []))
    assert _file_manager(code, "", True, Index({}, []))[1] == str(code)


class Manager:
    """A harness's task manager of two tasks and a group, that keeps how it was made and what was loaded."""

    all_tasks = ("arc", "mine", "arcs")
    made: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, mine: Path, **options: Any):
        self.made.append(options)
        self.task_index = {"arc": entry_of(None), "mine": entry_of(mine), "arcs": entry_of(None)}

    def load(self, name: str) -> Any:
        if name == "arcs":
            return {"tasks": {"arc": 1, "mine": 2}, "groups": {"arcs": 3}}
        return {"tasks": {name: f"the task {name}"}}


@needs_harness
def test_a_task_is_loaded_by_its_name_among_the_harness_own_and_those_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("task: mine\nclass: x.Y")
    loader = SimpleNamespace(_import_func_in_yml=lambda qual, folder: None)
    theirs = SimpleNamespace(
        TaskManager=partial(Manager, mine), _yaml_loader=loader
    )  # the real one reads thousands of files
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", theirs)
    installed_tasks.cache_clear()
    Manager.made.clear()
    try:
        assert load_tasks("arc", "", False) == ({"arc": "the task arc"}, {}), "a task alone has no groups"
        assert load_tasks("arcs", "", False) == ({"arc": 1, "mine": 2}, {"arcs": 3})
        assert load_tasks("arc", "more", False)[0] == {"arc": "the task arc"}
        assert Manager.made == [{"include_path": None}, {"include_path": "more"}], "each is indexed once"
        with pytest.raises(UnknownName) as missing:
            load_tasks("arx", "", False)
        assert str(missing.value) == (
            "no task of lm-evaluation-harness 'arx'; did you mean 'arc'? `lm_eval ls tasks` shows all"
        )
        with pytest.raises(ConfigError, match=r"^mine\.yaml runs code of its author"):
            load_tasks("mine", "", False)
        assert load_tasks("mine", "", True) == ({"mine": "the task mine"}, {}) and len(Manager.made) == 2
    finally:
        installed_tasks.cache_clear()


@needs_harness
def test_the_harness_renders_templates_in_a_sandbox_and_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jinja2 import Environment, StrictUndefined
    from jinja2.exceptions import SecurityError, UndefinedError
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    from firsthand.bridges.lm_eval.task_files import sandbox_templates

    before = utils.env
    sandbox_templates()
    made = utils.env
    assert isinstance(made, SandboxedEnvironment) and made.undefined is before.undefined
    assert made.keep_trailing_newline == before.keep_trailing_newline and set(before.filters) <= set(made.filters)
    assert made.from_string("{{ a }}\n").render(a="é").startswith("é")
    with pytest.raises(SecurityError):
        made.from_string("{{ ''.__class__.__mro__ }}").render()
    sandbox_templates()
    assert utils.env is made
    for keeps, ending in ((True, "\n"), (False, "")):
        plain = Environment(undefined=StrictUndefined, keep_trailing_newline=keeps)
        plain.filters["twice"] = lambda text: text * 2
        monkeypatch.setattr(utils, "env", plain)
        sandbox_templates()
        assert utils.env is not plain and isinstance(utils.env, SandboxedEnvironment)
        assert utils.env.from_string("{{ a | twice }}\n").render(a="é") == f"éé{ending}", "as the harness's own"
        with pytest.raises(UndefinedError):
            utils.env.from_string("{{ nothing }}").render()
    with quiet():
        print("notice", file=sys.stderr)
        print("kept")
    print("after", file=sys.stderr)
    assert capsys.readouterr() == ("kept\n", "after\n")


# -- documents --


def test_a_conversation_is_read_from_its_mark_and_settings_by_the_harness_rules() -> None:
    said = [{"role": "system", "content": "S"}, {"role": "assistant", "content": "é"}, {"role": "user", "content": "Q"}]
    assert _read(as_marker(said)) == ((Message("system", (Text("S"),)), Message("assistant", (Text("é"),))), "Q")
    assert _read(as_marker(said[2:])) == ((), "Q") and _read("plain") == _read(None) == ((), None)
    with pytest.raises(DataError, match="its conversation ends with a assistant message: a user message was expected"):
        _read(as_marker(said[:2]))
    with pytest.raises(DataError, match="ends with a user message"):
        _read(as_marker([{"role": "tool", "content": "x"}, said[2]]))
    with pytest.raises(DataError, match="its answers begin with a prefix"):
        as_marker(said, False)
    task = SimpleNamespace(doc_to_text=lambda doc: doc["q"], doc_to_target=lambda doc: "T")
    assert (_question(task, {"q": "Q?"}), _question(task, {"q": 3})) == ("Q?", "Which of these comes before: T")
    settings: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"stop": (), "max_tokens": 256, "temperature": 0.0}),
        ({"until": "\n", "max_gen_toks": 9, "max_tokens": 8, "temperature": 0.5, "top_k": 3, "odd": 1},
         {"stop": ("\n",), "max_tokens": 9, "temperature": 0.5, "top_k": 3}),
        ({"until": ["a", "", None, 5], "max_new_tokens": 0, "do_sample": True},
         {"stop": ("a", "5"), "max_tokens": 0, "temperature": 1.0}),
        ({"do_sample": False, "temperature": 0.7, "num_beams": 1, "min_p": 0.1},
         {"stop": (), "max_tokens": 256, "temperature": 0.0, "min_p": 0.1}),
        ({"until": ("b", "a"), "do_sample": None, "temperature": 0.7, "top_p": 0.5, "repetition_penalty": 1.1},
         {"stop": ("b", "a"), "max_tokens": 256, "temperature": 0.7, "top_p": 0.5, "repetition_penalty": 1.1}),
        ({"do_sample": True, "temperature": None}, {"stop": (), "max_tokens": 256, "temperature": 0.0}),
    ]  # fmt: skip
    assert [_sampling(given) for given, _ in settings] == [expected for _, expected in settings]
    with pytest.raises(DataError, match="it asks for beam search with 2 beams"):
        _sampling({"num_beams": 2})


def request(kind: str, *args: Any) -> Any:
    return SimpleNamespace(request_type=kind, args=args)


def test_a_document_becomes_a_task_with_its_requests_by_kind() -> None:
    def made(*requests: Any, choices: Any = None, text: Any = "Q?") -> Task:
        task = SimpleNamespace(
            doc_to_target=lambda doc: doc["t"], doc_to_choice=lambda doc: choices, doc_to_text=lambda doc: text,
            get_config=lambda key: choices if key == "doc_to_choice" else None,
        )  # fmt: skip
        return document_task("quiz-0003", "quiz", task, {"t": "é"}, list(requests))

    def about(kind: str) -> dict[str, Any]:
        return {"metadata": {"lm_eval_task": "quiz", "request": kind}, "secret": {"doc": {"t": "é"}, "target": "é"}}

    sampling = {"stop": (), "max_tokens": 256, "temperature": 0.0}
    assert made(request("generate_until", "Shots. Q?", {})) == Task(
        "quiz-0003", "Q?", context="Shots. Q?", sampling=sampling, verbatim=True, **about("generate_until")
    )
    chat = as_marker([{"role": "assistant", "content": "S"}, {"role": "user", "content": "last"}])
    assert made(request("generate_until", chat, {"until": ["\n"]})) == Task(
        "quiz-0003", "last", conversation=(Message("assistant", (Text("S"),)),), sampling={**sampling, "stop": ("\n",)},
        verbatim=True, **about("generate_until"),
    )  # fmt: skip
    rolling = "loglikelihood_rolling"
    assert made(request(rolling, "whole")) == Task("quiz-0003", "", requests=(("", "whole"),), **about(rolling))
    pairs = [request("loglikelihood", "Q:", " a"), request("loglikelihood", "Q:", " b")]
    likely = about("loglikelihood")
    assert made(*pairs) == Task("quiz-0003", "Q?", requests=(("Q:", " a"), ("Q:", " b")), **likely)
    listed = {"choices": ("a", "7"), "hint": "a letter", "requests": (("Q:", " a"), ("Q:", " b"))}
    assert made(*pairs, choices=["a", 7]) == Task("quiz-0003", "Q?", **listed, **likely)
    alone = [request("loglikelihood", "", " a"), request("loglikelihood", "", " b")]
    assert made(*pairs, *alone, choices=["a", 7]) == Task("quiz-0003", "Q?", baseline="", **listed, **likely)
    talk = [request("loglikelihood", chat, " a"), request("loglikelihood", chat, " b")]
    assert made(*talk, choices=["a", 7]) == Task(
        "quiz-0003", "last", choices=("a", "7"), hint="a letter", requests=((None, " a"), (None, " b")),
        conversation=(Message("assistant", (Text("S"),)),), **likely,
    )  # fmt: skip
    wrong: list[tuple[list[Any], str]] = [
        ([pairs[0], request(rolling, "x")], "it makes 2 requests of the kinds loglikelihood, loglikelihood_rolling for one"),
        ([request(rolling, "x"), request(rolling, "y")], "it makes 2 requests of the kinds loglikelihood_rolling"),
        ([*pairs, request("loglikelihood", "", " c")], "it scores other texts without the question than with it"),
        ([*pairs, request("loglikelihood", "x", " a")], "it scores other texts without the question than with it"),
        ([talk[0], pairs[1]], "its choices stand in different conversations: leave out apply_chat_template"),
        ([pairs[0], talk[1]], "its choices stand in different conversations: leave out apply_chat_template"),
    ]  # fmt: skip
    for requests, said in wrong:
        with pytest.raises(DataError, match=said):
            made(*requests, choices=["a", 7])
