"""What `firsthand play`, `fork` and `rollback` print of small cases, refuse, and pass on."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand import catalog
from firsthand.benchmark import Benchmark
from firsthand.commands import (
    fork,
    play,
)
from firsthand.errors import ConfigError, UnknownName
from firsthand.experiment import foreign_settings, named_agents, preflight
from firsthand.message import assistant, user
from firsthand.model import Usage
from firsthand.runs import store
from firsthand.safety.undo import roll_back
from firsthand.safety.undo.roll_back import RollbackStep, UndoPoint
from firsthand.system.terminal import printable
from firsthand.task import Task
from firsthand.trace import Call, Failure, Node, Score, Trace
from firsthand.worlds import players

Cli = Callable[..., tuple[int, str, str]]


def attempt(value: float | None = 1.0, **more: Any) -> Trace:
    scores = () if value is None else (Score("reward", value, more.pop("detail", {})),)
    made: dict[str, Any] = {"answer": "42", "scores": scores, **more}
    return Trace("id", "lm", "t", {"name": "ada"}, 0, 0, "", 1.0, **made)


# -- play --


def test_the_attempts_of_a_player_are_counted_with_intervals_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    traces = [
        attempt(1.0, final_state={"rounds": 3}), attempt(0.999, detail={"reason": "wrong end"}, final_state={"rounds": 8}),
        attempt(0.0, detail={"reason": "too long"}), attempt(0.0, detail={"reason": "wrong end"}),
        attempt(None, error=Failure("ModelError", "gone\x1b")), attempt(None, error=Failure("ModelError", "late")),
    ]  # fmt: skip
    benchmark = Benchmark("doors", lambda seed: [], (), options={"split": "dev"}, protocol="as told")
    played = play._PlayedWorld("random", traces)
    assert played.values == [1, 0.999, 0, 0, 0, 0] and played.won == 1 and played.rounds == [3, 8, 0, 0, 0, 0]
    body = played.to_json(benchmark, 7, 0.9)
    low, high, won_low, won_high = (body.pop(name) for name in ("low", "high", "won_low", "won_high"))
    assert low < 1.999 / 6 < high and won_low < 1 / 6 < won_high
    assert body.pop("score") == pytest.approx(1.999 / 6) and body == {
        "world": "doors", "options": {"split": "dev"}, "player": "random", "seed": 7, "tasks": 6,
        "interval": body["interval"], "won": 1, "rounds": 11, "longest": 8, "reasons": {"wrong end": 2, "too long": 1},
        "errors": ["gone\x1b", "late"], "protocol": "as told",
    }  # fmt: skip
    played.print(benchmark, 7, 0.9)
    assert capsys.readouterr().out.splitlines() == [
        "doors, random player, 6 tasks, seed 7",
        f"reward 0.333, 90% interval {low:.3f} to {high:.3f} ({body['interval']})",
        f"1 of 6 tasks won, 90% interval {won_low:.1%} to {won_high:.1%}",
        "1.8 rounds for each task, 8 at most",
        "  wrong end: 2", "  too long: 1", f"  error: {printable('gone' + chr(27))}", "  error: late",
    ]  # fmt: skip
    named = replace(benchmark, name="doors[red]")
    scored = attempt(0.5, detail={"reason": "no [key] \x1b"})
    play._PlayedWorld("idle", [replace(scored, scores=(replace(scored.scores[0], name="won[i]"),))]).print(
        named, 7, 0.9
    )
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "doors[red], idle player, 1 task, seed 7" and told[1].startswith("won[i] 0.500, 90% interval ")
    assert told[-1] == "  no [key] \\x1b: 1"
    idle = play._PlayedWorld("idle", traces[4:5])
    idle.print(benchmark, 0, 0.95)
    body = idle.to_json(benchmark, 0, 0.95)
    assert capsys.readouterr().out.splitlines()[:2] == [
        "doors, idle player, 1 task, seed 0",
        f"score 0.000, 95% interval {body['low']:.3f} to {body['high']:.3f} ({body['interval']})",
    ]


def test_tasks_are_the_named_one_or_the_first_ones() -> None:
    benchmark = Benchmark("doors", lambda seed: [Task(f"s{seed}-{n}", "q") for n in range(5)], ())

    def chosen(**options: Any) -> list[str]:
        return [task.id for task in play._chosen(benchmark, play.Config("doors", **options))]

    every = [f"s0-{n}" for n in range(5)]
    assert chosen() == every[:1] and chosen(limit=2) == every[:2] and chosen(player=("idle",)) == every
    assert chosen(player=("idle", "random"), limit=3) == every[:3]
    assert chosen(task="s4-3", seed=4, limit=1) == ["s4-3"]
    with pytest.raises(UnknownName, match="doors has no task 's0-9'; did you mean 's0-"):
        chosen(task="s0-9")
    with pytest.raises(UnknownName, match="doors has no task 'kitchen'; the first one is 's0-0'"):
        chosen(task="kitchen")


def test_a_world_is_checked_before_anyone_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Any] = []

    def check(agents: Any, benchmarks: Any) -> None:
        checked.append((agents, [(made.name, [task.id for task in tasks]) for made, tasks in benchmarks]))
        raise ConfigError("no sandbox")

    monkeypatch.setattr(preflight, "check_ready", check)
    with pytest.raises(ConfigError, match=r"^no sandbox$"):
        play.main(play.Config("agentbench_dcg", ("idle",), limit=2, seed=3))
    [(agents, [(name, ids)])] = checked
    assert agents == () and name == "agentbench_dcg" and len(ids) == 2
    assert ids == [task.id for task in catalog.benchmark("agentbench_dcg").tasks(3)[:2]]


def test_the_seed_is_that_of_the_tasks_and_of_their_player(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, str, Any, int]] = []

    async def played(benchmark: Benchmark, task: Task, player: Any, *, seed: int) -> Trace:
        asked.append((benchmark.name, task.id, player if isinstance(player, str) else "person", seed))
        nodes = (Node(None, user("go")), Node(0, assistant("the end of it")))
        return attempt(0.5, final_state={"rounds": 2}, detail={"reason": "lost"}, nodes=nodes)

    monkeypatch.setattr(players, "play", played)
    monkeypatch.setattr(preflight, "check_ready", lambda *given: None)
    ids = [task.id for task in catalog.benchmark("agentbench_dcg").tasks(7)[:2]]
    config = play.Config("agentbench_dcg", ("random", "idle"), limit=2, seed=7, json=True)
    assert play.main(config) == 0
    assert asked == [("agentbench_dcg", id, player, 7) for player in ("random", "idle") for id in ids]
    bodies = json.loads(capsys.readouterr().out)
    assert [(body["player"], body["seed"], body["tasks"]) for body in bodies] == [("random", 7, 2), ("idle", 7, 2)]
    assert play.main(replace(config, player=("optimal",), confidence="90%")) == 0
    assert json.loads(capsys.readouterr().out)["player"] == "optimal", "one is no list"
    asked.clear()
    assert play.main(replace(config, player=("person",), json=False)) == 0
    assert asked == [("agentbench_dcg", id, "person", 7) for id in ids]
    told = capsys.readouterr().out.splitlines()
    assert told[-2:] == ["the end of it", "reward 0.500"] and told.count("reward 0.500") == 2
    assert play.main(replace(config, player=("idle", "random"), json=False, confidence="90%")) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("agentbench_dcg, ")] == [
        f"agentbench_dcg, {player} player, 2 tasks, seed 7" for player in ("idle", "random")
    ] and told[1].startswith("reward 0.500, 90% interval ")  # fmt: skip


def test_a_person_types_a_number_or_the_words_of_an_action(monkeypatch: pytest.MonkeyPatch) -> None:
    class World:
        actions: tuple[str, ...] | None = tuple(f"go {n}" for n in range(62))

        def render(self) -> str:
            return "a room"

        def admissible(self) -> Any:
            return self.actions

    shown: list[str] = []
    ask = play._asking(SimpleNamespace(print=lambda text, **_: shown.append(text)))
    world: Any = World()

    def typed(line: str | None, *messages: Any) -> str:
        def give(prompt: str) -> str:
            assert prompt == "> "
            if line is None:
                raise EOFError
            return line

        monkeypatch.setattr("builtins.input", give)
        return ask(world, messages)

    assert typed(" 1 ") == "go 0" and shown[:3] == ["a room", "  1 go 0", "  2 go 1"] and shown[-1] == " 60 go 59"
    assert len(shown) == 61 and [typed(each) for each in ("62", "63", "0", "-1")] == ["go 61", "63", "0", "-1"]
    assert typed("a\\nb") == "a\nb" and typed("") == ""
    for line in ("quit", "EXIT", ":q", None):
        with pytest.raises(ConfigError, match="the game was left before its end"):
            typed(line)
    world.actions = None
    shown.clear()
    assert typed("1", user("task"), assistant("Observation no")) == "1"
    assert shown == ["Observation no", "a room"]
    shown.clear()
    typed("1", user("Observation"), user("more")), typed("1")
    assert shown == ["a room", "a room"]
    world.typed = lambda text: {"said": text}
    assert typed("x\\ny") == str({"said": "x\ny"})


# -- fork --


def test_a_fork_tells_its_parents_outcome_beside_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(tokens: int, name: str = "", *, replayed: bool = False) -> Call:
        detail = {"name": name} if name else {}
        return Call(
            "0",
            "tool" if name else "generate",
            None,
            0.0,
            1.0,
            "",
            Usage(tokens, 0, 0),
            detail=detail,
            replayed=replayed,
        )

    parent = attempt(0.5, answer="x" * 100, calls=(call(7),))
    child = attempt(
        None, error=Failure("ModelError", "gone\nfor good"), answer=None,
        scores=(Score("a", 1.0), Score("b", 0.25)),
        calls=(call(9, replayed=True), call(4), call(2), call(0, "mail"), call(0, "pay", replayed=True), call(0, "look")),
    )  # fmt: skip
    assert fork.outcome(parent) == f"ada: '{'x' * 79} (done), reward 0.5, 7 new tokens"
    assert fork.outcome(child) == "ada: None (ModelError: gone for good), a 1, b 0.25, 6 new tokens"
    monkeypatch.setattr(fork, "show", lambda trace: print("tree"))
    tools = [SimpleNamespace(name=name, effect=effect) for name, effect in
             [("mail", "external"), ("pay", "irreversible"), ("look", "read")]]  # fmt: skip
    what = SimpleNamespace(parent=parent, agent=SimpleNamespace(own_tools=tools), run="r 1")
    fork.print_results(SimpleNamespace(id="r2"), what, child)  # type: ignore[arg-type]
    assert capsys.readouterr().out.splitlines() == [
        "tree", "", f"parent   {fork.outcome(parent)}", f"fork     {fork.outcome(child)}",
        "note     mail were called again: the fork is an attempt of its own", "show     firsthand show r2 id",
        "compare  firsthand compare r 1 r2 --agent-a ada --agent-b ada",
    ]  # fmt: skip
    assert fork._name("/a/b/run-1/") == "run-1" and fork._word("a b") == "'a b'"
    origin = {"run": "/r", "trace": "t", "at": 3, "say": None, "seed": 5}
    run = SimpleNamespace(id="r2", config={"fork": origin})
    assert fork.origin_of(run) == fork.ForkOrigin("/r", "t", 3, None, 5) and fork._folder(run) == "/r"  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="r3 is no fork: `firsthand run --resume r3` finishes it"):
        fork.origin_of(SimpleNamespace(id="r3", config={}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "name an attempt: firsthand fork RUN TRACE --at STEP"), ("a b c --at 1", "name an attempt"),
        ("r t", "no step was given: add --at STEP; `firsthand show r t` numbers the steps"),
        ("t --at 1 --watch --json", "watch and json do not go together"),
        ("t --resume r", "resume finishes a fork as it was begun"), ("--resume r --at 0", "resume finishes a fork"),
        ("--resume r --temperature 0", "resume finishes a fork"), ("--resume r --watch --json", "watch and json"),
    ],
)  # fmt: skip
def test_words_of_fork_that_make_no_sense_are_refused(cli: Cli, line: str, said: str) -> None:
    code, out, err = cli("fork", *line.split())
    assert code == 2 and said in err and not out


# -- rollback --


def test_calls_are_taken_back_and_each_outcome_is_printed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [UndoPoint(f"c{n}", n, "write", {"path": f"f{n}"}, "", None) for n in (-1, 2, 4)]
    beyond = [
        Call(
            "c9",
            "tool",
            None,
            0.0,
            1.0,
            "",
            Usage(),
            detail={"name": "mail", "arguments": {"path": "to", "x": "y" * 90}},
        )
    ]
    trace = Trace("a/b", "lm", "t", {"name": "ada"}, 0, 0, "", 1.0)
    run = SimpleNamespace(path=tmp_path, trace=lambda which: trace, id="r")
    asked: list[Any] = []
    outcomes = [RollbackStep(points[2], "restored"), RollbackStep(points[1], "kept", "it was changed since")]
    monkeypatch.setattr(store, "open_run", lambda ref, home: asked.append(ref) or nullcontext(run))
    monkeypatch.setattr(foreign_settings, "is_own", lambda run: True)
    monkeypatch.setattr(roll_back, "points_of", lambda trace: points)
    monkeypatch.setattr(
        roll_back, "calls_without_undo", lambda trace, tools, to: asked.append((sorted(tools), to)) or beyond
    )
    monkeypatch.setattr(roll_back, "roll_back", lambda *given: asked.append((given[0], given[2].path.name)) or outcomes)
    monkeypatch.setattr(
        named_agents, "open_tools", lambda texts: asked.append(texts) or [SimpleNamespace(name="no Tool")]
    )
    line = ("rollback", "r", "t", "--tools", "files")
    last = f'no undo   step -1: mail {{"path":"to","x":"{"y" * 62}'
    code, out, _ = cli(*line)
    assert code == 3 and out.splitlines() == [
        "restored  step 4: write", "kept      step 2: write it was changed since", "1 earlier call left as it is", last,
    ]  # fmt: skip
    assert asked == ["r", ("files",), ([], None), (points, "rollback-a-b.jsonl")]
    outcomes[1:] = []
    code, out, _ = cli(*line, "--to", "2")
    assert code == 0 and out.splitlines()[1] == "1 earlier call left as it is" and asked[-1][0] == points[1:]
    assert cli(*line)[1].splitlines()[1] == "2 earlier calls left as they are"
    outcomes[:] = [RollbackStep(each, "as before") for each in points]
    assert cli(*line)[1].splitlines() == [*(f"as before step {n}: write" for n in (-1, 2, 4)), last]
    outcomes[1:] = []
    rows = json.loads(cli(*line, "--json")[1])
    assert rows == [
        {"call": "c-1", "tool": "write", "outcome": "as before", "reason": ""},
        {"call": "c9", "tool": "mail", "outcome": "no undo", "reason": ""},
    ]
    asked.clear()
    dry = ["step -1: write f-1", "step 2: write f2", "step 4: write f4", "step -1: mail to no undo"]
    assert cli(*line, "--dry-run")[:2] == (0, "\n".join(dry) + "\n") and len(asked) == 3
    shown = json.loads(cli("rollback", "t", "--tools", "files", "--dry-run", "--json", "--to", "4")[1])
    assert shown == [[4, "write", "f4", ""], [-1, "mail", "to", "no undo"]] and "last" in asked
    code, _, err = cli(*line, "--to", "5")
    assert code == 2 and "no call of a/b can be taken back from there: it needs --guard undoable" in err
    assert cli("rollback")[0] == 2 and cli("rollback", "a", "b", "c")[0] == 2
