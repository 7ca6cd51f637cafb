"""What `sweep`, `track` and `gate` print of small runs, and the words they refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import gate, sweep, track
from firsthand.errors import ConfigError, UnknownName
from firsthand.runs.flaky import Flaky
from firsthand.runs.store import open_run
from firsthand.runs.track import Track, start
from firsthand.stats.non_inferiority import Check, Gaps
from firsthand.stats.paired import Differences
from firsthand.train.sweep import Sweep, Trial, save_spec
from printed_tables import widen, words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tables have all their columns side by side, and runs a home of their own."""
    widen(monkeypatch)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


# -- sweeps --


def trial(
    number: int, value: float = math.nan, state: str = "done", why: str = "", rung: str = "", **settings: str
) -> Trial:
    return Trial(number, rung, settings, Path(f"t{number}"), value, state, why, ("train", f"--lr {number}"))


def test_the_best_of_a_halved_sweep_is_the_best_of_all_that_had_a_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = [trial(0, 0.5, rung="1"), trial(1, 0.25, rung="1"), trial(2, 0.75, rung="1"), trial(3, rung="1")]
    trials = [*first, trial(1, 0.125, rung="3")]
    save_spec(Sweep(("train",), ({"lr": "1"},), "loss", True, "steps", ("1", "3")), tmp_path)
    assert sweep.report(tmp_path, trials, sweep.Config(show=tmp_path)) == 0
    assert "the best of 3, so" in capsys.readouterr().out
    assert sweep.report(tmp_path, trials, sweep.Config(show=tmp_path, json=True)) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["best"], body["best_of"]) == (1, 3)


def test_a_sweep_is_reported_rung_by_rung_with_the_best_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [
        trial(0, 0.5, rung="100", lr="1"),
        trial(1, 0.25, rung="100", lr="2", k="x"),
        trial(2, rung="100", state="failed", why="exit 1"),
        trial(1, 0.75, rung="300", lr="2"),
        trial(0, 0.125, rung="300", lr="1"),
    ]
    for minimise, order in ((True, ["1", "0", "2"]), (False, ["0", "1", "2"])):
        folder = tmp_path / str(minimise)
        save_spec(Sweep(("train",), ({"lr": "1"},), "loss", minimise, "steps", ("100", "300")), folder)
        assert sweep.report(folder, trials, sweep.Config(show=folder)) == 0
        out = words(capsys.readouterr().out)
        assert out[:2] == ["steps 100", "trial lr k loss state"] and [line.split()[0] for line in out[2:5]] == order
        assert out[4] == "2 exit 1" and out[5:7] == ["steps 300", "trial lr loss state"]
        assert out[7:9] == (["0 1 0.125 done", "1 2 0.75 done"] if minimise else ["1 2 0.75 done", "0 1 0.125 done"])
        assert out[9] == f"best train '--lr {0 if minimise else 1}'"
        assert (
            out[10]
            == "Its value is the best of 2, so it is optimistic: run it again with other seeds before you quote it."
        )
        assert sweep.report(folder, trials, sweep.Config(show=folder, json=True)) == 0
        body = json.loads(capsys.readouterr().out)
        assert (
            body["best"] == (0 if minimise else 1)
            and body["trials"][2]["value"] is None
            and body["trials"][0]["folder"] == "t0"
        )
    save_spec(Sweep(("train",), ({"lr": "1"},), "loss"), tmp_path / "none")
    assert sweep.report(tmp_path / "none", [trial(0, lr="1")], sweep.Config(show=tmp_path)) == 1
    assert words(capsys.readouterr().out)[-1] == "No trial has a value."
    assert sweep.report(tmp_path / "none", [trial(0, 1.0, lr="1")], sweep.Config(show=tmp_path)) == 0
    assert "optimistic" not in capsys.readouterr().out
    endless = [trial(0), trial(1, -math.inf), trial(2, math.inf), trial(3, 1.0)]
    for minimise, order in ((True, "1320"), (False, "2310")):
        folder = tmp_path / f"endless {minimise}"
        save_spec(Sweep(("train",), ({},), "loss", minimise), folder)
        assert sweep.report(folder, endless, sweep.Config(show=folder)) == 0
        out = words(capsys.readouterr().out)
        assert "".join(line[0] for line in out[1:5] if line[0].isdigit()) == order, "one without a value comes last"
    for told in (
        trial(3, 0.123456, lr="1", k="2"),
        trial(4, state="failed", why="exit 2", lr="1"),
        trial(5, state="running", lr="1"),
        trial(6, state="diverged", why="loss is nan", lr="1"),
        trial(7, 0.5, why="loss is nan", lr="1"),
    ):
        sweep.tell(told)
    assert (
        capsys.readouterr().out
        == "done         3  lr=1 k=2  0.1235\nfailed       4  lr=1  exit 2\nrunning      5  lr=1\n"
        "diverged     6  lr=1  loss is nan\ndone         7  lr=1  0.5  loss is nan\n"
    )


