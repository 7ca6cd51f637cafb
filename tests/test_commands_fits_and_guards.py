"""`scaling fit` and `sweep`, `safety office`, `label`, `explain` and `tests`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.commands import safety, safety_office, scaling
from firsthand.errors import ConfigError, DataError
from firsthand.message import assistant, user
from firsthand.patterns.parts import constitution
from firsthand.preference import Preference
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.safety.guard_tally import GuardTally
from firsthand.safety.rules import threat_model
from firsthand.safety.rules.threat_model import Threat
from firsthand.scorers.concerns import principle_labels
from firsthand.serve.agents import agent_file
from firsthand.task import Task
from firsthand.trace import Node, Trace
from firsthand.train.scaling import bootstrap_fit, compute_frontier, hidden_markov, scaling_sweep
from firsthand.train.scaling.bootstrap_fit import Bootstrapped
from firsthand.train.scaling.laws import Chinchilla, Kaplan
from firsthand.train.scaling.scaling_points import ScalingPoints, read_points, write_points
from firsthand.train.scaling.sweep_config import SweepConfig
from firsthand.worlds.office.office_attacks import CHANNELS
from printed_tables import widen, words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    widen(monkeypatch, scaling, safety)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


# -- scaling --


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Fits of both laws that are given, and what was asked of them."""
    asked: list[Any] = []
    chinchilla = [Chinchilla(e, 2 * e, 3 * e, 0.25, 0.75) for e in (1.0, 2.0, 3.0)]
    kaplan = [Kaplan(n, 7.0, 0.5, 1.5) for n in (10.0, 20.0, 40.0)]

    def bootstrapped(laws: list[Any], fit: tuple[float, ...]) -> Callable[..., Any]:
        def made(points: ScalingPoints, **options: Any) -> Any:
            asked.append((type(laws[0]).__name__, len(points), options))
            objective, r_squared, max_error = fit
            whole: Any = SimpleNamespace(law=laws[1], objective=objective, r_squared=r_squared, max_error=max_error)
            return Bootstrapped(whole, tuple(laws), options["confidence"])

        return made

    monkeypatch.setattr(bootstrap_fit, "bootstrap_chinchilla", bootstrapped(chinchilla, (0.000123456, 0.98765, 0.0125)))
    monkeypatch.setattr(bootstrap_fit, "bootstrap_kaplan", bootstrapped(kaplan, (0.5, 0.25, 0.125)))
    found = {"parameters_exponent": 0.4567, "tokens_exponent": 0.5433, "missing_rivals": 0.256}
    frontier = SimpleNamespace(**found, flops=(1.0, 2.0, 3.0, 4.0, 5.0))

    def refused(points: ScalingPoints) -> Any:
        raise DataError("no budget has three sizes")

    monkeypatch.setattr(compute_frontier, "envelope_frontier", lambda points: asked.append(len(points)) or frontier)
    monkeypatch.setattr(compute_frontier, "isoflop_frontier", refused)
    return asked


