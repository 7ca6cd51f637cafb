"""Settings of experiments to the letter: refusals, command lines, forks, foreign runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.experiment.experiment import other_setting
from firsthand.experiment.foreign_settings import expect_installed, expect_known, expect_own, is_own, named_by
from firsthand.experiment.forked_agents import base_settings, find_benchmark, forked_agent, forked_settings
from firsthand.experiment.settings import RunSettings, settings_from_json, stored_settings, words_of
from firsthand.message import canonical
from firsthand.providers.scripted import Scripted
from firsthand.system.home_seal import seal_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(function: Any, *args: Any, **given: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        function(*args, **given)
    return str(refused.value)


def test_settings_that_cannot_be_say_what_to_give() -> None:
    for changes, said in (
        ({"epochs": 100_001}, "epochs is 100001: the most is 100,000, each an attempt at every task"),
        ({"limit": -1}, "limit is -1: give 1 or more"),
        ({"model": ()}, "model is empty: name one or more, as in --model smollm2"),
        ({"pattern": ()}, "pattern is empty: name one or more, as in --pattern direct"),
        ({"pattern": ("a", "b", "a")}, "pattern is a,b,a: name each one once"),
        ({"on": "rays:x"}, "on is 'rays:x': give ray, or ray:HOST:PORT for a cluster elsewhere"),
        ({"equal_budget": "1.5"}, "equal_budget is '1.5': give a number of tokens, or nothing for what the most expensive "
         "pattern uses; a benchmark's name must not follow it"),
        ({"metrics": "helm", "limit": 0}, "limit is 0: give 1 or more"),
        ({"metrics": "helm", "limit": -2}, "limit is -2: give 1 or more"),
        ({"workers": 1}, "workers are those of a cluster: name it, as in --on ray --workers 8"),
        ({"on": "ray", "replay": "r"}, "replay and on do not go together: leave out --on to replay here"),
    ):  # fmt: skip
        assert refusal(RunSettings, **changes) == said
    assert RunSettings(epochs=100_000, limit=1).epochs == 100_000
    assert [RunSettings(equal_budget=each).token_budget for each in (None, "auto", "300")] == [None, None, 300.0]


def test_settings_have_the_defaults_that_the_flags_tell() -> None:
    assert RunSettings().to_json() == {
        "benchmarks": (), "model": ("smollm2",), "device": "cpu", "weights": "auto", "pattern": ("direct",),
        "tools": ("calculator",), "approve": (), "guard": (), "memory": None, "limit": None, "epochs": 1, "reduce": "",
        "metrics": "own", "answers": "found", "seed": 0, "temperature": 0.0, "max_tokens": 256, "system": None,
        "budget_tokens": None,
        "budget_calls": None, "budget_seconds": None, "budget_usd": None, "equal_budget": None, "concurrency": 16,
        "on": None, "workers": None, "replay": None, "name": None,
    }  # fmt: skip


def test_helms_metrics_wrap_each_benchmark_and_take_the_limit() -> None:
    named = ("gsm8k:shots=2:x=1", "helm_metrics:of=b", "a")
    made = RunSettings(benchmarks=named, metrics="helm", limit=5)
    wrapped = ("helm_metrics:of=gsm8k;shots=2;x=1:items=5", "helm_metrics:of=b", "helm_metrics:of=a:items=5")
    assert (made.benchmarks, made.limit, made.metrics) == (wrapped, None, "own")
    whole = RunSettings(benchmarks=named, metrics="helm")
    assert whole.benchmarks == ("helm_metrics:of=gsm8k;shots=2;x=1", "helm_metrics:of=b", "helm_metrics:of=a")


def test_settings_are_their_own_command_line_word_by_word() -> None:
    made = RunSettings(
        ("a", "b c"), ("x", "y"), system="- be short", seed=-1, limit=3, tools=(), budget_usd=0.5, temperature=1.0
    )
    assert made.command() == (
        "firsthand run a 'b c' --model x,y --tools '' --limit 3 --seed=-1 --temperature 1.0 '--system=- be short' "
        "--budget-usd 0.5"
    )
    assert RunSettings(("a",)).command() == "firsthand run a" and words_of((1, "b")) == "1,b" and words_of(2) == "2"
    body = made.to_json()
    assert body["seed"] == -1 and list(body)[:3] == ["benchmarks", "model", "device"]
    older = {name: True for name in ("watch", "otel", "resume", "retry_errors", "json")}
    assert settings_from_json({**body, **older}) == made
    with pytest.raises(ConfigError):
        settings_from_json({**body, "unknown": 1})


def stored(**config: Any) -> Any:
    return SimpleNamespace(id="r1", path=Path("/runs/r1"), config=config, about={})


def test_a_run_that_names_alone_cannot_make_again_says_how_to_go_on() -> None:
    made = "agents that were made in Python (a, b), and names alone cannot make them again: "
    for config, said in (
        ({"fork": 1}, "r1 is a fork: `firsthand fork --resume r1` finishes it"),
        ({"chat": 1}, "r1 is a saved conversation: `firsthand chat --load r1` continues it"),
        ({"arena": {"models": ["m", "n"]}}, "r1 is an arena: `firsthand arena m n --continue r1` goes on with it"),
        ({"arena": None}, "r1 is an arena: `firsthand arena  --continue r1` goes on with it"),
        ({"kind": "train"}, "r1 is a training run: `firsthand train --resume /runs/r1` goes on with it"),
        ({"kind": "track"}, "r1 holds metrics that a program logged: run that program again to go on"),
        ({"agents": ["a", "b"]}, f"r1 has {made}pass the same agents, as in Experiment(agents, ...).resume('r1')"),
    ):
        assert refusal(stored_settings, stored(**config)) == said
    assert stored_settings(stored(benchmarks=["a"], seed=3)) == RunSettings(("a",), seed=3)
    assert base_settings(stored(fork=1, settings={"benchmarks": ["a"], "limit": 2})) == RunSettings(("a",), limit=2)
    whole = RunSettings(
        ("a", "b"), ("m", "n"), device="cuda", weights="float32", pattern=("cot", "direct"), tools=("none",),
        approve=("external=deny",), guard=("g",), memory="notes", limit=3, epochs=2, reduce="mean", seed=7, temperature=0.5,
        max_tokens=9, system="s", budget_tokens=1, budget_calls=2, budget_seconds=3.0, budget_usd=4.0, concurrency=5,
        name="x",
    )  # fmt: skip
    assert base_settings(stored(fork="p", settings=json.loads(json.dumps(whole.to_json())))) == whole
    assert base_settings(stored(**json.loads(json.dumps(whole.to_json())))) == whole
    assert base_settings(stored(benchmarks=["a"])) == RunSettings(("a",))
    for config in ({}, {"benchmarks": ["a"], "agents": ["x"]}):
        assert refusal(base_settings, stored(**config)) == (
            "r1 was not made by `firsthand run`, so its agents are not known here: use firsthand.runs.forking"
        )
    error = other_setting(stored(), "benchmarks", ["a", "b"], ("c",))
    assert str(error) == "r1 was begun with benchmarks a,b, not c: resume it with the same settings, or leave them out"


def test_names_of_a_run_from_elsewhere_are_loaded_if_they_are_installed(home: Path) -> None:
    (home / "here").touch()
    said = (
        "{} was made elsewhere and names the {} {!r}, which may run code or reach files and servers: look at it, then add "
        "--trust"
    )
    fine = {
        "benchmark": ["arithmetic:levels=1-2:tasks=3"],
        "model": ["smollm2", "scripted:echo"],
        "pattern": "self_consistency(cot:shots=2):samples=3:temperature=.5",
        "tool": None,
        "guard": (),
    }
    expect_known("f", fine)
    expect_installed({kind: texts for kind, texts in fine.items() if isinstance(texts, list)})
    expect_known("f", {"tool": ("none",)})  # no tools
    expect_installed({"tool": ["none"]})
    expect_known("f", {"benchmark": ("arithmetic@main:levels=-1.5e3",), "memory": "notes", "model": ()})
    assert refusal(expect_installed, {"tool": ["x" * 70]}).startswith(f"the run names the tool {'x' * 60!r}, which may")
    assert refusal(expect_known, "f", {"guard": ("none",)}) == said.format("f", "guard", "none")
    for kind, text in (
        ("benchmark", "mine.py"),
        ("benchmark", "arithmetic:levels=a.b"),
        ("benchmark", "arithmetic:levels=a/b"),
        ("pattern", "self_consistency(mine.py:f)"),
        ("pattern", "self_consistency(cot:x=/etc)"),
        ("benchmark", "arithmetic:levels=a\\b"),
        ("benchmark", "arithmetic:model=hf:x"),
        ("tool", "mcp:server"),
        ("tool", "files:notes/x"),
        ("model", "hf:a/b"),
        ("model", "openai:x@host"),
        ("model", "~x"),
        ("model", "a\\b"),
        ("model", "here"),
    ):
        assert refusal(expect_known, "f", {"model": "smollm2", kind: (text,)}) == said.format("f", kind, text)
        assert refusal(expect_installed, {kind: [text]}) == (
            f"the run names the {kind} {text!r}, which may load a file, a server or a model: continue it in the terminal "
            "with `firsthand fork`"
        )
    left_out = {"benchmark": None, "model": (), "tool": ["none"], "guard": None, "memory": "a/b"}
    assert refusal(expect_known, "f", left_out) == said.format("f", "memory", "a/b"), (
        "those after a kind left out count"
    )
    long = "/" + "x" * 90
    assert refusal(expect_known, "f", {"model": ["smollm2", long]}) == said.format("f", "model", long)
    run = stored(benchmarks=["a"])
    assert not is_own(run) and expect_own(run, {"model": long}, trust=True) is None
    assert refusal(expect_own, run, {"model": long}, trust=False) == said.format("r1", "model", long)
    run.about["config_seal"] = seal_of(canonical(run.config), "run")
    assert is_own(run) and expect_own(run, {"model": long}, trust=False) is None
    settings = RunSettings(
        ("b", "b2"), ("m", "m2"), pattern=("p", "p2"), tools=("t", "t2"), guard=("g", "g2"), memory="y"
    )
    assert named_by(settings) == {
        "benchmark": ("b", "b2"), "model": ("m", "m2"), "pattern": ("p", "p2"), "tool": ("t", "t2"), "guard": ("g", "g2"),
        "memory": "y", "approval": (), "replay": None, "cluster": None,
    }  # fmt: skip
    assert named_by(RunSettings(("b",), ("m",), tools=(), guard=())) == {
        "benchmark": ("b",), "model": ("m",), "pattern": ("direct",), "tool": (), "guard": (), "memory": None,
        "approval": (), "replay": None, "cluster": None,
    }  # fmt: skip


def test_options_of_a_run_from_elsewhere_start_no_program_and_name_nothing_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recs").mkdir()
    (tmp_path / "gone").symlink_to("nowhere")
    fine = ["swe_records:engine=podman", "swe_records:engine=docker:network=false", "agentbench_db:engine=mariadb"]
    fine += ["mmlu:subject=anatomy", "many_shot:shots=0-2-8", "gpqa:data=hub", "swe_records:data=others"]
    expect_known("f", {"benchmark": fine})
    bad = ["engine=bash", "engine=docker2", "network=true", "network=yes", "data=recs", "packages=x+recs", "data=~"]
    bad += ["repos=gone", "packages=recs,x", "packages=x recs"]
    for text in [*(f"swe_records:{option}" for option in bad), "lm_eval:trust=true"]:
        with pytest.raises(ConfigError, match=r"was made elsewhere and names the benchmark .*, then add --trust$"):
            expect_known("f", {"benchmark": [text]})


def test_a_model_of_a_run_from_elsewhere_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("private.json", "private.gguf", "adir", "openai:here", "dangling"):
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("nowhere")
    fine = ["smollm2", "scripted:echo", "sim:sessions", "sim:game24:error=0.2", "openai:gpt-4o", "ollama:llama3:8b"]
    expect_known("f", {"model": [*fine, "anthropic:claude", "google:gemini", "openai:adir", "x" * 300]})
    opens = ["scripted:private.json", "scripted:absent.json", "cassette:private.jsonl", "cassette:absent", "agents:x"]
    opens += [f"smollm2+{kind}:adir" for kind in ("lora", "adapter", "steer", "monitor")]
    opens += [
        "private.gguf",
        "private.gguf+lora:x",
        "openai:here",
        "link",
        "hf:adir",
        "ollama:x@adir",
        "a\0b",
        "echo:x",
        "x+lora",
    ]
    for text in opens:
        assert "names the model" in refusal(expect_known, "f", {"model": [text]}), text
        assert "continue it in the terminal" in refusal(expect_installed, {"model": [text]}), text


def test_a_run_from_elsewhere_opens_no_service_of_this_machine_or_its_network() -> None:
    expect_known("f", {"tool": ["fetch", "fetch:ports=443", "fetch:allow=:ports=80+443", "web_search:service=brave"]})
    expect_known("f", {"benchmark": ["inspect:task=gsm8k", "inspect:task=gsm8k:sandbox=docker"]})
    opens = ["fetch:allow=localhost", "fetch:allow=Wiki", "fetch:allow=1", "fetch:allow=wiki+nas", "fetch:ports=22"]
    opens += ["fetch:ports=80+8080", "fetch:ports=", "web_search:service=searxng:url=nas"]
    for kind, texts in (("tool", opens), ("benchmark", ["inspect:task=gsm8k:sandbox=local"])):
        for text in texts:
            with pytest.raises(ConfigError, match=rf"was made elsewhere and names the {kind} .*, then add --trust$"):
                expect_known("f", {kind: [text]})
            assert "continue it in the terminal" in refusal(expect_installed, {kind: [text]})


def parent(agent: str, model: str, benchmark: str = "arithmetic") -> Any:
    return SimpleNamespace(agent_name=agent, agent={"name": agent, "model": model}, benchmark=benchmark)


def test_a_fork_has_the_settings_of_its_parents_agent_and_what_it_changes() -> None:
    settings = RunSettings(
        ("arithmetic:levels=1", "game24"), ("m1", "m2"), pattern=("direct", "cot", "cot:shots=1"), limit=3, epochs=2,
        replay="r", seed=4, max_tokens=9,
    )  # fmt: skip
    own = replace(settings, benchmarks=("arithmetic:levels=1",), model=("m2",), replay=None, limit=None, epochs=1)
    assert forked_settings(settings, parent("cot@m2", "m2")) == replace(own, pattern=("cot",))
    changes = {"temperature": 0.5, "system": None, "max_tokens": 7}
    assert forked_settings(settings, parent("cot:shots=1@m2", "m2"), changes=changes) == replace(
        own, pattern=("cot:shots=1",), temperature=0.5, max_tokens=7
    )
    other = forked_settings(settings, parent("direct", "m9", "unknown"), pattern="react", say="x")
    assert other == replace(own, benchmarks=settings.benchmarks, model=("m1",), pattern=("react",))
    assert forked_settings(settings, parent("direct", "m2"), say="x").pattern == ("reply",)
    assert forked_settings(settings, parent("direct", "m2"), say="").pattern == ("reply",), "an empty message is one"
    nothing: Any = {"temperature": 0.0, "tools": (), "system": ""}
    warm = replace(settings, temperature=0.7, tools=("calculator",), system="be short")
    assert forked_settings(warm, parent("direct", "m2"), changes=nothing) == replace(
        own, pattern=("direct",), **nothing
    )
    assert forked_settings(settings, parent("direct", "m2"), model="m7").model == ("m7",)
    equal = replace(settings, model=("m2",), equal_budget="auto", replay=None)
    assert forked_settings(equal, parent("direct", "m2")).equal_budget is None
    for name in ("cot2", "self_consistency@m1"):
        said = f"the run's settings name no pattern for the agent {name!r}: give --pattern"
        assert refusal(forked_settings, settings, parent(name, "m1")) == said
    assert find_benchmark(settings, parent("cot", "m1", "game24")).name == "game24"
    assert refusal(find_benchmark, settings, parent("cot", "m1", "mmlu")) == (
        "the attempt is of the benchmark 'mmlu', and its run names arithmetic:levels=1, game24: without its scorers a fork "
        "cannot be scored"
    )
    model = Scripted(["x"], name="scripted:2")
    for name, kept in (
        ("cot", "cot"),
        ("cot@scripted:2", "cot@scripted:2"),
        ("direct@scripted:2", "cot"),
        ("cot@m1", "cot"),
    ):
        assert forked_agent(replace(own, pattern=("cot",)), parent(name, "m2"), [model]).name == kept


def test_an_equal_budget_is_a_number_of_tokens_in_decimal_digits() -> None:
    for given in ("\u00b2", "1\u00b3", "0", "00", "", "-5", "+5", " 5", "5 ", "1_000", "1e3", "1.0", "Auto", "\u2460"):
        assert refusal(RunSettings, equal_budget=given) == (
            f"equal_budget is {given!r}: give a number of tokens, or nothing for what the most expensive pattern uses; a "
            "benchmark's name must not follow it"
        )
    for given, tokens in (("1", 1.0), ("007", 7.0), ("\u0663\u0660", 30.0), ("auto", None)):
        assert RunSettings(equal_budget=given).token_budget == tokens
