"""States, verdicts and metrics of an Inspect task, its samples as tasks, and the sandbox that each sample gets."""

from __future__ import annotations

import asyncio
import importlib.util
import math
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError, DataError, ToolError
from firsthand.message import assistant, system, user
from firsthand.task import Task
from firsthand.trace import Event, Failure, Node, Score, Trace

if importlib.util.find_spec("inspect_ai") is None:
    pytest.skip("needs pip install 'firsthand[inspect]'", allow_module_level=True)

from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig, get_model
from inspect_ai.model._model import model_roles
from inspect_ai.scorer import Score as Verdict
from inspect_ai.scorer import accuracy, mean, scorer, stderr
from inspect_ai.util import SandboxEnvironmentSpec, sandbox, store

import firsthand.bridges.inspect.sandbox_registry  # noqa: F401
from firsthand.benchmarks.inspect import inspect
from firsthand.bridges.inspect.sample_sandboxes import (
    _as_tool_errors,
    _default_provider,
    _entered,
    _layered,
    _provided,
    _tools,
    sandbox_specs,
)
from firsthand.bridges.inspect.sample_scores import (
    STATE,
    InspectScorers,
    _ChosenMetric,
    _conversation,
    _grader_api,
    _names,
    _reducers,
    _sample_scores,
    _scores,
    _with,
    enter_grader,
    restored,
    saved,
)
from firsthand.bridges.inspect.sandbox_requirements import LenientConfig
from firsthand.bridges.inspect.task_samples import load, protocol_text, task_of
from test_inspect_sample_tools import TOLD


def attempt(task: str, answer: str | None = None, epoch: int = 0, **more: Any) -> Trace:
    return Trace("id", "lm", task, {"name": "a", "model": "m"}, epoch, 0, "", 1.0, answer=answer, **more)


def judge(name: str, verdict: Any, *metrics: Any) -> Any:
    """A scorer that gives the verdict of a function of state and target."""

    @scorer(metrics=list(metrics), name=name)
    def made() -> Any:
        async def score(state: Any, target: Any) -> Any:
            return verdict(state, target)

        return score

    return made()


def theirs(*scorers: Any, **more: Any) -> Any:
    return SimpleNamespace(**{"scorer": scorers, "epochs_reducer": None, "metrics": None, "name": "theirs", **more})


ONE = Sample(input="Q1", target=["A", "B"], id="t1", choices=["x", "y", "z"], metadata={"k": 1})
TWO = Sample(input=[ChatMessageSystem(content="S"), ChatMessageUser(content="Q2")], target="B", id=2)
SAMPLES = {"t1": ONE, "2": TWO}


def test_a_state_begins_as_the_sample_and_is_saved_and_made_again_whole() -> None:
    state = restored(None, ONE, "m", 3)
    assert (state.sample_id, state.epoch, state.input, state.target.text, state.metadata) == (
        "t1",
        3,
        "Q1",
        "AB",
        {"k": 1},
    )
    assert [message.text for message in state.messages] == ["Q1"] and str(state.model) == "firsthand/m"
    assert state.metadata is not ONE.metadata and [each.value for each in state.choices] == ["x", "y", "z"]
    other = restored(None, TWO, "m")
    assert (other.epoch, [each.role for each in other.messages], len(other.choices)) == (1, ["system", "user"], 0)
    state.messages.append(ChatMessageAssistant(content="é"))
    state.output.completion, state.completed = "done", True
    state.metadata["k"], state.metadata["more"] = 2, Path("p")
    state.store.set("seen", [1, 2])
    state.choices.mark_choice(2, True)
    assert ONE.choices == ["x", "y", "z"] and [each.correct for each in restored(None, ONE, "m").choices] == [None] * 3
    kept = saved(state)
    assert kept["choices"] == [["x", None, 0], ["y", None, 1], ["z", True, 2]] and kept["completed"] is True
    assert (kept["store"], kept["metadata"]) == ({"seen": [1, 2]}, {"k": 2, "more": "p"})
    assert [(each["role"], each["content"]) for each in kept["messages"]] == [("user", "Q1"), ("assistant", "é")]
    again = _with(restored(None, ONE, "m"), kept)
    assert saved(again) == kept and again.store.get("seen") == [1, 2] and again.output.completion == "done"
    assert again.metadata == {"k": 2, "more": "p"}, "as the solver left it"
    shuffled = restored(None, ONE, "m")
    while [each.original_position for each in shuffled.choices] != [1, 2, 0]:
        shuffled.choices.shuffle(Random(3))
    shuffled.choices.mark_choice(1, True)
    shuffled.choices.mark_choice(0, False)
    left = _with(restored(None, ONE, "m"), saved(shuffled))
    assert [(each.value, each.correct, each.original_position) for each in left.choices] == [
        ("y", False, 1), ("z", True, 2), ("x", None, 0),
    ]  # fmt: skip
    assert (left.completed, left.messages[0].text, left.output.choices) == (False, "Q1", [])
    assert _with(restored(None, ONE, "m"), {**kept, "metadata": {}}).metadata == {}, "it took the sample's own away"


