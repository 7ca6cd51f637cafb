"""Each setting of a run from elsewhere: loaded with trust alone, harmless whatever it is, or never taken from the run."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import fork, run
from firsthand.errors import ConfigError
from firsthand.experiment.experiment import Experiment
from firsthand.experiment.foreign_settings import HARMLESS, LOADED, expect_known, named_by
from firsthand.experiment.settings import CLUSTER, RunSettings, stored_settings
from firsthand.runs import store
from firsthand.runs.attempts import insert_trace
from made_traces import trace

SETTINGS = RunSettings(("arithmetic",), ("scripted:echo",), limit=2)
ELSEWHERE = r"was made elsewhere and names the {} .*, then add --trust$"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "mine"))
    return tmp_path


def made_by(whom: str, folder: Path, monkeypatch: pytest.MonkeyPatch, config: Any) -> str:
    monkeypatch.setenv("FIRSTHAND_HOME", str(folder / whom))
    with store.create(folder / whom, config, "given") as made:
        path = str(made.path)
    monkeypatch.setenv("FIRSTHAND_HOME", str(folder / "mine"))
    return path


def test_every_setting_has_a_decision_what_a_strangers_value_of_it_may_do() -> None:
    """A new setting: what does it load, open or permit? LOADED names its kind; else HARMLESS says why any value is."""
    assert sorted([*LOADED, *HARMLESS]) == sorted(each.name for each in fields(RunSettings))
    kinds = named_by(SETTINGS)
    assert sorted(kinds) == sorted(LOADED.values()) and len(kinds) == len(LOADED)
    assert set(CLUSTER) == {"on", "workers"}


def test_every_harmless_word_is_one_of_those_that_are_known(mine: Path) -> None:
    """Settings that are text and not loaded have closed sets, but for `system`, `name` and `device`."""
    texts = {name for name in HARMLESS if "str" in str(RunSettings.__annotations__[name])}
    assert texts == {"reduce", "system", "equal_budget", "device", "name"}
    for name, value in (
        ("reduce", "./x.py"),
        ("equal_budget", "./x"),
        ("weights", "x"),
        ("metrics", "x"),
        ("answers", "x"),
    ):
        body = SETTINGS.to_json() | {name: value}
        with pytest.raises(ConfigError, match=name):
            stored_settings(SimpleNamespace(id="r", config=body))  # type: ignore[arg-type]
    with Experiment.from_settings(replace(SETTINGS, name="../../x y")).create() as made:
        assert made.path.parent == mine / "mine" / "runs" and "-x-y-" in made.id


@pytest.mark.parametrize("whom", ["theirs", "mine"])
def test_the_cluster_of_a_run_is_never_taken_from_it(mine: Path, monkeypatch: pytest.MonkeyPatch, whom: str) -> None:
    stated = SETTINGS.to_json() | {"on": "ray:192.0.2.2:6379", "workers": 3}
    path = made_by(whom, mine, monkeypatch, stated)
    for trust in (False, True):
        made = Experiment.from_run(path, trust=trust)
        assert (made.where, made.workers) == (None, None)
    given = Experiment.from_run(path, on="ray:192.0.2.2:6379", workers=2)
    assert (given.where, given.workers) == ("ray:192.0.2.2:6379", 2), "the user's own words"
    opened, settings = run.open_or_configure(run.Config(resume=path, on="ray"))
    assert opened is not None and (settings.on, settings.workers) == ("ray", None)
    opened.close()
    parted = made_by(whom, mine, monkeypatch, {"settings": stated, "fork": {}})
    with store.open_run(parted, mine) as part:
        assert fork.base_settings(part) == SETTINGS


def test_a_run_from_elsewhere_opens_no_run_that_it_names(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = made_by("private", mine, monkeypatch, SETTINGS.to_json())
    path = made_by("theirs", mine, monkeypatch, SETTINGS.to_json() | {"replay": private})
    opened: list[str] = []
    open_run = store.open_run
    monkeypatch.setattr(store, "open_run", lambda ref, home: (opened.append(str(ref)), open_run(ref, home))[1])
    for ask in (
        lambda: Experiment.from_run(path),
        lambda: run.open_or_configure(run.Config(resume=path)),
    ):
        with pytest.raises(ConfigError, match=ELSEWHERE.format("replay")):
            ask()
    origin = {"run": private, "trace": "t", "at": 0, "say": None, "seed": None}
    parted = made_by("theirs", mine, monkeypatch, {"settings": SETTINGS.to_json(), "fork": origin})
    with pytest.raises(ConfigError, match=ELSEWHERE.format("parent")):
        fork.main(fork.Config(resume=parted))
    assert private not in opened
    _, settings = run.open_or_configure(run.Config(replay=path))
    assert settings.replay == path, "the run that the user names"
    with store.open_run(path, mine) as theirs:
        assert Experiment.from_run(theirs, replay=path).settings == settings


def test_a_run_from_elsewhere_allows_no_call_that_a_person_here_would_be_asked_about(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("irreversible=allow", "allow", "send_mail=allow", " send_mail = allow "):
        with pytest.raises(ConfigError, match=ELSEWHERE.format("approval")):
            expect_known("f", {"approval": (text,)})
    expect_known(
        "f", {"approval": ("external=ask", "fetch=deny", "ask", "read=allow", "external=allow", "write=allow")}
    )
    path = made_by("theirs", mine, monkeypatch, SETTINGS.to_json() | {"approve": ["allow"]})
    with pytest.raises(ConfigError, match=ELSEWHERE.format("approval")):
        Experiment.from_run(path)
    assert Experiment.from_run(path, approve=("ask",)).settings == replace(SETTINGS, approve=("ask",))
    _, settings = run.open_or_configure(run.Config(replay=path))
    assert settings.approve == ("allow",), "a replay calls nothing outside"


@pytest.mark.parametrize("named", [{"tools": ("./x.py",)}, {"benchmarks": ("arithmetic", "./x.py")}])
def test_a_fork_of_a_run_from_elsewhere_loads_nothing_that_the_run_names(
    mine: Path, monkeypatch: pytest.MonkeyPatch, named: dict[str, tuple[str, ...]]
) -> None:
    (mine / "x.py").write_text("open('loaded', 'w').close()\n")
    settings = replace(SETTINGS, pattern=("direct",), **named)  # type: ignore[arg-type]
    path = made_by("theirs", mine, monkeypatch, settings.to_json())
    made = trace("1", agent="direct", benchmark="arithmetic")
    with store.open_run(path, mine) as theirs, theirs.database.write() as connection:
        insert_trace(connection, replace(made, agent={**made.agent, "model": "scripted:echo"}))
    with pytest.raises(ConfigError, match=ELSEWHERE.format("(tool|benchmark) './x.py',")):
        fork.main(fork.Config(trace=(path, "1"), at=0))
    assert not (mine / "loaded").exists()
