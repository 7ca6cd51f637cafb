"""What commands hand over whole: a run's facts to its leaderboard, replicas' events to the log, a judge's own attempt."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corpus_tiny import tiny_corpus
from firsthand.boards import board_export, result_file
from firsthand.boards.board_spec import BoardSpec
from firsthand.cluster.replicas.replicated_model import ReplicatedEmbedder, ReplicatedModel
from firsthand.commands import agent_server, agreement, board_of_results, rag_ask, rag_serve, score, serve, show
from firsthand.commands import board as board_command
from firsthand.commands.print_run import Results
from firsthand.errors import ConfigError, MissingExtra
from firsthand.experiment import rescore
from firsthand.model import BASE_MODEL
from firsthand.providers.scripted import Scripted
from firsthand.runs.store import create
from firsthand.serve.admission import api_keys
from firsthand.serve.http import server
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.show import board
from firsthand.task import Task
from firsthand.trace import Score, Trace
from scored_runs import scored_run


def test_a_leaderboard_is_made_of_all_that_is_known_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: Any = {"b": {"quiz": {"t": [{"right": 1.0}]}}, "a": {"quiz": {"t": [{"right": 0.0}]}}}
    run = scored_run(tmp_path, "made", tries)
    asked: list[Any] = []
    monkeypatch.setattr(board, "leaderboard", lambda given, **more: asked.append((given, more)) or ["a board"])
    monkeypatch.setattr(board, "reducers_of", lambda given: {"of": given.id})
    attempts, figures = list(run.summaries()), {"quiz": lambda traces: []}
    settings: Any = SimpleNamespace(token_budget=77)
    made: Any = Results(run, settings, attempts, {"quiz": "0-shot"}, figures)
    assert made.boards() == ["a board"]
    [(given, more)] = asked
    assert given is attempts and more == {
        "budget": 77, "clusters": run.clusters(), "figures": figures, "order": run.agents(),
        "protocols": {"quiz": "0-shot"}, "reducers": {"of": run.id}, "retried": {},
    }  # fmt: skip
    assert list(more["order"]) == ["b", "a"], "as they were named"
    assert made._replace(attempts=[]).boards() == [] and len(asked) == 1


@pytest.mark.parametrize("which", ["model", "embedder", "both"])
def test_what_happens_to_replicas_is_written_into_the_servers_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    fleet: Any = SimpleNamespace(on_event=None, statuses=lambda: [])
    made: Any = (ReplicatedModel(fleet, "m"), ReplicatedEmbedder(fleet, "e"))
    made = {"model": (made[0], None), "embedder": (None, made[1])}.get(which, made)
    told: list[Any] = []
    opened: list[ServerTelemetry] = []
    begin = ServerTelemetry.__init__

    def init(self: ServerTelemetry, settings: Any) -> None:
        begin(self, settings)
        opened.append(self)

    monkeypatch.setattr(ServerTelemetry, "__init__", init)
    monkeypatch.setattr(serve, "open_replicas", lambda config: made)
    monkeypatch.setattr(serve, "close", lambda *parts: told.append(parts))

    def served(app: Any, listen: Any, *, on_open: Any) -> None:
        told.append((listen, app.models.name))
        app.models.on_facts(SimpleNamespace(has_template=False))
        assert fleet.on_event == opened[0].log.write
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "serve", served)
    names = {"model": "one/m.gguf" if made[0] else None, "embedder": "two/e" if made[1] else None}
    config = serve.Config(**names, replication=serve.ReplicaSettings(1))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        serve.main(config)
    name = serve.public_name("two/e" if which == "embedder" else "one/m.gguf")
    assert capsys.readouterr().err == f"firsthand: {BASE_MODEL.format(name=name)}\n"
    assert told == [(config.listen, name), made], "what was opened is closed, however serving ends"


def test_a_judges_attempt_is_found_by_the_name_of_its_score_or_the_names_are_told() -> None:
    inner = Trace("j", "judge", "t", {"name": "judge"}, 0, 0, "", 1.0, answer="4 of 5")
    bare = Trace("x", "quiz", "t", {"name": "a"}, 0, 0, "", 1.0, scores=(Score("exact", 1.0, {}),))
    scores = (
        Score("exact", 1.0, {}),
        Score("kind", 0.5, {"trace": inner.to_json()}),
        Score("odd", 0.5, {"trace": "?"}),
    )
    assert show.judgement(replace(bare, scores=scores), "kind") == inner
    for name, trace, known in (
        ("exact", replace(bare, scores=scores), "kind, odd"), ("odd", replace(bare, scores=scores), "kind, odd"),
        ("no", bare, "none"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            show.judgement(trace, name)
        assert str(refused.value) == (
            f"the attempt has no judged score {name!r}: it has {known}; `firsthand score` makes them"
        )


def test_a_cross_reference_is_made_of_the_results_under_the_same_conditions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    file = tmp_path / "r.csv"
    rows = [("a", "b1", 0.5, "acc", "p"), ("a", "b1", 0.25, "f1", "p"), ("bo", "b1", 0.75, "acc", "q")]
    file.write_text("model,benchmark,score,metric,protocol\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    asked: list[Any] = []

    def crossed(*given: Any) -> Any:
        asked.append(given)
        raise KeyError

    monkeypatch.setattr(board_command, "_crossed", crossed)
    config = board_command.Config((str(file),), cross_reference=True, metric=("b1=acc",), protocol=("b1=p",))
    spec = BoardSpec()
    with pytest.raises(KeyError):
        board_command._print_results(config, spec, (str(file),), 0.95)
    [(results, given, protocols, metrics)] = asked
    assert (given, protocols, metrics) == (spec, {"b1": "p"}, {"b1": "acc"}) and len(results.results) == 3


def test_without_a_model_the_three_best_passages_answer_or_as_many_as_are_asked_for() -> None:
    corpus = tiny_corpus({f"{n}.md": f"The mill number {n} was built in 187{n}.\n" for n in range(7)}, vectors=False)
    for k, count in ((None, 3), (1, 1), (5, 5)):
        body = asyncio.run(
            rag_ask._extracted("When was the mill built?", corpus, rag_ask.AnswerFlags(model="none", k=k))
        )
        assert len(body["hits"]) == count and body["calls"] == 0 and body["model"] is None


def test_agreement_is_measured_at_the_confidence_that_is_asked_for_and_told_with_what_has_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    with create(tmp_path, {}, "judged", command=["firsthand"]) as run:
        run.add_tasks("pairs", [Task("t", "Which?", secret={"votes": ["a", "b"]})])
        run.add_tasks("sums", [Task("u", "1+1?", secret={"answer": "2"})])
        for name in ("cy", "bo"):
            run.add_agent(name, {"name": name})
    asked: list[Any] = []

    def judged(tasks: Any, traces: Any) -> tuple[list[str], int]:
        asked.append(sorted(tasks))
        return ["item"] * len(asked), 2 + len(asked)

    monkeypatch.setattr(agreement, "judged_items", judged)
    monkeypatch.setattr(
        agreement,
        "agreement",
        lambda items, level: SimpleNamespace(to_json=lambda: {"items": len(items), "level": level}),
    )
    assert agreement.main(agreement.Config(run.id, confidence="99%", json=True)) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"benchmark": "pairs", "agent": "cy", "without_verdict": 3, "items": 1, "level": 0.99},
        {"benchmark": "pairs", "agent": "bo", "without_verdict": 4, "items": 2, "level": 0.99},
    ]
    assert asked == [[("pairs", "t"), ("sums", "u")]] * 2, "only of sets that people have voted on"


def test_a_folder_of_adapters_needs_a_model_that_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rooted = OpenAISettings(adapter_root=tmp_path)
    for made in (None, Scripted([])):
        with pytest.raises(ConfigError) as refused:
            serve.put_adapters(made, serve.Config("x", openai=rooted))
        assert str(refused.value) == "x does not run here, so no adapters can be beside it: leave out --adapter"
        serve.put_adapters(made, serve.Config("x"))
    put: list[Any] = []
    able: Any = SimpleNamespace(put_adapter=lambda *given: put.append(given))
    monkeypatch.setattr(serve, "AdapterCapability", SimpleNamespace)
    serve.put_adapters(able, serve.Config("x", openai=rooted, adapter=("sql=a=b",), name="y"))
    assert put == [("sql", "a=b")]
    for name in ("x", "y"):
        with pytest.raises(ConfigError, match=f"--adapter is '{name}=a': {name} is the model's own name"):
            serve.put_adapters(able, serve.Config("x", name="y", adapter=(f"{name}=a",)))


def test_keys_that_may_load_adapters_are_checked_before_a_model_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    asked: list[Any] = []

    def check(keys: Any, root: Path | None) -> None:
        asked.append((len(keys.clients), root))
        raise ConfigError("no folder of adapters")

    monkeypatch.setattr(api_keys, "check_loaders", check)
    monkeypatch.setenv("FIRSTHAND_API_KEY", "k" * 32)
    with pytest.raises(ConfigError, match=r"^no folder of adapters$"):
        serve.main(serve.Config("no such model", openai=OpenAISettings(adapter_root=tmp_path)))
    assert asked == [(1, tmp_path)]
    for text in ("openai:m@http://user:secret@host/v1", "openai:m@http://host/v1", "ollama:m"):
        assert serve.public_name(text) == "m", "nothing of an address is told"


def test_the_model_that_answers_from_an_index_is_opened_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.commands import chat

    asked: list[Any] = []

    def opened(name: str, device: str) -> None:
        asked.append((name, device))
        raise ConfigError("no such device")

    monkeypatch.setattr(chat, "open_model", opened)
    with pytest.raises(ConfigError, match="no such device"):
        rag_ask.rag_model(rag_ask.AnswerFlags(model="m", device="cuda:1"), Path("i"))
    assert asked == [("m", "cuda:1")]


def test_what_is_served_has_the_name_of_its_flag_its_model_or_its_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.serve.models import served_models

    asked: list[Any] = []

    def made(model: Any, embedder: Any, *, name: str) -> None:
        asked.append((model, embedder, name))
        raise ConfigError("no models")

    monkeypatch.setattr(served_models, "ServedModels", made)
    monkeypatch.setattr(serve, "open_here", lambda config: (config.model, config.embedder))
    for given in ({"embedder": "dir/minilm"}, {"model": "a/m.gguf", "embedder": "e"}, {"model": "m", "name": "own"}):
        with pytest.raises(ConfigError, match="no models"):
            serve.main(serve.Config(**given))  # type: ignore[arg-type]
    assert asked == [(None, "dir/minilm", "minilm"), ("a/m.gguf", "e", "m.gguf"), ("m", None, "own")]


def test_what_is_protected_is_withheld_from_programs_too_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    with scored_run(tmp_path, "made", {"a": {"quiz": {"t": [{"exact": 1.0}]}}}) as run:
        [trace] = run.traces()
    monkeypatch.setattr(show, "shareable", lambda trace: replace(trace, answer="withheld"))
    for given, answer in (({}, "withheld"), ({"full": True}, "withheld"), ({"reveal": True}, trace.answer)):
        assert show.main(show.Config(run.id, trace.place, json=True, **given)) == 0  # type: ignore[arg-type]
        assert json.loads(capsys.readouterr().out)["answer"] == answer != ""


def test_every_setting_of_a_scoring_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    run = scored_run(tmp_path, "made", {"a": {"quiz": {"t": [{"exact": 1.0}]}}})
    asked: list[Any] = []

    async def rescored(of: Any, scorer: Any, **more: Any) -> Any:
        asked.append((of.id, more))
        more["on_score"](SimpleNamespace(agent_name="a", task_id="t"), None)
        return "found"

    monkeypatch.setattr(rescore, "rescore", rescored)
    monkeypatch.setattr(score, "reported", lambda of, found, config: ({}, int(found != "found")))
    config = score.Config(
        run.id, ("exact",), as_="own", agent="a", benchmark="quiz", concurrency=3, retry_errors=True, json=True
    )
    assert score.main(config) == 0 and score.main(score.Config(run.id, ("exact",), json=True)) == 0
    told = [{key: value for key, value in more.items() if key != "on_score"} for _, more in asked]
    assert told == [
        {"name": "own", "described": "exact", "agent": "a", "benchmark": "quiz", "concurrency": 3, "redo_errors": True},
        {"name": "", "described": "exact", "agent": None, "benchmark": None, "concurrency": 8, "redo_errors": False},
    ]
    for as_, agent, benchmark, again in (
        (None, None, None, True),
        ("own", "a", None, False),
        (None, None, "quiz", True),
    ):
        config = score.Config(
            run.id, ("exact",), as_=as_, agent=agent, benchmark=benchmark, retry_errors=again, json=True
        )
        assert score.main(config) == 0
        handed = {key: value for key, value in asked[-1][1].items() if key != "on_score"}
        assert handed == {
            "name": as_ or "", "described": "exact", "agent": agent, "benchmark": benchmark, "concurrency": 8,
            "redo_errors": again,
        }  # fmt: skip
    monkeypatch.setattr(score.catalog, "scorer", lambda text: SimpleNamespace(described=f"{text} with m"))
    assert score.main(score.Config(run.id, ("rubric", "exact"), retry_errors=True, json=True)) == 0
    assert [more["described"] for _, more in asked[-2:]] == ["", ""], (
        "a scorer that describes itself is taken at its word"
    )
    assert [more["redo_errors"] for _, more in asked[-2:]] == [True, True]
    run.close()


def test_a_board_is_followed_written_and_printed_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    file = tmp_path / "r.csv"
    file.write_text("model,benchmark,score\nann,b1,0.5\nbo,b1,0.25\n")
    told: list[Any] = []

    def keep(module: Any, name: str) -> None:
        monkeypatch.setattr(module, name, lambda *given: told.append((name, *given[1:])))

    for name in ("print_board", "print_origins", "print_climbs", "print_cross_reference"):
        keep(board_of_results, name)
    keep(board_export, "write_board")
    monkeypatch.setattr(
        result_file, "write_result_file", lambda path, results: told.append(("save", path, len(results.results)))
    )
    monkeypatch.setattr(
        board_of_results, "follow", lambda sources, make: told.append(("follow", sources, type(make()).__name__))
    )
    monkeypatch.setattr(board_command, "_crossed", lambda *given: SimpleNamespace(to_json=lambda: {"flagged": 0}))
    sources = (str(file),)
    spec = BoardSpec()

    def printed(**given: Any) -> list[Any]:
        told.clear()
        assert board_command._print_results(board_command.Config(sources, **given), spec, sources, 0.9) == 0
        return told

    assert printed() == [("print_board",)]
    whole = printed(
        export=("a.md", "b.csv"), save="s.results", origins=True, climb="-", cross_reference=True, models=("ann",)
    )
    assert whole == [
        ("write_board", Path("a.md")), ("write_board", Path("b.csv")), ("save", Path("s.results"), 1), ("print_board",),
        ("print_origins",), ("print_climbs", None), ("print_cross_reference",),
    ]  # fmt: skip
    assert printed(climb="c.svg") == [("print_board",), ("print_climbs", Path("c.svg"))]
    # the board that is watched was printed while it was followed
    assert printed(watch=True, origins=True) == [("follow", sources, "MadeBoard"), ("print_origins",)]
    capsys.readouterr()
    assert printed(json=True, origins=True, cross_reference=True, export=("a.md",)) == [("write_board", Path("a.md"))]
    body = json.loads(capsys.readouterr().out)
    assert body["cross_reference"] == {"flagged": 0} and body["confidence"] == 0.9
    assert printed(json=True) == [] and "cross_reference" not in json.loads(capsys.readouterr().out)


def test_a_server_whose_packages_are_missing_says_which_and_what_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "firsthand.serve.http.server", None)
    given: Any = dict.fromkeys(
        ("folder", "listen", "key_file", "limits", "admitted", "openai", "recorded", "session_limits", "a2a")
    )
    for begin, command in (
        (lambda: serve.main(serve.Config("m")), "firsthand serve"),
        (lambda: agent_server.serve_agent(tmp_path / "a.toml", **given), "firsthand serve"),
        (lambda: rag_serve.run(rag_serve.Config()), "firsthand rag serve"),
    ):
        with pytest.raises(MissingExtra) as refused:
            begin()
        assert str(refused.value) == str(MissingExtra("firsthand.serve.http.server", "serve", command))
