"""`firsthand fork` stores its origin and every change, and prints outcomes in whole lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import fork
from firsthand.commands.fork import Config as ForkConfig
from firsthand.commands.fork import outcome, print_results
from firsthand.errors import ConfigError
from firsthand.loop.protection import shareable
from firsthand.retrieval.corpus import close_corpora
from firsthand.runs.store import open_run
from firsthand.tool import tool
from firsthand.trace import Event, Failure, Score

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "home"
    close_corpora()


# -- fork --


@pytest.fixture
def ran(cli: Cli, home: Path) -> Any:
    """A run of one task by two patterns; the trace of cot, and its run's folder."""
    script = {"Shorter": "The answer is 12", "step by step": "The answer is 50.", "": "7"}
    Path("script.json").write_text(json.dumps(script))
    Path("none.json").write_text("[]")
    words = [
        "--pattern",
        "direct,cot",
        "--model",
        "scripted:script.json",
        "--seed",
        "3",
        "--epochs",
        "2",
        "--limit",
        "1",
    ]
    assert cli("run", "arithmetic:levels=1:tasks=2", "toy_ledgers:tasks=1", *words)[0] == 0
    with open_run("last", home) as run:
        place = next(each.place for each in run.traces(agent="cot") if each.benchmark.startswith("arithmetic"))
        return SimpleNamespace(trace=run.trace(place), path=str(run.path), config=run.config, id=run.id)


@pytest.mark.slow
def test_a_fork_stores_its_origin_and_every_change_and_keeps_a_journal(cli: Cli, home: Path, ran: Any) -> None:
    changes = {
        "say": "Shorter!", "seed": 5, "temperature": 0.5, "max-tokens": 99, "system": "S.", "tools": "none",
        "budget-tokens": 5000, "budget-calls": 7, "budget-seconds": 60, "budget-usd": 2,
    }  # fmt: skip
    flags = [f"--{name}={value}" for name, value in changes.items()]
    code, out, err = cli("fork", ran.id, ran.trace.id, "--at", "1", *flags, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["answer"] == "12" and json.loads(out)["origin"]["trace"] == ran.trace.id
    with open_run("last", home) as run:
        (trace,) = run.traces()
        assert run.config["fork"] == {"run": ran.path, "trace": ran.trace.id, "at": 1, "say": "Shorter!", "seed": 5}
        assert run.config["settings"] == ran.config | {
            "benchmarks": ["arithmetic:levels=1:tasks=2"], "pattern": ["reply"], "limit": None, "epochs": 1,
            "temperature": 0.5, "max_tokens": 99, "system": "S.", "tools": ["none"], "budget_tokens": 5000,
            "budget_calls": 7, "budget_seconds": 60.0, "budget_usd": 2.0,
        }  # fmt: skip
        with open_run(ran.id, home) as parents:
            name = ran.trace.benchmark
            assert run.protocols == {name: parents.protocols[name]} and [key for key, _ in run.tasks()] == [name]
        assert run.id[16:-5] == "fork-arithmetic" and run.status == "done" and list(run.agents()) == [trace.agent_name]
        made = [call for call in trace.calls if not call.replayed]
        assert len(made) == 1 and run.database.read("SELECT 1 FROM effects"), "what was paid for is kept"
        assert made[0].detail["sampling"]["max_tokens"] == 99 and made[0].detail["sampling"]["temperature"] == 0.5
        assert trace.seed == 5
    code, out, _ = cli("fork", "--resume", "--json")
    assert code == 0 and json.loads(out)["id"] == trace.id, "a fork that is done is shown and not made again"


@pytest.mark.slow
def test_a_fork_without_changes_is_of_the_parents_agent_and_one_that_fails_ends_with_3(
    cli: Cli, home: Path, ran: Any
) -> None:
    code, out, _ = cli("fork", ran.trace.place[:8], "--at", "0")
    assert code == 0
    with open_run("last", home) as run:
        assert [each.agent_name for each in run.traces()] == ["cot"]
        assert run.config["fork"] == {"run": ran.path, "trace": ran.trace.id, "at": 0, "say": None, "seed": None}
    assert out.rstrip().splitlines()[-4:] == [
        f"parent   {outcome(ran.trace)}", f"fork     {outcome(trace_of(run.id, home))}",
        f"show     firsthand show {run.id} {trace_of(run.id, home).place[:8]}",
        f"compare  firsthand compare {ran.id} {run.id} --agent-a cot --agent-b cot",
    ]  # fmt: skip
    code, out, _ = cli("fork", ran.id, ran.trace.id, "--at", "0", "--model", "scripted:none.json")
    assert code == 3 and " (" in out and ", 0 new tokens" in out


def trace_of(id: str, home: Path) -> Any:
    """The only attempt of a run."""
    with open_run(id, home) as run:
        return next(run.traces())


@pytest.mark.slow
def test_an_outcome_is_one_line_with_scores_and_the_tokens_that_were_not_replayed(ran: Any) -> None:
    trace = ran.trace
    tokens = trace.calls[0].usage.total_tokens
    assert tokens > 0 and len(trace.calls) == 1
    shown = replace(trace, answer="x" * 100 + "\n", scores=(Score("s", 0.5), Score("t", 1.0)), stop_reason="tokens")
    assert outcome(shown) == f"cot: '{'x' * 79} (tokens), s 0.5, t 1, {tokens} new tokens"
    replayed = replace(trace.calls[0], replayed=True)
    more = replace(shown, calls=(replayed, trace.calls[0], trace.calls[0]), answer=None, scores=())
    assert outcome(more) == f"cot: None (tokens), {2 * tokens} new tokens"
    failed = replace(more, error=Failure("model", "it broke"), calls=())
    assert outcome(failed) == "cot: None (model: it broke), 0 new tokens"


@tool(effect="external")
def send(text: str) -> str:
    """Send."""
    return text


@tool(effect="irreversible")
def burn(text: str) -> str:
    """Burn."""
    return text


@tool(effect="read")
def look(text: str) -> str:
    """Look."""
    return text


@pytest.mark.slow
def test_tools_that_reach_outside_and_were_called_again_are_named(ran: Any, capsys: pytest.CaptureFixture[str]) -> None:
    call = ran.trace.calls[0]

    def made(name: str, replayed: bool = False) -> Any:
        return replace(call, kind="tool", detail={"name": name}, replayed=replayed)

    what: Any = SimpleNamespace(
        parent=replace(ran.trace, agent={**ran.trace.agent, "name": "a b"}),
        run="RUN",
        agent=SimpleNamespace(own_tools=(send, burn, look)),
    )
    run: Any = SimpleNamespace(id="FORK")
    again = replace(ran.trace, calls=(made("send"), made("burn"), made("look"), call))
    print_results(run, what, again)
    lines = capsys.readouterr().out.splitlines()
    assert "note     burn, send were called again: the fork is an attempt of its own" in lines
    assert lines[-1] == "compare  firsthand compare RUN FORK --agent-a 'a b' --agent-b cot"
    print_results(run, what, replace(ran.trace, calls=(made("send", replayed=True), made("look"))))
    assert "note " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "name an attempt: firsthand fork RUN TRACE --at STEP; `firsthand runs last` lists them"),
        ({"trace": ("a", "b", "c"), "at": 1}, "name an attempt: firsthand fork RUN TRACE --at STEP"),
        ({"trace": ("a", "b")}, "no step was given: add --at STEP; `firsthand show a b` numbers the steps"),
        ({"trace": ("a",), "at": 0, "watch": True, "json": True}, "watch and json do not go together"),
        ({"resume": "x", "seed": 0}, "resume finishes a fork as it was begun: leave the other settings out"),
        ({"resume": "x", "at": 0}, "resume finishes a fork as it was begun: leave the other settings out"),
    ],
)
def test_what_a_fork_needs_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ForkConfig(**given)
    assert str(refused.value).startswith(told)
    ForkConfig(("a",), at=0), ForkConfig(("a", "b"), at=0), ForkConfig(resume="x", trust=True, watch=True)