def test_a_metric_of_which_higher_is_better_needs_a_flag_that_says_which_is_best() -> None:
    def minimised(metric: str, **flags: bool) -> bool:
        return sweep.new_sweep(sweep.Config("c", ("lr=1",), metric=metric, **flags), "python t.py").minimise

    for metric in ("accuracy", "val_acc", "accuracy/val", "recall@10", "pass@1", "mean_reward", "neg_loss", "win_rate"):
        with pytest.raises(ConfigError, match=r"higher is better: add --maximise, or --minimise if lower is$"):
            minimised(metric)
        assert not minimised(metric, maximise=True) and minimised(metric, minimise=True)
    for metric in (
        "loss",
        "held_out_loss",
        "wer",
        "latency",
        "accuracy_gap",
        "reward_std",
        "loss/total",
        "neg_reward",
        "k",
    ):
        assert minimised(metric) and not minimised(metric, maximise=True)
    with pytest.raises(ConfigError, match=r"^maximise and minimise do not go together"):
        minimised("loss", maximise=True, minimise=True)


@pytest.mark.parametrize(
    ("metric", "minimise", "told"), [("k", True, 1), ("accuracy", True, 1), ("accuracy", False, 0), ("loss", True, 0)]
)
def test_a_report_says_that_the_lowest_is_the_best_unless_the_name_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str, minimise: bool, told: int
) -> None:
    sweep.save_spec(Sweep(("c",), ({"lr": "1"}, {"lr": "2"}), metric, minimise), tmp_path / "s")
    assert (
        sweep.report(tmp_path / "s", [trial(0, 0.5, lr="1"), trial(1, 0.25, lr="2")], sweep.Config("c", ("lr=1",))) == 0
    )
    assert capsys.readouterr().out.count(f"The best has the lowest {metric}: with --maximise") == told


def test_no_setting_or_budget_has_the_name_of_a_trials_folder() -> None:
    for settings, halving in ((("lr=1", "out=a,b"), None), (("lr=1",), "out=1,2")):
        with pytest.raises(
            ConfigError, match=r"^out stands for the folder of a trial: vary another name, as in --set place="
        ):
            sweep.new_sweep(sweep.Config("c", settings, halving=halving), "python t.py")
    made = sweep.new_sweep(sweep.Config("c", ("outs=a",)), "python t.py --out {outs}")
    assert made.trials == ({"outs": "a"},)