def test_scorers_get_the_recorded_state_or_one_of_conversation_answer_and_marked_choice() -> None:
    scorers = InspectScorers(theirs(), SAMPLES, "", {})
    task = Task("t1", "Q1", choices=("x", "y", "z"))
    nodes = (Node(None, system("S")), Node(0, user("asked")), Node(1, assistant("B")), Node(1, assistant("C")))
    trace = attempt("t1", "B", 4, nodes=nodes)
    state = scorers._state(task, ONE, trace)
    assert [message.text for message in state.messages] == ["S", "asked", "C"] and state.epoch == 5
    assert [message.text for message in _conversation(trace)] == ["S", "asked", "C"] and _conversation(
        attempt("t1")
    ) == ()
    assert (state.output.completion, state.output.model) == ("B", "m")
    assert [each.correct for each in state.choices] == [False, True, False]
    bare = scorers._state(Task("2", "Q2"), TWO, attempt("2"))
    assert [message.text for message in bare.messages] == ["S", "Q2"] and bare.output.completion == ""
    unmarked = scorers._state(Task("t1", "Q1"), ONE, attempt("t1", "B"))
    assert [each.correct for each in unmarked.choices] == [None] * 3
    older, newer = (saved(restored(None, ONE, "m")) | {"completed": each} for each in (False, True))
    events = (Event(STATE, 0.0, older), Event(STATE, 1.0, newer), Event("note", 2.0, {}))
    kept = scorers._state(task, ONE, attempt("t1", "B", events=events))
    assert saved(kept) == newer and [each.correct for each in kept.choices] == [None] * 3


def test_a_verdict_is_a_score_of_its_number_or_one_for_each_of_its_parts() -> None:
    def found(value: Any, **more: Any) -> list[Any]:
        return [(each.name, each.value, bool(each.detail)) for each in _scores("s", Verdict(value=value, **more))]

    assert [found(value) for value in ("C", "I", "P", 2.5, True, [0.25, 1], [])] == [
        [("s", number, True)] for number in (1.0, 0.0, 0.5, 2.5, 1.0, 0.25, 0.0)
    ]
    parts = found({"a": "C", "b": None, "c": 0.75, "d": 0, "e": False})
    assert parts == [("s/a", 1.0, True), ("s/c", 0.75, False), ("s/d", 0.0, False), ("s/e", 0.0, False)]
    assert found({"b": None, "z": 0}) == [("s/z", 0.0, True)] and found({}) == []
    [only] = _scores("s", Verdict(value="C", answer="é", explanation="why"))
    assert only.detail["scorer"] == "s" and only.detail["inspect"]["answer"] == "é"
    assert _names([judge("one", None), judge("one", None), judge("two", None)]) == ["one", "one1", "two"]
    trace = attempt("t1", scores=(only, Score("s/x", 1.0), Score("u", 1.0, {"scorer": "u", "inspect": {"value": 1}}),
                                  Score("v", 1.0, {"scorer": "v", "inspect": "text"})))  # fmt: skip
    [(name, kept)] = _sample_scores(trace, ONE, ["s", "v"]).items()
    assert (name, kept.score.value, kept.score.answer, kept.sample_id, kept.scorer) == ("s", "C", "é", "t1", "s")
    assert kept.sample_metadata == {"k": 1}


def test_each_scorer_judges_state_and_target_and_one_that_fails_is_a_failed_score() -> None:
    def broken(state: Any, target: Any) -> Any:
        raise KeyError(state.sample_id)

    seen: list[Any] = []

    def told(state: Any, target: Any) -> Any:
        seen.append((state.sample_id, target.text, state.store.get("a"), store().get("a")))
        return Verdict(value=state.output.completion == "B")

    made = [judge("broken", broken), judge("none", lambda state, target: None), judge("told", told)]
    scorers = InspectScorers(theirs(*made), SAMPLES, "", {})
    assert (scorers.names, scorers.scorers, scorers.places, scorers.grader) == (
        ["broken", "none", "told"],
        made,
        {},
        "",
    )
    failed, right = asyncio.run(scorers.score(Task("t1", "Q1"), attempt("t1", "B")))
    assert failed == Score("broken", 0.0, failure="KeyError: 't1'") and (right.name, right.value) == ("told", 1.0)
    assert asyncio.run(scorers.score(Task("2", "Q2"), attempt("2", "x")))[1].value == 0.0
    left = restored(None, ONE, "m")
    left.store.set("a", [7])
    asyncio.run(scorers.score(Task("t1", "Q1"), attempt("t1", events=(Event(STATE, 0.0, saved(left)),))))
    assert seen == [("t1", "AB", None, None), (2, "B", None, None), ("t1", "AB", [7], [7])]
    assert InspectScorers(theirs(), SAMPLES, "g", {"a": 1}).scorers == []