def test_both_laws_are_printed_with_intervals_and_the_frontiers_that_can_be_had(
    fitted: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], cli: Cli
) -> None:
    points = ScalingPoints(np.array([1e6, 2e6, 4e6]), np.array([1e8, 1e8, 1e8]), np.array([3.0, 2.5, 9.0]))
    write_points(points, path := tmp_path / "p.csv")
    line = ("scaling", "fit", str(path), "--drop", "1", "--confidence", "50%", "--resamples", "7", "--seed", "3")
    code, out, _ = cli(*line)
    # quartiles of 1, 2, 3 are 1.5 and 2.5, those of 10, 20, 40 are 15 and 30
    assert code == 0 and words(out) == [
        "Chinchilla, approach 3: L = E + A / N^alpha + B / D^beta", "estimate 50% interval",
        "E 2 1.5 to 2.5", "A 4 3 to 5", "B 6 4.5 to 7.5", "alpha 0.25 0.25 to 0.25", "beta 0.75 0.75 to 0.75",
        "a of N_opt ~ C^a 0.75 0.75 to 0.75",
        "2 points; R2 of log-losses 0.9877, largest error 1.2%, sum of Huber losses 0.0001235",
        "Kaplan: L = [(Nc / N)^(alpha_N / alpha_D) + Dc / D]^alpha_D", "estimate 50% interval",
        "Nc 20 15 to 30", "Dc 7 7 to 7", "alpha_N 0.5 0.5 to 0.5", "alpha_D 1.5 1.5 to 1.5",
        "a of N_opt ~ C^a 0.75 0.75 to 0.75",
        "2 points; R2 of log-losses 0.2500, largest error 12.5%, sum of Huber losses 0.5",
        "Approach 1 (envelope): N_opt ~ C^0.457, D_opt ~ C^0.543; at 26% of the budgets the size next to the best has no "
        "curve",
        "Approach 2 (IsoFLOP parabolas): no budget has three sizes",
    ]  # fmt: skip
    options = {"resamples": 7, "confidence": 0.5, "seed": 3}
    assert fitted == [("Chinchilla", 2, options), ("Kaplan", 2, options), 2]
    for law, other in (("chinchilla", "kaplan"), ("kaplan", "chinchilla")):
        fitted.clear()
        body = json.loads(cli("scaling", "fit", str(path), "--law", law, "--json")[1])
        assert other not in body and list(body) == ["points", law, "envelope", "isoflop"] and body["points"] == 3
        assert [each[0] for each in fitted[:-1]] == [law.capitalize()]
        assert fitted[0][2] == {"resamples": 200, "confidence": 0.95, "seed": 0}
    assert body["kaplan"]["parameters"]["nc"] == {"value": 20.0, "low": 10.5, "high": 39.0}
    assert {key: body["kaplan"][key] for key in ("objective", "r_squared", "max_error")} == {
        "objective": 0.5, "r_squared": 0.25, "max_error": 0.125}  # fmt: skip
    envelope = {"a": 0.4567, "b": 0.5433, "budgets": 5, "missing_rivals": 0.256}
    assert body["envelope"] == envelope, "those of the frontier, not its points"
    assert body["isoflop"] == {"error": "no budget has three sizes"}


def test_a_sweep_gets_its_sizes_and_tells_each_point_and_the_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    asked: list[Any] = []
    points = ScalingPoints(np.array([1e6]), np.array([2e8]), np.array([3.0]))
    rate = SimpleNamespace(nats=1.23456, standard_error=0.0123)
    source = SimpleNamespace(entropy_rate=lambda **sizes: asked.append(sizes) or rate)

    def run_sweep(source: Any, settings: Any, told: Any) -> Any:
        asked.append((source, settings.widths, settings.tokens, settings.seed))
        told(1234, 56789, 2.34567)
        return SimpleNamespace(points=points, floor=1.11116)

    monkeypatch.setattr(hidden_markov, "random_source", lambda: source)
    monkeypatch.setattr(scaling_sweep, "run_sweep", run_sweep)
    line = ("scaling", "sweep", "s.csv", "--widths", "8,16", "--lengths", "10_240,12288", "--seed", "5")
    code, out, _ = cli(*line)
    assert code == 0 and out.splitlines() == [
        "     1,234 parameters      56,789 tokens  loss 2.3457",
        "1 points in s.csv. No model can pass 1.1112 on these texts; the source's entropy rate is 1.235 (standard error "
        "0.012).",
    ]
    assert asked == [(source, (8, 16), (10240, 12288), 5), {"tokens": 100_000, "texts": 128}]
    assert read_points("s.csv").loss.tolist() == [3.0]
    Path("s.csv").unlink()
    code, out, _ = cli("scaling", "sweep", "s.csv", "--json", "--widths", "24,8")
    assert json.loads(out) == {"points": 1, "path": "s.csv", "floor": 1.11116, "entropy_rate": 1.23456}
    assert asked[2] == (source, (24, 8), SweepConfig().tokens, 0)
    Path("s.csv").unlink()
    for flag, told in (("--widths", "expected two or more sizes"), ("--lengths", "expected two or more lengths")):
        code, _, err = cli("scaling", "sweep", "s.csv", flag, "20480")
        assert code == 2 and told in err, "one is no sweep, and not the default"
    code, _, err = cli("scaling", "sweep", "no/s.csv")
    assert code == 2 and "the folder of 'no/s.csv' does not exist: make it, or name another file" in err