def test_a_new_sweep_has_what_its_flags_say() -> None:
    def new(*settings: str, command: str = "train --x 'a b'", **flags: Any) -> Sweep:
        return sweep.new_sweep(sweep.Config(command, settings, **flags), command)

    made = new("lr=1,2", "k=a,b", metric="acc", maximise=True, halving="steps=10,20", eta=2, best_of_curve=True)
    assert made == Sweep(
        ("train", "--x", "a b"),
        tuple({"lr": lr, "k": k} for lr in "12" for k in "ab"),
        "acc",
        False,
        "steps",
        ("10", "20"),
        2,
        True,
    )
    assert (
        len(new("lr=uniform:0:1", trials=5, seed=1).trials) == 5
        and new("lr=1").rungs == ("",)
        and new("lr=1").budget == ""
    )
    assert new("lr=uniform:0:1", trials=3, seed=1) != new("lr=uniform:0:1", trials=3, seed=2)
    assert new("lr=1", halving="steps=90,100.5,1e3").rungs == ("90", "100.5", "1e3"), "by their numbers"
    assert new("lr=1", halving="data=small,large,all").rungs == ("small", "large", "all"), "other budgets as given"
    for flags, told in (
        ({"halving": "steps"}, "halving is 'steps'"),
        ({"halving": "=1,2"}, "halving is '=1,2'"),
        ({"halving": "s=1,1"}, "halving is"),
        ({"halving": "s=1,"}, "halving is"),
        ({"halving": "lr=1,2"}, "lr is the budget"),
        ({"halving": "steps=9,10,3"}, "the budgets of halving are 9,10,3: give them from the smallest on"),
    ):
        with pytest.raises(ConfigError, match=told):
            new("lr=1", **flags)
    with pytest.raises(ConfigError, match="trials is 0: give 1 to"):
        new("lr=1,2", trials=0)
    for command, told in (("'", "the command cannot be read"), (" ", "the command is empty")):
        with pytest.raises(ConfigError, match=told):
            new("lr=1", command=command)
    for given, told in (
        ({}, "give a command for a new sweep"),
        ({"command": "x", "show": Path()}, "give a command"),
        ({"command": "x"}, "something to vary"),
        ({"show": Path(), "jobs": 0}, "jobs is 0"),
        ({"show": Path(), "eta": 1}, "eta 1"),
    ):
        with pytest.raises(ConfigError, match=told):
            sweep.Config(**given)


# -- tracks --


def test_curves_are_shown_compared_and_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    ids = []
    for number in range(2):
        with start(f"m{number}", config={}) as made:
            for step, value in enumerate((1.0, 3.0, math.inf, 2.0)):
                made.log({"loss": value + number, **({"acc": 0.5} if number else {})}, step=1000 * step)
            ids.append(made.run.id)
            if number:
                track.print_curves(made, ("loss", "acc"))
                for order in (("loss", "acc"), ("acc", "loss")):
                    assert track.chosen(made, order) == order and set(track.chosen(made, ())) == set(order)
    assert words(capsys.readouterr().out) == [
        f"{ids[1]} (running)",
        "metric curve last lowest highest at step",
        "loss ▁█·▅ 3 2 4 3,000",
        "acc ▄▄▄▄ 0.5 0.5 0.5 3,000",
    ]
    code, out, _ = cli("track", *ids)
    assert code == 0 and words(out) == ["last values", f"metric {ids[0]} {ids[1]}", "acc 0.5", "loss 2 3"]
    code, out, _ = cli("track", *ids, "--json", "--metric", "loss")
    assert json.loads(out) == {"loss": {ids[0]: "2", ids[1]: "3"}}
    code, out, _ = cli("track", ids[0], "--json")
    assert json.loads(out) == {
        "run": ids[0],
        "status": "done",
        "metrics": {"loss": {"steps": [0, 1000, 2000, 3000], "values": [1.0, 3.0, "inf", 2.0]}},
    }
    code, out, _ = cli("track", ids[1], "--follow", "--metric", "acc")
    assert code == 0 and words(out) == ["step 3,000 acc 0.5 ▄▄▄▄"]
    with start("zero", config={}) as made:
        made.log({"loss": 1.0}, step=0)
        zero = made.run.id
    assert cli("track", zero, "--follow")[1].split()[:4] == ["step", "0", "loss", "1"]
    with closing(open_run(zero, tmp_path / "home")) as opened:
        track.follow(Track(opened), ("to come", "loss"))
    assert words(capsys.readouterr().out) == ["step 0 loss 1 ▄"], "a metric without a value yet waits"
    with monkeypatch.context() as patched:
        asked: list[Any] = []
        patched.setattr(track, "follow", lambda of, wanted: asked.append((of.run.id, wanted)))
        assert (cli("track", ids[1], "--follow")[0], cli("track", ids[1], "--follow", "--metric", "acc")[0]) == (0, 0)
    assert asked == [(ids[1], ()), (ids[1], ("acc",))], "without names also what is recorded later"
    with monkeypatch.context() as patched:
        patched.setattr(track, "POLL_S", 0.0)
        looks = iter([("running", None), ("running", 0), ("running", 0), ("running", 1), ("done", 1)])

        class Watched:
            @property
            def status(self) -> str:
                told, self.last = next(looks)
                return told

        growing: Any = SimpleNamespace(
            run=Watched(), last_step=lambda: growing.run.last, names=lambda: (), curve=lambda name: None
        )
        capsys.readouterr()
        track.follow(growing, ())
    assert words(capsys.readouterr().out) == ["step 0", "step 1"], "each step once"
    code, out, _ = cli("track", ids[0], "--export", "csv", "--to", str(tmp_path / "c.csv"))
    assert words(out) == [f"4 values of 1 metric in {tmp_path}/c.csv"]
    code, out, _ = cli("track", ids[1], "--metric", "acc", "--export", "csv", "--to", str(tmp_path / "d.csv"))
    assert words(out) == [f"4 values of 1 metric in {tmp_path}/d.csv"], "of the metrics that were asked for"
    for line, told in (
        (("--metric", "acc"), f"{ids[0]} has no metric 'acc': it has loss"),
        (("--export", "csv"), "go together"),
    ):
        code, _, err = cli("track", ids[0], *line)
        assert code == 2 and told in err
    code, _, err = cli("track", *ids, "--follow")
    assert code == 2 and "--follow, --export and --html take one run" in err