def test_metrics_are_figures_over_the_answered_samples_in_the_order_of_the_dataset() -> None:
    made = judge("said", None, accuracy(), stderr())
    scorers = InspectScorers(theirs(made), SAMPLES, "", {})

    def scored(id: str, value: Any, **more: Any) -> Trace:
        return attempt(id, scores=tuple(_scores("said", Verdict(value=value))), **more)

    traces = [scored("2", "I"), scored("t1", "C"), scored("t1", "I", error=Failure("E", "x")), scored("other", "C")]
    right, error = scorers.figures(traces)
    assert (right.name, right.tasks, right.uncertainty, right.slow) == ("said accuracy", ("t1", "2"), False, True)
    assert (error.name, error.uncertainty) == ("said stderr", True)

    def value(figure: Any, *counts: int) -> float:
        return float(figure.of(np.array([counts]))[0])

    assert [value(right, *counts) for counts in ((1, 1), (3, 1), (0, 2))] == [0.5, 0.75, 0.0]
    epochs = [
        scored("2", "I"),
        *(scored("t1", each, epoch=n) for n, each in enumerate("ICC")),
        scored("2", "I", epoch=1),
    ]
    thirds = scorers.figures(epochs)[0]
    assert [value(thirds, *counts) for counts in ((1, 1), (2, 1), (1, 0))] == pytest.approx([1 / 3, 4 / 9, 2 / 3])
    assert value(error, 1, 1) == 0.5 and scorers.figures([attempt("t1")]) == [] == scorers.figures([])
    both = [[{"said": each} for each in _sample_scores(trace, ONE, ["said"]).values()] for trace in traces[:2]]
    assert scorers._results(both) == {"said accuracy": 0.5, "said stderr": 0.5}
    assert scorers._results([both[1], both[1], both[0]])["said accuracy"] == pytest.approx(2 / 3)
    reduced = InspectScorers(
        theirs(judge("said", None, mean()), epochs_reducer=_reducers_of("mean", "max")), SAMPLES, "", {}
    )
    epochs = [[both[0][0], both[1][0]]]
    assert reduced._results(epochs) == {"said[mean] mean": 0.5, "said[max] mean": 1.0}
    one = InspectScorers(theirs(judge("said", None, mean()), epochs_reducer=_reducers_of("max")), SAMPLES, "", {})
    assert one._results(epochs) == {"said mean": 1.0}, "a reducer is named beside others alone"
    chosen = _ChosenMetric(lambda rows: {"a": len(rows)}, "a")
    assert chosen([0, 0, 1]) == 3.0 and math.isnan(_ChosenMetric(lambda rows: {}, "a")([0]))
    results = SimpleNamespace(scores=[SimpleNamespace(reducer=each) for each in ("mean", "max", "mean")])
    assert _reducers(results) == 2


def _reducers_of(*names: str) -> Any:
    from inspect_ai.scorer._reducer import create_reducers

    return create_reducers(list(names))


def test_a_scorer_that_calls_a_model_gets_the_grader_or_is_told_to_name_one(tmp_path: Path) -> None:
    script = tmp_path / "replies.json"
    script.write_text('["judged", "judged"]')

    async def asked(grader: str) -> Any:
        enter_grader(grader)
        assert list(model_roles()) == ["grader"]
        return [(await get_model(role=role).generate("hi")).completion for role in (None, "grader")]

    assert asyncio.run(asked("scripted:echo")) == ["hi", "hi"]
    assert asyncio.run(asked(f"scripted:{script}")) == ["judged", "judged"]
    named = "this scorer calls a judge model, and none was named: add :grader=MODEL to the benchmark"
    with pytest.raises(ConfigError) as missing:
        asyncio.run(_grader_api("").generate([], [], "auto", GenerateConfig()))
    assert str(missing.value) == named and _grader_api("scripted:echo").model_name == "scripted:echo"


