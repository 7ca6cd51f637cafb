"""Flags of commands at their limits: the last value that is taken, the first that is refused, and the whole refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.commands import (
    models,
    play,
    power,
    quickstart,
    rag_decide,
    rag_index,
    run,
    runs,
    scaling,
    score,
    serve,
    sessions,
    show,
    studio,
    summary,
    sweep,
    tokens,
    tour,
    track,
)  # fmt: skip
from firsthand.errors import ConfigError

NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def check(make: Callable[..., Any], taken: list[dict[str, Any]], refused: list[tuple[dict[str, Any], str]]) -> None:
    """All of `taken` are settings; each of `refused` is the sentence beside it."""
    for given in taken:
        make(**given)
    for given, told in refused:
        with pytest.raises(ConfigError) as error:
            make(**given)
        assert str(error.value) == told, given


def test_limits_of_a_studio(tmp_path: Path) -> None:
    (tmp_path / "sae").mkdir()
    ports = [{name: port} for name in ("port", "grpc_port") for port in (0, 65535)]
    no_receive = [{"receive": False}, {"receive": False, "alert_to": "f"}, {"receive": True, "cold": "1d"}]
    actions = [("export", "r"), ("import", "p"), *(("account", word, "a") for word in ("add", "role", "remove", "key"))]
    action = (
        "'{}' is no action: write `studio`, `studio export RUN`, `studio import PATH`, or `studio account "
        "add|role|remove|key NAME` and `studio account list`"
    )
    check(studio.Config, [
        *ports, *no_receive, {"sample": 0}, {"sample": 1}, {"temperature": 0}, {"max_tokens": 1}, {"model": ("a", "b")},
        {"database": "postgres://x"}, {"database": "postgresql://x", "project": "p"}, {"sae": ("sae", "sae:model=m")},
        {"action": ("account", "role", "a"), "role": "none"}, {"action": ("export", "r"), "to": Path("x"), "filter": "f"},
        {"host": "0.0.0.0", "https": True, "name": ("x",)}, {"home": tmp_path}, {"demo": True},
        *({"action": words} for words in [*actions, ("account", "list")]),
    ], [
        ({"sample": 1.001}, "sample is 1.001: give a share from 0 to 1"),
        ({"sample": -0.001}, "sample is -0.001: give a share from 0 to 1"),
        ({"temperature": NAN}, "temperature is nan: give 0 (greedy) or more"),
        ({"temperature": INF}, "temperature is inf: give 0 (greedy) or more"),
        ({"temperature": -0.1}, "temperature is -0.1: give 0 (greedy) or more"),
        ({"max_tokens": 0}, "max_tokens is 0: give 1 or more"),
        ({"port": 65536}, "port is 65536: give 0 (any free one) to 65535"),
        ({"port": -1}, "port is -1: give 0 (any free one) to 65535"),
        ({"grpc_port": -1}, "grpc_port is -1: give 0 (any free one) to 65535"),
        ({"database": "xpostgres://"}, "database is no address of PostgreSQL: write postgresql://user@host/name"),
        ({"project": "p"}, "project goes with --database: without one a data home keeps its own accounts"),
        ({"host": "localhost",
         "https": True}, "name, https and proxy are for a wider address: give --host too, such as --host 0.0.0.0"),
        ({"host": "::1", "name": ("x",)},
         "name, https and proxy are for a wider address: give --host too, such as --host 0.0.0.0"),
        ({"to": Path("x")}, "to and filter go with `studio export RUN`"),
        ({"action": ("import", "p"), "filter": "f"}, "to and filter go with `studio export RUN`"),
        ({"role": "none"}, "role goes with `studio account add NAME` and `studio account role NAME`: leave it out"),
        ({"action": ("account", "remove", "a"), "role": "admin"},
         "role goes with `studio account add NAME` and `studio account role NAME`: leave it out"),
        ({"home": tmp_path / "no"}, f"no folder '{tmp_path}/no': give a data home, which holds a folder `runs`"),
        ({"sae": ("sae", "no:model=m")},
         "no folder 'no:model=m': give the folder of an autoencoder, or one that holds several"),
        ({"demo": True, "home": tmp_path}, "demo and home do not go together: the demo has runs of its own"),
        ({"model": ("a", "b", "a")}, "model is a,b,a: name each model once"),
        *(({"receive": False, name: value}, f"{name} and no-receive do not go together: it is about received traces")
          for name, value in (("grpc_port", 0), ("ingest_key", "k"), ("keep", "1d"), ("keep_size", "1GB"), ("cold", "1d"),
                              ("redact", ("x",)), ("score", ("exact",)), ("alert", ("a",)))),
        *(({"action": words}, action.format(" ".join(words))) for words in (
            ("export",), ("export", "a", "b"), ("account", "list", "a"), ("account", "add"), ("acount", "list"),
            ("list", "account"))),
        ({"action": ("x" * 90,)}, action.format("x" * 80)),
    ])  # fmt: skip


def test_limits_of_scaling_and_of_power() -> None:
    plan: dict[str, Any] = {"action": "plan", "points": "p"}
    one = "plan takes one of --flops, --hours, or --parameters with --tokens; fit and sweep take none"
    both = "parameters and tokens go together: give both, or a compute by --flops or --hours"
    level = "give a level from 50% to below 100%"
    check(lambda **more: scaling.Config(**{"points": "p", **more}), [
        {}, {"drop": 0, "resamples": 1}, {"confidence": "50%"}, {"confidence": "99.9%"}, {**plan, "flops": 1e-9},
        {**plan, "hours": 1, "utilisation": 1}, {**plan, "parameters": 1, "tokens": 1},
        {"action": "sweep", "widths": ("8", "1_6"), "lengths": ("64",)},
    ], [
        ({"action": "sweep", "points": None}, "sweep needs a file of points, as in: firsthand scaling sweep points.csv"),
        (plan, one), ({**plan, "flops": 1, "parameters": 1, "tokens": 1}, one), ({"action": "sweep", "hours": 1}, one),
        ({**plan, "tokens": 1}, both), ({**plan, "parameters": 1}, both),
        *(({**plan, **more}, told) for more, told in (
            ({"flops": INF}, "flops is inf: expected a number above 0"),
            ({"hours": 0}, "hours is 0: expected a number above 0"),
            ({"parameters": 1, "tokens": -1}, "tokens is -1: expected a number above 0"),
            ({"parameters": NAN, "tokens": 1}, "parameters is nan: expected a number above 0"),
            ({"hours": 1, "utilisation": 1.01}, "utilisation is 1.01: expected a share above 0 and at most 1"),
            ({"flops": 1, "widths": ("8",)}, "widths and lengths are for a sweep, not for plan"))),
        ({"lengths": ("8",)}, "widths and lengths are for a sweep, not for fit"),
        ({"drop": -1}, "drop is -1 and resamples 200: expected 0 or more, and 1 or more"),
        ({"drop": 3, "resamples": 0}, "drop is 3 and resamples 0: expected 0 or more, and 1 or more"),
        ({"action": "sweep", "lengths": ("8", "-16")}, "lengths is 8,-16: give whole numbers, such as 16,32,64"),
        ({"confidence": "100%"}, f"confidence is '100%': {level}"),
        ({"confidence": "49.9%"}, f"confidence is '49.9%': {level}"),
    ])  # fmt: skip
    given = "give a run to plan from, or --disagreement or --between-sd without one"
    numbers = "give whole numbers from 1 on, such as 1,2,4"
    check(lambda **more: power.Config(**{"run": "r", **more}), [
        {}, {"tasks": 1}, {"power": "51%"}, {"power": "99%"}, {"effect": "0.1%"}, {"epochs": ("1",)},
        {"agent": "a", "against": "b"},
        {"run": None, "disagreement": "1%"}, {"run": None, "between_sd": 0.0, "within_sd": 0.0},
    ], [
        ({"run": None}, given), ({"between_sd": 0.0}, given), ({"disagreement": "1%"}, given),
        ({"run": None, "disagreement": "1%", "between_sd": 0.0},
         "disagreement and between_sd do not go together: one follows from the other"),
        ({"run": None, "between_sd": -0.1}, "between_sd -0.1, within_sd 0.0: give 0 or more, 1e+150 at most"),
        ({"run": None, "between_sd": 1.0, "within_sd": INF},
         "between_sd 1.0, within_sd inf: give 0 or more, 1e+150 at most"),
        ({"against": "b"}, "against is 'b': name with --agent the agent to compare with it"),
        ({"tasks": 0}, "tasks is 0: give 1 or more"),
        ({"effect": "0%"}, "effect is '0%': give a difference above 0, such as 2%"),
        ({"power": "50%"}, "power is '50%': give a share above 50% and below 100%, such as 80%"),
        ({"power": "100%"}, "power is '100%': give a share above 50% and below 100%, such as 80%"),
        ({"epochs": ()}, f"epochs is : {numbers}"), ({"epochs": ("2", "0")}, f"epochs is 2,0: {numbers}"),
        ({"epochs": ("1.5",)}, f"epochs is 1.5: {numbers}"),
    ])  # fmt: skip


def test_limits_of_runs_their_scores_and_their_sweeps() -> None:
    check(run.Config, [
        {"benchmarks": ("b",), "fail_fast": 0}, {"resume": "r", "retry_errors": True, "trust": True},
        {"replay": "r", "trust": True},
        {"benchmarks": ("b",), "watch": True}, {"benchmarks": ("b",), "json": True, "on": "ray"},
    ], [
        ({}, "no benchmark was named: try `firsthand run arithmetic`; `firsthand list benchmarks` shows all"),
        ({"benchmarks": ("b",), "retry_errors": True},
         "retry_errors goes with resume: name the run, as in --resume last --retry-errors"),
        ({"benchmarks": ("b",), "trust": True}, "trust is for runs from elsewhere: it goes with --resume or --replay"),
        ({"benchmarks": ("b",), "fail_fast": -1}, "fail_fast is -1: give the number of failures, or 0 for no such end"),
        ({"benchmarks": ("b",), "watch": True, "json": True},
         "watch and json do not go together: one is for people, the other for programs"),
        ({"benchmarks": ("b",), "watch": True, "on": "ray"},
         "watch and on do not go together: leave out --on to watch here"),
        ({"resume": "r", "replay": "r"}, "resume and replay do not go together: resume finishes a run, replay repeats one"),
    ])  # fmt: skip
    older = "--older-than and --yes say what --prune removes: add --prune"
    sentences = "check prints sentences, and its exit status tells: leave out --json and --prune"
    check(runs.Config, [{"limit": 1}, {"prune": True, "older_than": 0}, {"prune": True, "run": "r", "yes": True},
        {"check": True}], [
        ({"limit": 0}, "limit is 0: give 1 or more"), ({"older_than": 1.0}, older), ({"yes": True}, older),
        ({"prune": True, "older_than": -0.1}, "older_than is -0.1: give a number of days, 0 or more"),
        ({"prune": True, "older_than": NAN}, "older_than is nan: give a number of days, 0 or more"),
        ({"prune": True, "older_than": 0.0, "run": "r"},
         "--older-than chooses among all runs: leave it out, or the name of the run"),
        ({"check": True, "json": True}, sentences), ({"check": True, "prune": True}, sentences),
    ])  # fmt: skip
    named = "it names the scores of one scorer, so give one --with and one name"
    check(score.Config, [{"with_": ("a", "b"), "concurrency": 1}, {"with_": ("a",), "as_": "x"}], [
        ({}, "no scorer was named: give --with SCORER; `firsthand list scorers` shows all"),
        ({"with_": ("a", "b"), "as_": "x"}, f"as is 'x': {named}"), ({"with_": ("a",), "as_": " "}, f"as is ' ': {named}"),
        ({"with_": ("a",), "concurrency": 0}, "concurrency is 0: give 1 or more"),
    ])  # fmt: skip
    new = "give a command for a new sweep, or --resume or --show with the folder of one"
    check(sweep.Config, [{"command": "c", "set": ("lr=1",), "jobs": 1, "eta": 2}, {"resume": Path("r")},
        {"show": Path("s")}], [
        ({}, new), ({"resume": Path("r"), "show": Path("s")}, new),
        ({"command": "c", "show": Path("s"), "set": ("a=1",)}, new),
        ({"command": "c"}, "a sweep needs something to vary: --set lr=1e-4,1e-3"),
        ({"resume": Path("r"), "jobs": 0}, "jobs is 0 and eta 3: give 1 or more, and 2 or more"),
        ({"resume": Path("r"), "jobs": 2, "eta": 1}, "jobs is 2 and eta 1: give 1 or more, and 2 or more"),
    ])  # fmt: skip
    one = "--follow, --export and --html take one run"
    pair = "--export and --to go together: --export csv --to curves.csv"
    check(track.Config, [{"export": "csv", "to": Path("x")}, {"runs": ("a", "b"), "json": True}, {"html": Path("x")}], [
        ({"export": "csv"}, pair), ({"to": Path("x")}, pair), ({"runs": ("a", "b"), "follow": True}, one),
        ({"runs": ("a", "b"), "export": "csv", "to": Path("x")}, one), ({"runs": ("a", "b"), "html": Path("x")}, one),
    ])  # fmt: skip
    check(summary.Config, [{"by": ("a",), "threshold": "1%"}, {"score": "s", "strata": "k", "reduce": "max"}], [
        *(({"by": by, "threshold": "1%"}, "threshold needs exactly one key, as in --by length --threshold 85.6%")
          for by in ((), ("a", "b"))),
        *(({"by": ("a",), name: "max"}, f"{name} and by do not go together: leave out one of them")
          for name in ("score", "strata", "reduce")),
    ])  # fmt: skip


def test_limits_of_what_is_shown_or_asked() -> None:
    of_attempt = "{0} is for an attempt: name one, as in firsthand show last ID --{0}"
    of_board = "{0} is for the leaderboard: leave out {0} or the attempt"
    lines = "follow prints the steps of a whole run as lines: leave out the attempt and json"
    check(show.Config, [{"follow": True}, {"trace": "t", "judge": "j", "full": True, "reveal": True, "json": True},
                        {"strata": "k", "reduce": "max", "json": True}], [
        ({"follow": True, "trace": "t"}, lines), ({"follow": True, "json": True}, lines),
        *(({name: value}, of_attempt.format(name)) for name, value in (("judge", ""), ("full", True), ("reveal", True))),
        *(({"trace": "t", name: value}, of_board.format(name)) for name, value in (("strata", "k"), ("reduce", "max"))),
    ])  # fmt: skip
    people = "a person plays alone and prints no JSON: name the players optimal, random or idle with --player"
    check(lambda **more: play.Config("w", **more), [{"limit": 0}, {"player": ("idle", "random"), "json": True}], [
        ({"limit": -1}, "limit is -1: give 1 or more, or leave it out"), ({"json": True}, people),
        ({"player": ("idle", "person")}, people),
    ])  # fmt: skip
    check(sessions.Config, [{"approve": "a", "answers": "{}", "reason": "r"}, {"deny": "a", "reason": "r"},
        {"json": True}], [
        ({"approve": "a", "deny": "b"}, "approve and deny do not go together: answer one call at a time"),
        ({"reason": "r"}, "reason goes with approve or deny: name the call"),
        ({"deny": "a", "answers": "{}"}, "answers fill in a form: name it with approve"),
    ])  # fmt: skip
    check(tour.Config, [{"step": "1", "yes": True}, {"reset": True}], [
        ({"yes": True}, "--yes runs a step: name one, as in `firsthand tour next --yes`"),
    ])  # fmt: skip
    check(quickstart.Config, [{"limit": 1}], [({"limit": 0}, "limit is 0: give 1 or more")])
    check(rag_index.Config, [{"sources": ("d",)}], [({}, "index needs a folder, as in: firsthand rag index docs")])
    share = "give a share such as 20% or 0.2, or 0 for none"
    check(lambda **more: rag_decide.Config(Path("d"), Path("q"), **more), [
        {"k": 1, "max_chars": 1, "concurrency": 1, "limit": 1, "change": "100%"}, {"change": "0%"},
        {"lora": True, "train_questions": Path("x")},
    ], [
        ({"k": 0}, "k is 0: give 1 or more"), ({"limit": 0}, "limit is 0: give 1 or more"),
        ({"change": "100.1%"}, f"change is '100.1%': {share}"), ({"change": "nan"}, f"change is 'nan': {share}"),
        ({"change": "1.1"}, f"change is '1.1': {share}"), ({"change": "%"}, f"change is '%': {share}"),
    ])  # fmt: skip


def test_limits_of_models_tokens_and_servers() -> None:
    belongs = "--to, --out and --calibration belong to quantize: leave them out"
    text = 'a text belongs to look, and look needs one: firsthand models look MODEL "some text"'
    check(models.Config, [
        {}, {"action": "quantize", "model": "m", "to": "F16", "out": "o", "calibration": "c"},
        {"action": "look", "model": "m", "text": "t"},
        {"action": "plan", "model": "m", "context": 0, "batch": 1, "train": "lora", "machine": "h100"},
        {"action": "pull", "model": "m"},
    ], [
        *(({"action": "quantize", "model": "m", **more},
           "quantize needs a type and a file: firsthand models quantize MODEL --to Q4_K_M --out FILE")
          for more in ({"to": "F16"}, {"out": "o"})),
        *(({"action": "pull", "model": "m", name: "x"}, belongs) for name in ("to", "out", "calibration")),
        ({"action": "look", "model": "m", "text": "t", "to": "x"}, belongs), ({"action": "look", "model": "m"}, text),
        *(({"action": "pull", "model": "m", "text": each}, text) for each in ("t", "")),
        *(({"action": "inspect", "model": "m", name: value}, "--machine and --train belong to plan: leave them out")
          for name, value in (("machine", "h100"), ("train", "full"))),
        ({"action": "look", "model": "m", "text": " "}, "the text is empty: give 2 to 128 tokens to look at"),
        ({"action": "plan", "model": "m", "context": -1}, "context is -1: give 0 or more tokens"),
        ({"action": "plan", "model": "m", "batch": 0}, "batch is 0: give 1 or more sequences"),
        ({"model": "m"}, "list takes no model: `firsthand models inspect m` looks at one"),
        ({"action": "remove"}, "remove needs a model, as in: firsthand models remove smollm2"),
    ])  # fmt: skip
    together = "--train and --out belong together: firsthand tokens --train FILE --out FOLDER"
    shown = "--train takes no text to show: leave it out, or train first"
    goes = "goes with --train: leave it out, or train a vocabulary"
    check(tokens.Config, [{"text": "t"}, {"languages": True},
        {"train": "f", "out": "o", "kind": "unigram", "vocab_size": 9}], [
        ({}, 'a text is missing, as in: firsthand tokens "some text"'), ({"train": "f"}, together), ({"out": "o"}, together),
        ({"train": "f", "out": "o", "text": "t"}, shown), ({"train": "f", "out": "o", "languages": True}, shown),
        ({"text": "t", "vocab_size": 9}, f"--vocab-size {goes}"), ({"text": "t", "kind": "unigram"}, f"--kind {goes}"),
        ({"languages": True, "cut": "gpt-2"}, f"--cut {goes}"),
        ({"languages": True, "text": "t"}, "--languages counts a text of its own: leave yours out"),
    ])  # fmt: skip
    agents = "agent and a model do not go together: the agent's file names its model"
    check(serve.Config, [{"model": "m"}, {"embedder": "e"}, {"agent": Path("a.toml"), "sessions": Path("s")}], [
        ({"model": "m", "sessions": Path("s")}, "sessions goes with agent: give --agent FILE.toml"),
        ({"agent": Path("a"), "model": "m"}, agents), ({"agent": Path("a"), "embedder": "e"}, agents),
        ({"model": "a.toml"}, "model is 'a.toml': an agent's file goes with --agent, and settings with --config"),
        ({}, "serve what? For example: firsthand serve smollm2"),
    ])  # fmt: skip