# -- gates --


def test_allowed_drops_losses_and_gaps() -> None:
    assert (
        gate.allowed_drops(("2%", "b=0.5", "b/s=0")) == {"": 0.02, "b": 0.5, "b/s": 0.0}
        and gate.allowed_drops(("b=1%",))[""] == 0.01
    )
    assert gate.allowed_drops(("0%", "a=b=0.05%")) == {"": 0.0, "a=b": 0.0005}
    for texts, told in (
        (("-1%",), "a drop is 0 or more"),
        (("1%", "2%"), "two drops for all scores"),
        (("b=1%", "b=2%"), "two drops for b"),
    ):
        with pytest.raises(ConfigError, match=told):
            gate.allowed_drops(texts)
    a, b = (
        {"t1": [1.0], "t2": [1.0, 0.5], "t3": [0.0], "t4": [1.0], "t5": [0.5]},
        {"t1": [0.5], "t2": [0.0], "t3": [1.0], "t5": [0.0]},
    )
    assert gate.got_worse(a, b, lower_is_better=False) == ["t2: 0.75 -> 0", "t1: 1 -> 0.5", "t5: 0.5 -> 0"]
    assert gate.got_worse(a, b, lower_is_better=True) == ["t3: 0 -> 1"]
    assert gate.mean({"a": [1.0, 0.0], "b": [1.0], "c": []}) == 0.75 and math.isnan(gate.mean({}))

    def values(*given: float) -> SimpleNamespace:
        return SimpleNamespace(values=given)

    pairs = [
        SimpleNamespace(benchmark="b", a=values(0.0, 1.0), b=values(1.0, 1.01)),
        SimpleNamespace(benchmark="c", a=values(5.0), b=values(9.0)),  # no share of 1
    ]
    found = SimpleNamespace(
        unscored=({"b": 1, "c": 9}, {"b": 2}),
        missing=(("b", "t"), ("c", "t")),
        changed=(("b", "u"), ("b", "v")),
        pairs=pairs,
        unmade=({"b": 3}, {"b": 4, "c": 5}),
    )
    assert gate.gaps_of(found, "b") == Gaps(1, 2, 1, 2, 1, 3, 4) and gate.gaps_of(found, "z") == Gaps()  # type: ignore[arg-type]
    assert gate.gaps_of(found, "c") == Gaps(9, 0, 1, 0, 0, 0, 5)  # type: ignore[arg-type]
    config = gate.Config("a", "b", benchmark=("sums",))
    scored = {"exact": {"sums": None}, "style": {"sums": "style", "words": None}}
    gate.check_names(config, {"": 1, "words": 1, "sums/style": 1}, scored, SimpleNamespace(id="r"))  # type: ignore[arg-type]
    for drops, names in (({"words/exact": 1}, ("sums",)), ({}, ("none",))):
        with pytest.raises(UnknownName):
            gate.check_names(gate.Config("a", "b", benchmark=names), drops, scored, SimpleNamespace(id="r"))  # type: ignore[arg-type]


