"""What commands hand over whole: a run's facts to its leaderboard, replicas' events to the log, a judge's own attempt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.cluster.replicas.replicated_model import ReplicatedEmbedder, ReplicatedModel
from firsthand.commands import serve, show
from firsthand.commands.print_run import Results
from firsthand.errors import ConfigError
from firsthand.serve.http import server
from firsthand.serve.telemetry.server_telemetry import ServerTelemetry
from firsthand.show import board
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
        "protocols": {"quiz": "0-shot"}, "reducers": {"of": run.id},
    }  # fmt: skip
    assert list(more["order"]) == ["b", "a"], "as they were named"
    assert made._replace(attempts=[]).boards() == [] and len(asked) == 1


@pytest.mark.parametrize("which", ["model", "embedder", "both"])
def test_what_happens_to_replicas_is_written_into_the_servers_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
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
        assert fleet.on_event == opened[0].log.write
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "serve", served)
    names = {"model": "one/m.gguf" if made[0] else None, "embedder": "two/e" if made[1] else None}
    config = serve.Config(**names, replication=serve.ReplicaSettings(1))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        serve.main(config)
    name = serve.public_name("two/e" if which == "embedder" else "one/m.gguf")
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