def test_the_named_grader_judges_and_stands_in_the_tasks() -> None:
    path = f"{Path(__file__).parent / 'inspect_tasks.py'}@patterned"
    made = inspect(task=path, args="shots=3", grader="scripted:echo")
    assert made.scorers[0].__self__.grader == "scripted:echo" and made.environment is None  # type: ignore[attr-defined]
    assert made.tasks(0)[0].metadata["inspect"] == {"task": path, "args": "shots=3", "grader": "scripted:echo"}


def test_a_sample_is_a_task_whose_last_message_is_the_prompt() -> None:
    facts = {"task": "f.py", "args": "a=1", "grader": "g"}
    clusters = [
        task_of(Sample(input="Q", metadata={"k": value}), "f.py", "", "", None, "k").metadata.get("cluster")
        for value in (0, "", False, "é", None)
    ]
    assert clusters == ["0", "", "False", "é", None]
    assert task_of(ONE, "f.py", "a=1", "g", {"top_k": 3}, "k") == Task(
        "t1", "Q1", ("x", "y", "z"), hint="a letter", sampling={"top_k": 3}, metadata={"cluster": "1", "inspect": facts},
        secret={"target": ["A", "B"], "metadata": {"k": 1}},
    )  # fmt: skip
    assert task_of(TWO, "f.py", "a=1", "g", None, "k") == Task(
        "2", "Q2", conversation=(system("S"),), verbatim=True, metadata={"inspect": facts},
        secret={"target": "B", "metadata": {}},
    )  # fmt: skip
    for messages in ([], [ChatMessageUser(content="Q"), ChatMessageAssistant(content="A")]):
        with pytest.raises(
            DataError, match=r"^the sample 9 does not end with a user message: there is nothing to answer$"
        ):
            task_of(Sample(input=messages, id=9), "f.py", "", "")
    said = protocol_text(theirs(epochs=1, epochs_reducer=None), "f.py", "", "", [])
    assert said.startswith("Inspect ") and said.endswith(", f.py")
    whole = protocol_text(theirs(epochs=4, epochs_reducer=[max]), "f.py", "a=1", "g", ["docker", "k8s"])
    assert whole.removeprefix(said) == (
        "; with a=1; graded by g; in the sandbox docker and k8s; it asks for --epochs 4, reduced by max"
    )


TASKS = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample

@task
def counted(n=2, name="x"):
    return Task([Sample(input=f"{name}{i}", id=("a", None, 0)[i]) for i in range(n)], name=name)

@task
def equal():
    return Task([Sample(input="a", id=1), Sample(input="b"), Sample(input="c", id="1")])

@task
def ends():
    raise SystemExit(3)