# -- safety --


def test_the_office_is_told_row_by_row_with_a_column_for_each_channel(
    monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    asked: list[Any] = []
    benign = GuardTally(8, 6, 0, (), 3, 2, 0.5)

    async def tallies(rules: Any, **more: Any) -> dict[str, GuardTally]:
        asked.append((rules, more))
        row = {channel: GuardTally(10, 7 - at, at, ("t",), 9, 9, 0.5) for at, channel in enumerate(CHANNELS)}
        return {"none": benign, **row}

    monkeypatch.setattr(safety_office, "office_tallies", tallies)
    code, out, _ = cli("safety", "office", "--rules", "plan_lock,untrusted_session", "--human", "--tasks", "10")
    told, count = words(out), len(CHANNELS)
    assert code == 0 and told[:2] == [
        "the office under attack, attacks that succeed by channel",
        f"guard benign asks {' '.join(CHANNELS)} utility under attack",
    ]
    solved = sum(7 - at for at in range(count))
    row = " ".join(f"{at}/10" for at in range(count))
    assert told[2:] == [f"plan_lock+untrusted_session 6/8 3 in 2 {row} {solved / (10 * count):.1%}"]
    assert asked == [(("plan_lock", "untrusted_session"), {"human": True, "tasks": 10})]
    asked.clear()
    body = json.loads(cli("safety", "office", "--json", "--tasks", "1")[1])
    assert list(body) == list(safety_office.OFFICE_ROWS) and list(body["default"]) == ["none", *CHANNELS]
    assert asked[0] == (None, {"human": False, "tasks": 1}) and asked[1][0] == ("plan_lock",) and len(asked) == 6
    assert body["none"]["none"] == {**asdict(benign), "reached_in": []}
    assert cli("safety", "office", "--tasks", "10000")[0] == 0

    async def one(rules: Any, **more: Any) -> dict[str, GuardTally]:
        row = {channel: GuardTally(at == 0, at == 0, 0, (), 0, 0, 0.0) for at, channel in enumerate(CHANNELS)}
        return {
            "none": benign,
            **(row if rules else {channel: replace(benign, tasks=0, solved=0) for channel in CHANNELS}),
        }

    monkeypatch.setattr(safety_office, "office_tallies", one)
    shares = [line.split()[-1] for line in words(cli("safety", "office")[1])[2:]]
    assert shares == ["0.0%", *["100.0%"] * 5], "no attack at all is no division by zero"
    from firsthand.bridges.agentdojo import dojo_table

    async def measured(rules: Any, attack: str, **more: Any) -> GuardTally:
        return GuardTally(len(rules), len(rules), len(rules), (), 0, 0, 0.04)

    monkeypatch.setattr(dojo_table, "measured", measured)
    monkeypatch.setattr(dojo_table, "ROWS", {"zero": (), "one": ("plan_lock",)})
    assert words(cli("safety", "table")[1])[2:] == [
        "zero 0/0 0 in 0 0.0% 0/0 = 0.0% 0.0", "one 1/1 0 in 0 100.0% 1/1 = 100.0% 0.0",
    ]  # fmt: skip


def test_a_tally_of_the_office_attacks_the_memory_alone_with_a_note_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    async def tallied(benchmark: Any, tasks: Any, agent_for: Any, wanted: Any, *, attack: str | None) -> str:
        assert attack == (None if benchmark.options["channel"] == "none" else "attack_success")
        asked.append((benchmark, list(tasks), agent_for, wanted))
        return benchmark.name

    monkeypatch.setattr(safety_office, "tallied", tallied)
    found = asyncio.run(safety_office.office_tallies(("plan_lock",), human=True, tasks=7, seed=5))
    assert list(found) == ["none", *CHANNELS]
    options = [{key: str(value) for key, value in dict(benchmark.options).items()} for benchmark, *_ in asked]
    assert [each["channel"] for each in options] == ["none", *CHANNELS]
    assert {each["tasks"] for each in options} == {"7"} and {each["plan"].lower() for each in options} == {"true"}
    assert all(wanted is safety_office._needs and tasks for _, tasks, _, wanted in asked)
    for channel, (benchmark, tasks, agent_for, _) in zip(("none", *CHANNELS), asked, strict=True):
        assert [task.id for task in tasks] == [task.id for task in benchmark.tasks(5)]
        agent = agent_for(tasks[0], "ask")
        assert (agent.name, agent.approval.ask) == ("clerk", "ask") and agent.approval.rules == {
            "irreversible": "allow"
        }
        assert [type(each).__name__ for each in agent.guards] == ["CallPolicy"]
        assert (agent.memory is not None) is (channel == "memory")
        if channel == "memory":
            other = agent_for(tasks[1], "ask").memory
            assert other is not None and other is not agent.memory
            [item] = asyncio.run(agent.memory.list())
            goal = safety_office.Goal(*tasks[0].metadata["goal"])
            assert item.text == f"{tasks[0].prompt} {goal.text}" and goal.tool in item.text
    asked.clear()
    asyncio.run(safety_office.office_tallies(None, tasks=2))
    agent = asked[0][2](asked[0][1][0], "ask")
    assert agent.guards == () and asked[0][3] is None
    assert [task.id for task in asked[0][1]] == [task.id for task in asked[0][0].tasks(0)]


def test_a_perfect_human_agrees_to_the_steps_of_the_task_alone() -> None:
    from firsthand.catalog import benchmark
    from firsthand.worlds.office.office_attacks import office_of

    [task] = benchmark("office_attacked:channel=none:tasks=1").tasks(0)
    name, given = office_of(task).steps[0]

    def tool(name: str) -> Any:
        return SimpleNamespace(name=name, validate=lambda arguments: dict(arguments))

    assert safety_office._needs(task, tool(name), dict(given)) is True
    assert safety_office._needs(task, tool(name), {**given, "more": 1}) is False
    assert safety_office._needs(task, tool("another"), dict(given)) is False


def test_pairs_of_a_run_are_labelled_once_and_counted_by_principle(
    home: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    Path("s.json").write_text('{"": "A"}')
    with store.create(home, {}, "r") as run:
        run.add_tasks("b", [Task(f"t{n}", f"question {n}?") for n in range(5)])
        for n in range(5):
            for letter in "xy":
                nodes = (Node(None, user("q")), Node(0, assistant(letter)))
                run.append(Trace(f"{letter}{n}", "b", f"t{n}", {"name": letter}, 0, 0, "", 1.0, nodes, answer=letter))
        maker = principle_labels.label_maker(Scripted([], name="scripted:s.json"))
        run.add_preference(Preference("t0", "x0", "y0", "a", maker, detail={"principle": "old"}))
        run.add_preference(Preference("t1", "x1", "y1", "a", "human:ada"))
        name = run.id
    asked: list[Any] = []
    verdicts = {"t1": ("b", "honest.facts"), "t2": ("tie", "harm.people"), "t3": ("a", "harm.people")}
    verdicts["t4"] = ("tie", "care.slow")

    async def label_pair(model: Any, question: str, a: Trace, b: Trace, principles: Any) -> Preference:
        asked.append((model.name, question, a.id, b.id, [each.id for each in principles]))
        winner, principle = verdicts[a.task_id]
        return Preference(a.task_id, a.id, b.id, winner, maker, detail={"principle": principle})  # type: ignore[arg-type]

    monkeypatch.setattr(principle_labels, "label_pair", label_pair)
    code, out, _ = cli("safety", "label", name, "--model", "scripted:s.json", "--principles", "harm")
    assert code == 0 and words(out) == [
        "4 pairs labelled by constitution:scripted:s.json", "principle preferred one", "care.slow 0", "harm.people 1",
        "honest.facts 1",
    ]  # fmt: skip
    chosen = [each.id for each in constitution.select_principles(constitution.load_constitution(""), "harm")]
    assert asked == [("scripted:s.json", f"question {n}?", f"x{n}", f"y{n}", chosen) for n in (1, 2, 3, 4)]
    with store.open_run(name, home) as run:
        assert len([each for each in run.preferences() if each.by == maker]) == 5
    code, out, _ = cli("safety", "label", name, "--model", "scripted:s.json", "--json")
    assert (code, out) == (0, "{}\n") and len(asked) == 4, "all pairs have their label"
    Path("own.toml").write_text('[[principle]]\nid = "x.y"\nrule = "Be short."\ncritique = "Is it short?"\n')
    line = ("safety", "label", name, "--model", "scripted:s.json", "--constitution", "own.toml")
    code, _, err = cli(*line, "--principles", "harm")
    assert code == 2 and "no principle has the id 'harm'; there are x.y" in err, err


def test_threats_are_listed_by_standing_with_the_tools_that_are_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cli: Cli
) -> None:
    threats = [
        Threat("a leak", "stopped by construction", "a lock"),
        Threat("a slip", "not stopped", "nobody looks", ("mail", "pay")),
        Threat("a lie", "stopped by construction", "a plan", ("say",)),
    ]  # fmt: skip
    agent = SimpleNamespace(tools=(), own_tools=())
    monkeypatch.setattr(agent_file, "read_agent_file", lambda path: ("read", path))
    monkeypatch.setattr(agent_file, "open_agent", lambda text: agent if text == ("read", Path("a.toml")) else None)
    monkeypatch.setattr(threat_model, "threat_model", lambda given: threats if given is agent else [])
    code, out, _ = cli("safety", "explain", "a.toml")
    told = [
        "stopped by construction:", "  - a leak", "      a lock", "  - a lie", "      a plan (not covered: say)",
        "not stopped:", "  - a slip", "      nobody looks (not covered: mail, pay)",
    ]  # fmt: skip
    assert code == 0 and out.splitlines() == told
    agent.tools = ("server",)
    last = "Tools of MCP servers are known when a server is opened, and are not counted here."
    assert cli("safety", "a.toml")[0] == 2 and cli("safety", "explain", "a.toml")[1].splitlines() == [*told, last]
    body = json.loads(cli("safety", "explain", "a.toml", "--json")[1])
    assert body[1] == {
        "attack": "a slip",
        "standing": "not stopped",
        "because": "nobody looks",
        "open_tools": ["mail", "pay"],
    }
    from firsthand.safety import declared_tests

    monkeypatch.setattr(declared_tests, "generated_tests", lambda given, path: f"{given is agent} {path}")
    assert cli("safety", "tests", "a.toml") == (0, "True a.toml", "")
    for action in ("table", "office"):
        with pytest.raises(ConfigError, match=f"safety {action} takes no agent: the gullible agent is the one"):
            safety.main(safety.Config(action, Path("a.toml")))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^name the agent's file: firsthand safety tests AGENT\.toml$"):
        safety.main(safety.Config("tests"))
    with pytest.raises(ConfigError, match=r"^name the run: firsthand safety label last$"):
        safety.main(safety.Config("label"))
