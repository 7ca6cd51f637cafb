"""Small facts of several commands: what is checked before anything is begun, passed on whole, or told of one and of many."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tiny
from firsthand.commands import bench, bench_decoder, gate, mcp, rag_graph, runs, sessions, tokens, train
from firsthand.errors import ConfigError
from firsthand.hub.inspection import inspect
from firsthand.measure import agent_workloads, attention_bench, choice_workload, workloads
from firsthand.measure.workloads import QUICK, WorkloadSizes
from firsthand.runs import store
from firsthand.runs.run_names import DATABASE
from firsthand.serve.agents.session_store import SessionStore
from firsthand.tokens.pretrained import load
from firsthand.train import processes, training_run
from printed_tables import widen, words

Cli = Callable[..., tuple[int, str, str]]


# -- train --

RECIPE = '''
"""A recipe of one's own."""
from dataclasses import dataclass, field
from firsthand.train.training_run import LoopSettings

@dataclass(frozen=True)
class Config:
    """Of own."""
    loop: LoopSettings = field(default_factory=LoopSettings)

def own(config, run):
    """Does nothing."""
    print("said by the recipe")
    run.on_fit()
    return run.folder / "model"
'''


@pytest.mark.parametrize("first", [True, False])
def test_processes_that_train_together_are_joined_and_the_first_alone_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first: bool
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    (tmp_path / "own.py").write_text(RECIPE)
    told: list[Any] = []

    @contextmanager
    def joined() -> Iterator[None]:
        told.append("joined")
        yield
        told.append("left")

    @contextmanager
    def opened(folder: Path, name: str, config: Any, *, resume: bool) -> Iterator[Any]:
        told.append((folder, name, config.loop.seed, resume))
        yield SimpleNamespace(folder=folder)

    monkeypatch.setattr(processes, "joined", joined)
    monkeypatch.setattr(processes, "is_first", lambda: first)
    monkeypatch.setattr(processes, "from_first", lambda folder: folder.with_name("of the first"))
    monkeypatch.setattr(training_run, "opened", opened)
    out = tmp_path / "given"
    assert train._train(train.Config(str(tmp_path / "own.py"), out=out), ["--seed", "4"]) == 0
    folder = tmp_path / "of the first"
    assert told == ["joined", (folder, str(tmp_path / "own.py"), 4, False), "left"], "one folder for all of them"
    said, err = capsys.readouterr()
    assert err == f"run {folder}\n"
    assert said == (f"said by the recipe\n{train._outcome(folder / 'model', folder)}\n" if first else "")


# -- tokens --


def test_a_real_vocabulary_is_trained_and_cuts_its_own_words_whole(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    widen(monkeypatch, tokens)
    (tmp_path / "corpus.txt").write_text("low lower lowest\n" * 30, encoding="utf-8")
    folder = tmp_path / "v"
    line = ("tokens", "--train", str(tmp_path / "corpus.txt"), "--out", str(folder), "--vocab-size", "260")
    code, out, err = cli(*line)
    assert (code, out, err) == (0, f"{folder}: bpe vocabulary of 260 tokens\n", "")
    made = load(folder)
    # 256 bytes and the special token leave room for three pairs, the most frequent first: l+o, lo+w, blank+low
    assert tokens._cut(made, "low low") == (made.encode("low low"), ["low", " low"])
    code, out, err = cli("tokens", "low é", "--model", str(folder))
    assert code == 0 and words(out) == [
        f"{folder}: low| |\\xc3|\\xa9", "5 characters", "model tokens per word characters per token",
        f"{folder} 4 2.00 1.25",
    ]  # fmt: skip
    head, row = (next(line for line in out.splitlines()[1:] if text in line) for text in ("per word", str(folder)))
    assert head.index("model") == row.index(str(folder)), "numbers stand to the right, names do not"


# -- runs --


def test_runs_that_nobody_agrees_to_remove_are_counted_and_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    names = []
    for name in ("one", "two"):
        with store.create(tmp_path, {}, name) as made:
            names.append(made.id)
    asked: list[list[str]] = []
    monkeypatch.setattr(runs, "_agreed", lambda chosen: asked.append([each.id for each in chosen]))
    for given, told in (({}, "2 runs"), ({"run": names[0]}, names[0])):
        assert runs.prune(runs.Config(prune=True, **given)) == 0  # type: ignore[arg-type]
        assert capsys.readouterr().out == f"nothing removed: {told}\n"
    assert [sorted(each) for each in asked] == [sorted(names), names[:1]] and len(store.list_runs(tmp_path)) == 2
    assert runs.prune(runs.Config(prune=True, older_than=1.0)) == 0 and len(asked) == 2
    assert capsys.readouterr().out == "no run to remove\n"
    assert runs.prune(runs.Config(names[1], prune=True, yes=True)) == 0 and len(asked) == 2
    assert capsys.readouterr().out == f"removed {names[1]}\n"
    assert [each.id for each in store.list_runs(tmp_path)] == names[:1]


# -- mcp, gate, bench, rag graph --


def test_a_server_of_mcp_keeps_its_tasks_where_its_record_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mcp")
    from firsthand.serve.mcp import mcp_server

    made: list[Any] = []
    monkeypatch.setattr(mcp_server, "McpServer", lambda *given: made.append(given) or given)
    record: Any = SimpleNamespace(tasks="the file of tasks")
    offer, kept = mcp.make_server(mcp.Config(("calculator",)), record)  # type: ignore[misc]
    assert kept == "the file of tasks" and [each.name for each in offer.tools] == ["calculator"]


def test_a_gate_refuses_its_settings_before_a_run_is_opened() -> None:
    for given, told in (
        ({"confidence": "120%"}, "confidence is '120%'"), ({"confidence": "much"}, "confidence is 'much'"),
        ({"reduce": "middle"}, "middle"), ({"max_drop": ("x%",)}, "x%"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            gate.Config(**{"baseline": "a", "candidate": "b", **given})  # type: ignore[arg-type]


def test_a_model_that_tells_no_vocabulary_or_context_is_measured_at_usual_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    real = bench.decoder_workloads

    def made(sizes: Any, *, vocab: int, context: int) -> Any:
        asked.append((sizes, vocab, context))
        return real(sizes, vocab=vocab, context=context)

    monkeypatch.setattr(bench, "decoder_workloads", made)
    facts = inspect(tiny.write_model(tmp_path / "d"))
    bench.check_words((), facts, QUICK)
    bench.check_words(("decode",), replace(facts, vocabulary=None, context=None), WorkloadSizes())
    assert asked == [(QUICK, facts.vocabulary, facts.context), (WorkloadSizes(), 32_768, WorkloadSizes().long)]


def test_the_workloads_of_a_decoder_have_its_vocabulary_and_context(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def of(name: str, made: Any) -> Any:
        return lambda sizes, **more: asked.append((name, sizes, more)) or made

    for module, name, made in (
        (workloads, "serving", ["s"]), (agent_workloads, "agent_workloads", ["a", "b"]),
        (attention_bench, "attention_workload", "t"), (choice_workload, "scoring", "c"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, of(name, made))
    assert bench_decoder.decoder_workloads(QUICK, vocab=50, context=200) == ["s", "a", "b", "t", "c"]
    assert sorted(asked, key=lambda each: str(each[0])) == [
        ("agent_workloads", QUICK, {"vocab": 50, "context": 200}), ("attention_workload", QUICK, {}),
        ("scoring", QUICK, {"vocab": 50}), ("serving", QUICK, {"vocab": 50}),
    ]  # fmt: skip


def test_one_token_and_one_call_at_a_time_are_the_least_of_a_graph() -> None:
    least = rag_graph.Config(max_tokens=1, concurrency=1)
    assert (least.max_tokens, least.concurrency) == (1, 1)
    with pytest.raises(ConfigError, match=r"^max_tokens is 0 and concurrency 1: give 1 or more of each$"):
        replace(least, max_tokens=0)
    assert json.dumps(rag_graph.Config().types) == '"organization,person,geo,event"'


# -- sessions --


def test_the_store_of_sessions_is_closed_though_an_answer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    SessionStore(tmp_path, create=True).close()
    (tmp_path / DATABASE).touch()
    told: list[str] = []
    closed = SessionStore.close
    monkeypatch.setattr(SessionStore, "close", lambda self: told.append("closed") or closed(self))
    assert cli("sessions", str(tmp_path), "--approve", "apr_none")[0] != 0 and told == ["closed"]
    assert cli("sessions", str(tmp_path))[0] == 0 and told == ["closed"] * 2
    assert sessions.read_answers("") is None and sessions.read_answers("null") is None
    assert sessions.read_answers('{"a": [1]}') == {"a": [1]}
    with pytest.raises(ConfigError, match=r"answers is ' ': give a JSON object"):
        sessions.read_answers(" ")