"""


def test_a_file_of_tasks_is_loaded_with_its_arguments_and_what_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "some_tasks.py"
    file.write_text(TASKS)
    task, samples = load(f"{file}@counted", "n=3,name=é", "")
    assert task.name == "é" and [(each.id, each.input) for each in samples] == [("a", "é0"), (2, "é1"), (0, "é2")]
    assert load(f"{file}@counted", "n=3,name=é", "")[0] is task
    (tmp_path / "folder.py").mkdir()
    wrong: list[tuple[str, str, type[Exception], str]] = [
        (f"{tmp_path}/folder.py@x", "", ConfigError, f"no file '{tmp_path}/folder.py': give the path of the Python file "
         "that defines the Inspect task"),
        (f"{file}@equal", "", DataError, f"'{file}@equal' has two samples with the id '1': ids must differ"),
        (f"{file}@ends", "", DataError, f"Inspect could not load the task '{file}@ends' (SystemExit: 3)"),
        (str(file), "", DataError, f"Inspect could not load the task '{file}' (SystemExit: 3)"),
        (f"{tmp_path}/no.py@x", "", ConfigError, f"no file '{tmp_path}/no.py': give the path of the Python file that "
         "defines the Inspect task"),
    ]  # fmt: skip
    for name, args, kind, said in wrong:
        with pytest.raises(kind) as raised:
            load(name, args, "")
        assert str(raised.value) == said
    other = tmp_path / "two_tasks.py"
    other.write_text(TASKS.partition("@task\ndef ends")[0])
    with pytest.raises(ConfigError) as two:
        load(str(other), "", "")
    assert str(two.value) == f"'{other}' gives 2 tasks (x, equal): name one, as in inspect:task=FILE.py@NAME"


def test_a_sample_gets_the_provider_that_is_here_and_its_configuration_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "compose.yaml").write_text("services: {default: {image: python}}")
    (tmp_path / "large.yaml").write_text("services: {default: {image: postgres}}")

    def provided(kind: str, config: Any, wanted: str = "") -> Any:
        found = _provided(SandboxEnvironmentSpec(kind, config), str(tmp_path), wanted, "the sample 's'")
        return found.type, found.config

    whole = str(tmp_path / "compose.yaml")
    assert provided("local", "compose.yaml") == provided("local", whole) == ("firsthand", whole)
    assert provided("local", None) == ("firsthand", None) and provided("docker", "compose.yaml", "local") == (
        "local",
        whole,
    )
    assert provided("recorded_box", "none.yaml") == ("recorded_box", "none.yaml")
    large = str(tmp_path / "large.yaml")
    assert provided("docker", "large.yaml", "firsthand") == ("firsthand", LenientConfig(large))
    assert provided("docker", None, "firsthand") == ("firsthand", None)
    with pytest.raises(
        ConfigError, match=r"^the sample 's' cannot run here: .*large\.yaml needs what the sandbox does not"
    ):
        provided("local", "large.yaml")
    with pytest.raises(ConfigError) as unknown:
        provided("mainframe", None)
    assert str(unknown.value) == (
        "the sample 's' needs the sandbox 'mainframe', but Inspect knows no such provider: install it"
    )
    assert [_default_provider(kind) for kind in ("local", "k8s", "firsthand")] == ["firsthand", "k8s", "firsthand"]
    monkeypatch.chdir(tmp_path)
    assert _provided(SandboxEnvironmentSpec("local", "compose.yaml"), ".", "", "s").config == whole, "wherever it runs"
    box, here = (SandboxEnvironmentSpec("recorded_box", config) for config in ("x", str(tmp_path / "x")))
    samples = [SimpleNamespace(id=3, sandbox=None), SimpleNamespace(id="b", sandbox=SandboxEnvironmentSpec("local"))]
    assert sandbox_specs(SimpleNamespace(sandbox=box), samples, "t", "") == {"3": here, "b": here}, "the task's"
    assert sandbox_specs(SimpleNamespace(sandbox=box), samples[:1], "t", "") == {"3": here}
    assert sandbox_specs(SimpleNamespace(sandbox=None), samples, "t", "recorded_box") == {
        "b": SandboxEnvironmentSpec("recorded_box")
    }
    assert sandbox_specs(SimpleNamespace(sandbox=None), samples[:1], "t", "recorded_box") == {}
    docker = SandboxEnvironmentSpec("docker", "a")
    assert _layered(docker, SimpleNamespace(sandbox=SandboxEnvironmentSpec("docker", "b"))).config == "b"
    assert _layered(docker, SimpleNamespace(sandbox=SandboxEnvironmentSpec("local", "b"))) is docker
    assert _layered(None, SimpleNamespace(sandbox=None)) is None


def test_a_samples_sandboxes_are_entered_by_name_and_left_with_their_task() -> None:
    sample = Sample(input="Q", id="s", files={"a.txt": "hi", "db:b.txt": "é"}, sandbox=("recorded_box", "broken"))
    spec = SandboxEnvironmentSpec("recorded_box", "config")

    async def whole() -> Any:
        async with _entered(SimpleNamespace(name="the task"), sample, spec) as environments:
            assert [each[0] for each in TOLD if each[0].endswith(("begins", "ends"))] == ["task begins"]
            shell, python, read_file, write_file = _tools()
            said = [await shell.function(command="ls"), await python.function(code="exit 3")]
            said += [await read_file.function(path="a.txt"), await write_file.function(path="n", text="né")]
            with pytest.raises(ToolError, match=r"^No such file: b\.txt$"):
                await read_file.function(path="b.txt")
            return list(environments), said, await sandbox("db").read_file("b.txt"), await sandbox().read_file("n")

    TOLD.clear()
    names, said, other, written = asyncio.run(whole())
    assert (names, other, written) == (["default", "db"], "é", "né")
    assert said == ["out of ls", "out of exit 3\nerr\n[exit status 3]", "hi", "n has been written: 2 characters"]
    assert [each for each in TOLD if each[0].startswith(("task", "sample"))] == [
        ("task begins", "the task", "config"), ("sample ends", ["db", "default"]), ("task ends", "the task", "config", True),
    ]  # fmt: skip
    assert [(tool.name, tool.effect, tool.timeout_s) for tool in _tools()] == [
        ("shell", "write", 180), ("python", "write", 180), ("read_file", "read", 180), ("write_file", "write", 180),
    ]  # fmt: skip
    with pytest.raises(ToolError, match=r"^odd$"), _as_tool_errors():
        raise OSError("odd")