@pytest.mark.slow
def test_a_run_from_elsewhere_is_forked_where_what_it_names_is_installed_trusted_or_exchanged(
    cli: Cli, home: Path, ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("own.json").write_text('["mine"]')
    run_words = ("--pattern", "cot", "--model", "scripted:./script.json")
    assert cli("run", "arithmetic:levels=1:tasks=1", *run_words)[0] == 0
    with open_run("last", home) as parents:
        (parent,) = parents.traces()
        path, refused = (
            str(parents.path),
            f"{parents.id} was made elsewhere and names the model 'scripted:./script.json'",
        )
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "other"))
    line = ("fork", path, parent.id, "--at", "0")
    code, _, err = cli(*line)
    assert code == 2 and refused in err and "add --trust" in err and not (tmp_path / "other" / "runs").exists()
    assert cli(*line, "--pattern", "direct")[0] == 2, "the model is its own still"
    code, out, _ = cli(*line, "--model", "scripted:./own.json", "--json")
    assert code == 0 and json.loads(out)["answer"] == "mine"
    with open_run("last", tmp_path / "other") as run:
        settings, fork = run.config["settings"], run.config["fork"]
        assert (settings["model"], settings["pattern"]) == (["scripted:./own.json"], ["cot"])
        assert fork == {"run": path, "trace": parent.id, "at": 0, "say": None, "seed": None}
        made = str(run.path)
    assert cli(*line, "--trust", "--json")[0] == 0
    # a fork that is finished in a third home is one from elsewhere too
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "third"))
    code, _, err = cli("fork", "--resume", made)
    assert code == 2 and "was made elsewhere and names the model 'scripted:./own.json'" in err
    code, out, _ = cli("fork", "--resume", made, "--trust", "--json")
    assert code == 0 and json.loads(out)["answer"] == "mine"


@pytest.mark.slow
def test_an_attempt_that_is_protected_is_not_watched_and_what_was_made_of_it_not_printed(
    cli: Cli, home: Path, ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run(ran.id, home) as run:
        secret = replace(
            ran.trace, id="f" * 16, epoch=7, events=(Event("protected", 0.0, data={"why": "it is held out"}),)
        )
        run.append(secret)
        place = run.trace(secret.id).place
    code, _, err = cli("fork", ran.id, place, "--at", "0", "--watch")
    assert code == 2
    assert "watch would print what must not be printed (it is held out): leave it out" in err
    assert cli("fork", ran.id, ran.trace.id, "--at", "0", "--watch")[0] == 0
    assert cli("fork", ran.id, place, "--at", "0")[0] == 0, "it is forked unwatched"
    made = replace(secret, answer="it is a long secret answer")
    monkeypatch.setattr(fork, "carry_out", lambda *given, **more: made)
    code, out, _ = cli("fork", ran.id, place, "--at", "1", "--json")
    assert code == 0 and json.loads(out) == json.loads(json.dumps(shareable(made).to_json()))
    assert "long secret" not in out and json.loads(out)["answer"] == "[withheld: 26 characters]"
    monkeypatch.setattr(fork, "carry_out", lambda *given, **more: replace(made, events=()))
    assert json.loads(cli("fork", ran.id, place, "--at", "1", "--json")[1])["answer"] == "it is a long secret answer"
    monkeypatch.setattr(fork, "carry_out", lambda *given, **more: replace(made, error=Failure("ModelError", "gone")))
    assert cli("fork", ran.id, place, "--at", "1", "--json")[0] == 3