def test_each_score_is_paired_by_its_own_and_a_figure_by_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def figures(*given: Any, errors: bool) -> Any:
        asked.append((given, errors))
        return {"spread": ("of a", "of b")}

    having = {"spread": {"sums": None, "more": None}, "style": {"sums": "style"}}
    monkeypatch.setattr(gate, "own_figures", lambda *given: "own")
    monkeypatch.setattr(gate, "scores_to_check", lambda *given: having)
    monkeypatch.setattr(gate, "check_names", lambda *given: asked.append(given[1:]))
    monkeypatch.setattr(gate, "shared_agents", lambda *given: [given[:2]])
    monkeypatch.setattr(gate, "compare", lambda *given, **more: asked.append((given, more)) or "found")
    monkeypatch.setattr(gate, "paired_figures", figures)
    monkeypatch.setattr(gate, "make_check", lambda *given: given)
    monkeypatch.setattr(gate, "replace", lambda made, reduce: (*made, reduce))
    monkeypatch.setattr(gate, "expect_percent", lambda *given: None)
    monkeypatch.setattr(gate, "checks_without_agent", lambda *given: iter(()))
    config = gate.Config(
        "a",
        "b",
        ("2%",),
        "90%",
        errors="zero",
        agent_a="ada",
        agent_b="bob",
        benchmark=("sums",),
        strata="s",
        reduce="max",
    )

    class Named(str):
        def reducer(self, benchmark: str, asked: object) -> str:
            return f"{asked} of {benchmark} in {self}"

    runs: Any = (Named("A"), Named("B"))
    drops = {"": 0.02}
    assert list(gate.all_checks(config, *runs)) == [
        ("found", "sums", "spread", drops, 0.9, ("of a", "of b")),
        ("found", "sums", "style", drops, 0.9, None, "max of sums in A"),
    ]  # fmt: skip
    more = {"agent_a": "ada", "agent_b": "bob", "error_value": 0.0, "unmade_value": 0.0, "strata": "s", "reduce": "max"}
    paired = (("found", "sums", "A", "B", "own"), True)
    assert asked == [
        (drops, having, "A"), (("A", "B"), {**more, "score": None}), paired,
        (("A", "B"), {**more, "score": "style"}), paired,
    ]  # fmt: skip
    asked.clear()
    assert [each[1] for each in gate.all_checks(gate.Config("a", "b"), *runs)] == ["sums", "more", "sums"]
    assert asked[1][1]["error_value"] is None and [each[1] for each in asked[2:4]] == [False, False]


def test_checks_are_printed_with_ten_lines_of_details_each(capsys: pytest.CaptureFixture[str]) -> None:
    differences = Differences((0.0, -1.0, -1.0, 0.0), True, True)
    made = Check(
        "ada",
        "sums",
        "exact",
        0.01,
        differences,
        0.95,
        "fail",
        "why",
        Gaps(missing=1),
        0.75,
        0.25,
        tuple(f"t{n}" for n in range(10)),
        (Flaky("sums", "t1", "a", (0.0, 1.0)),),
    )
    gate.print_checks("b vs. a", [made])
    low, high = made.bounds
    out = words(capsys.readouterr().out)
    assert out[:4] == [
        "b vs. a", "benchmark score agent tasks baseline candidate difference ruling",
        f"sums exact ada 4 0.7500 0.2500 -50.00% [{low:+.2%}, {high:+.2%}] fail", "sums, exact, ada: why",
    ]  # fmt: skip
    assert out[4] == "missing: 1 task that the candidate did not attempt" and out[13] == "worse: t8"
    assert out[14:] == ["and 2 more: --markdown or --json lists them"]
