"""The Studio's playground: prompts put to models, attempts continued and made again, and what a stored run may not cause."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting
from firsthand.cli import main
from firsthand.errors import ConfigError
from firsthand.experiment.foreign_settings import expect_installed
from firsthand.model import Sampling
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.studio import playground
from firsthand.studio.access import Access
from firsthand.studio.attempt_replay import replay_of
from firsthand.studio.playground import Playground, PlaygroundTrial, forked
from firsthand.studio.studio_app import create_app
from firsthand.trace import Origin
from studio_page_outline import asked

PORT = 8125
OWN = {"sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("playground")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRSTHAND_HOME", str(folder))
        assert (
            main(
                ["run", "arithmetic", "--model", "scripted:echo", "--pattern", "direct", "--limit", "2", "--seed", "3"]
            )
            == 0
        )
    return folder


@pytest.fixture(scope="module")
def models() -> dict[str, Scripted]:
    return {
        "scripted:echo": Scripted(lambda messages, sampling, index: messages[-1].text, name="scripted:echo"),
        "scripted:four": Scripted(lambda messages, sampling, index: "It is four.", name="scripted:four"),
    }


@pytest.fixture(scope="module")
def client(home: Path, models: dict[str, Scripted]) -> Iterator[TestClient]:
    access = Access()
    access.port = PORT
    agents = {name: Agent(name, model, reply, sampling=Sampling(max_tokens=40)) for name, model in models.items()}
    with TestClient(create_app(home, access, agents), base_url=f"http://127.0.0.1:{PORT}") as made:
        made.cookies.set(access.cookie, access.exchange(access.new_code()) or "")
        yield made


@pytest.fixture
def parent(home: Path) -> tuple[str, str]:
    """Run and place of an attempt at arithmetic."""
    info = next(info for info in store.list_runs(home) if "arithmetic" in info.id and "fork" not in info.id)
    with store.open_run(info.id, home) as run:
        return run.id, next(run.rows()).place


def start(client: TestClient, **fields: Any) -> str:
    """The run of a trial, which has ended."""
    answer = client.post("/playground", data=fields, headers=OWN, follow_redirects=False)
    assert answer.status_code == 303, re.findall('role="alert">([^<]*)', answer.text)
    assert client.portal is not None
    client.portal.call(client.app.state.playground.settled)  # type: ignore[attr-defined]
    return answer.headers["location"].removeprefix("/runs/")


@pytest.mark.slow
def test_a_prompt_is_put_to_each_model_and_makes_a_run(
    client: TestClient, home: Path, models: dict[str, Scripted]
) -> None:
    made = start(
        client, prompt="2 + 2?", model=list(models), system="Be brief.", temperature="0.5", max_tokens="7", seed="3",
        epochs="2",
    )  # fmt: skip
    with store.open_run(made, home) as run:
        traces = list(run.traces())
        assert run.status == "done" and run.config["playground"]["prompt"] == "2 + 2?"
        assert sorted((t.agent_name, t.epoch) for t in traces) == [(name, n) for name in sorted(models) for n in (0, 1)]
        assert {t.answer for t in traces} == {"2 + 2?", "It is four."}
        assert all(t.messages(0)[0].text == "Be brief." and t.benchmark == "playground" for t in traces)
    asked = models["scripted:four"].asked[-1].sampling
    assert asked is not None and (asked.temperature, asked.max_tokens) == (0.5, 7)
    assert "2 + 2?" in client.get("/playground").text and made in client.get("/playground").text


def test_a_task_is_attempted_again_with_another_model_and_scored(
    client: TestClient, home: Path, parent: tuple[str, str]
) -> None:
    run, place = parent
    page = client.get(f"/runs/{run}/attempts/{place}").text
    assert f"/playground?run={run}&amp;attempt={place}" in page
    assert "the attempt" in client.get("/playground", params={"run": run, "attempt": place}).text
    made = start(client, run=run, attempt=place, at="0", model=["scripted:four", "scripted:echo"])
    with store.open_run(made, home) as forks, store.open_run(run, home) as parents:
        first, second = forks.traces()
        old = parents.trace(place)
        assert (first.answer, second.answer) == ("It is four.", old.answer)
        assert first.scores and second.agent_name == old.agent_name and first.agent_name != old.agent_name
        assert [t.origin.trace for t in (first, second) if t.origin] == [old.id] * 2
        assert second.scores == old.scores
    answer = client.get(f"/runs/{made}/attempts/{first.place}").text
    assert f"run_a={run}" in answer
    compared = re.search(r'href="(/compare/attempts[^"]+)"', answer)
    assert compared is not None and client.get(compared[1].replace("&amp;", "&")).status_code == 200


def test_an_attempt_is_continued_with_a_message(client: TestClient, home: Path, parent: tuple[str, str]) -> None:
    run, place = parent
    with store.open_run(run, home) as parents:
        last = len(parents.trace(place).nodes) - 1
    made = start(client, run=run, attempt=place, at=str(last), say="Are you sure?", model="scripted:echo")
    with store.open_run(made, home) as forks:
        (trace,) = forks.traces()
        assert [m.text for m in trace.messages(len(trace.nodes) - 1)][-2:] == ["Are you sure?", "Are you sure?"]


@pytest.mark.slow
def test_an_attempt_of_the_playground_is_continued_too(client: TestClient, home: Path) -> None:
    made = start(client, prompt="hello", model="scripted:echo", system="Be kind.")
    with store.open_run(made, home) as run:
        place = next(run.rows()).place
    again = start(client, run=made, attempt=place, at="1", model="scripted:four")
    with store.open_run(again, home) as forks:
        (trace,) = forks.traces()
        assert trace.answer == "It is four." and trace.messages(0)[0].text == "Be kind."
    origin = f'href="/runs/{made}/attempts/{place}">an attempt of {made}'
    assert origin in client.get(f"/runs/{again}").text and "an attempt of" not in client.get(f"/runs/{made}").text
    assert "1 task<" in client.get(f"/runs/{again}/board").text


def test_a_trial_that_cannot_go_on_says_why(client: TestClient, home: Path, parent: tuple[str, str]) -> None:
    run, place = parent
    made = start(client, run=run, attempt=place, at="0", model="scripted:four", temperature="0.1", max_tokens="1")
    assert client.get(f"/runs/{made}").status_code == 200
    client.app.state.playground.problems[made] = "the <model> is gone"  # type: ignore[attr-defined]
    assert "the &lt;model&gt; is gone" in client.get(f"/runs/{made}").text
    assert "the &lt;model&gt; is gone" in client.get("/playground").text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": "x"}, "no model was chosen"),
        ({"prompt": " ", "model": "scripted:echo"}, "prompt is empty"),
        ({"prompt": "x", "model": "openai:gpt@http://evil.example"}, "was named when"),
        ({"prompt": "x", "model": "scripted:echo", "epochs": "17"}, "epochs is 17"),
        ({"prompt": "x", "model": "scripted:echo", "max_tokens": "0"}, "max_tokens is 0"),
        ({"prompt": "x", "model": "scripted:echo", "max_tokens": "1e9"}, "a whole number"),
        ({"prompt": "x", "model": "scripted:echo", "temperature": "warm"}, "a number was expected"),
        ({"prompt": "x", "model": "scripted:echo", "temperature": "-1"}, "temperature"),
        ({"prompt": "x" * 100_001, "model": "scripted:echo"}, "100,000 characters"),
    ],
)
def test_a_bad_trial_is_one_sentence_and_makes_no_run(
    client: TestClient, home: Path, fields: dict[str, str], says: str
) -> None:
    before = len(store.list_runs(home))
    answer = client.post("/playground", data=fields, headers=OWN)
    assert answer.status_code in (400, 404) and says in answer.text
    assert len(store.list_runs(home)) == before


def test_only_own_pages_start_trials(client: TestClient) -> None:
    data = {"prompt": "x", "model": "scripted:echo"}
    for headers in ({}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert client.post("/playground", data=data, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "named",
    [
        {"benchmark": ("evil.py",)},
        {"benchmark": ("evil.toml",)},
        {"pattern": ("self_consistency(evil.py)",)},
        {"pattern": ("tot:judge=openai:x@http://evil.example",)},
        {"tool": ("mcp:evil",)},
        {"tool": ("files:/home",)},
        {"tool": ("calculator", "/tmp/evil.py:tool")},
        {"guard": ("evil.py",)},
        {"memory": ("semantic:/tmp/x.db",)},
        {"memory": ("notes:path=..",)},
    ],
)
def test_a_stored_run_loads_no_file_server_or_model_by_its_settings(named: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ConfigError, match="continue it in the terminal"):
        expect_installed(named)


def test_what_is_installed_is_made_again() -> None:
    expect_installed(
        {"benchmark": ("arithmetic", "mmlu@cloze"), "pattern": ("self_consistency(react:max_steps=4):samples=16",),
         "tool": ("calculator",), "guard": ("redact:borders=prompt+result",), "memory": ("notes",)}
    )  # fmt: skip


def test_a_fork_asks_nobody_and_allows_no_call_outside(home: Path, parent: tuple[str, str]) -> None:
    run, place = parent
    agent = Agent("scripted:echo", Scripted(["x"], name="scripted:echo"), reply)
    with store.open_run(run, home) as parents:
        made, setting = forked(
            PlaygroundTrial(("scripted:echo",), run=run, attempt=place), agent, parents, parents.trace(place)
        )
    assert made.approval.rules == {"external": "ask"} and made.approval.ask.__name__ == "_nobody"  # type: ignore[attr-defined]
    assert setting.scorers


def replayed(client: TestClient, run: str, place: str) -> str:
    """The page that a replay leads to."""
    answer = client.post(f"/runs/{run}/attempts/{place}/replay", headers=OWN, follow_redirects=False)
    assert answer.status_code == 303, re.findall('role="alert">([^<]*)', answer.text)
    return answer.headers["location"]


def test_an_attempt_is_replayed_without_a_model_and_compared(
    client: TestClient, home: Path, parent: tuple[str, str], models: dict[str, Scripted]
) -> None:
    run, place = parent
    asked = sum(len(model.asked) for model in models.values())
    location = replayed(client, run, place)
    assert location.startswith(f"/compare/attempts?run_a={run}&a={place}&run_b=") and f"&b={place}" in location
    text = client.get(location).text
    assert "1 of 1 steps are the same" in text and "they part" not in text and "<ins>" not in text
    assert sum(len(model.asked) for model in models.values()) == asked
    made = location.split("run_b=")[1].partition("&")[0]
    with store.open_run(made, home) as again, store.open_run(run, home) as parents:
        new, old = again.trace(place), parents.trace(place)
        assert (new.answer, new.scores, new.seed) == (old.answer, old.scores, old.seed) and new.id != old.id
        assert new.error is None and again.config["playground"]["replays"] is True
    assert f'Replays <a href="/runs/{run}/attempts/{place}"' in client.get(f"/runs/{made}").text
    assert f"replays {run}" in client.get("/playground").text


@pytest.mark.slow
def test_a_replay_says_what_was_not_recorded(client: TestClient, home: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRSTHAND_HOME", str(tmp_path))
        assert main(["run", "arithmetic", "--model", "scripted:echo", "--pattern", "direct", "--limit", "1"]) == 0
    copied = home / "runs" / store.list_runs(tmp_path)[0].id
    shutil.copytree(tmp_path / "runs" / copied.name, copied)
    with sqlite3.connect(copied / "run.sqlite") as file:
        file.execute("DELETE FROM effects")
    file.close()
    with store.open_run(copied.name, home) as other:
        place = next(other.rows()).place
    assert "the replay of scripted:echo holds no reply to" in client.get(replayed(client, copied.name, place)).text


def test_what_firsthand_run_did_not_make_is_not_replayed(client: TestClient, home: Path) -> None:
    made = start(client, prompt="hello", model="scripted:echo")
    with store.open_run(made, home) as run:
        place = next(run.rows()).place
    answer = client.post(f"/runs/{made}/attempts/{place}/replay", headers=OWN)
    assert answer.status_code == 400 and "was not made by" in answer.text
    assert client.post(f"/runs/{made}/attempts/{place}/replay", headers={"origin": "https://evil"}).status_code == 403


@pytest.fixture(scope="module")
def original(home: Path) -> tuple[str, str]:
    """Run and place of an attempt of the first run, which `firsthand run` has made."""
    info = [info for info in store.list_runs(home) if "benchmarks" in info.config][-1]
    with store.open_run(info.id, home) as run:
        return run.id, next(run.rows()).place


def test_a_fork_keeps_what_its_parent_had_but_for_what_the_trial_changes(home: Path, original: tuple[str, str]) -> None:
    run, place = original
    echo, four = (Agent(name, Scripted(["x"], name=name), reply, sampling=Sampling(max_tokens=40), system="Own")
                  for name in ("scripted:echo", "scripted:four"))  # fmt: skip
    with store.open_run(run, home) as parents:
        old = parents.trace(place)

        def made(agent: Agent, **fields: Any) -> tuple[Any, ...]:
            found, setting = forked(
                PlaygroundTrial((agent.name,), run=run, attempt=place, **fields), agent, parents, old
            )
            assert found.model is agent.model and setting.name == "arithmetic" and setting.scorers
            sampling = found.sampling
            return found.name, found.to_json()["pattern"], found.system, sampling.temperature, sampling.max_tokens

        own = old.agent["sampling"]["temperature"], old.agent["sampling"]["max_tokens"]
        assert made(echo) == ("direct", "direct", None, *own)
        assert made(four) == ("direct@scripted:four", "direct", None, *own)
        assert made(echo, is_plain=True) == ("reply@scripted:echo", "reply", None, *own)
        assert made(echo, say="And?") == ("reply@scripted:echo", "reply", None, *own)
        assert made(echo, system="Be brief", temperature=0.0, max_tokens=7) == ("direct", "direct", "Be brief", 0.0, 7)
        assert made(echo, system="") == ("direct", "direct", "", *own)
    with store.create(home, {}, "bare") as bare:
        bare.append(old)
        trial = PlaygroundTrial(("scripted:echo",), run=bare.id, attempt=place, temperature=0.25, alternatives=3)
        kept = replace(old, agent={**old.agent, "system": 5}, benchmark="quiz")
        for given, system in ((trial, "5"), (replace(trial, system="New"), "New"), (replace(trial, system=""), "")):
            found, setting = forked(given, echo, bare, kept)
            wanted = replace(echo, system=system, sampling=Sampling(max_tokens=40, temperature=0.25, top_logprobs=3))
            assert (found, setting) == (wanted, NamedSetting("quiz"))
        assert forked(trial, echo, bare, replace(old, agent={"name": "a"}))[0].system is None
        playground = Playground(home, {"scripted:echo": echo})
        for coming in (playground.start(trial, bare), playground.replay(bare, place)):
            with pytest.raises(ConfigError) as told:
                asyncio.run(coming)  # type: ignore[arg-type]
            again = "attempted again" if coming.__name__ == "start" else "replayed"
            assert str(told.value) == f"run {bare.id} does not hold the task of this attempt, so it cannot be {again}"


def test_forks_and_replays_are_runs_that_name_their_parent(home: Path, original: tuple[str, str]) -> None:
    run, place = original
    agents = {name: Agent(name, Scripted(lambda *_, said=said: said, name=name), reply)
              for name, said in (("scripted:one", "It is 1."), ("scripted:two", "It is 2."))}  # fmt: skip
    trial = PlaygroundTrial(
        ("scripted:two", "scripted:one"), run=run, attempt=place, at=1, say="Sure?", seed=5, temperature=0.5
    )

    async def play() -> tuple[str, str, str]:
        made = Playground(home, agents)
        with store.open_run(run, home) as parents:
            forks = await made.start(trial, parents)
            again, where = await made.replay(parents, place)
        await made.settled()
        assert made.problems == {} and made._work == {}
        return forks, again, where

    forks, again, where = asyncio.run(play())
    with store.open_run(run, home) as parents, store.open_run(forks, home) as made, store.open_run(again, home) as copy:
        old = parents.trace(place)
        assert "fork-arithmetic" in forks and made.info.config == {
            "playground": {"models": ["scripted:two", "scripted:one"], "temperature": 0.5, "seed": 5, "epochs": 1,
            "run": run,
                           "attempt": place, "at": 1, "say": "Sure?"},
        }  # fmt: skip
        assert (
            made.info.num_planned == 2
            and made.info.command == ()
            and made.task("arithmetic", old.task_id) == parents.task("arithmetic", old.task_id)
        )
        assert sorted(made.agents()) == ["reply@scripted:one", "reply@scripted:two"]
        traces = [made.trace(row.place) for row in made.rows()]
        assert [
            (each.agent_name, each.answer, each.origin, each.seed, each.epoch, each.nodes[-2].message.text)
            for each in traces
        ] == [
            (f"reply@{name}", said, Origin(old.id, 1, run), 5, old.epoch, "Sure?")
            for name, said in (("scripted:two", "2"), ("scripted:one", "1"))
        ]
        assert all(each.scores[0].name == old.scores[0].name for each in traces)
        assert "replay-arithmetic" in again and copy.info.config == {
            "playground": {"replays": True, "run": run, "attempt": place}
        }
        (new,) = [copy.trace(row.place) for row in copy.rows()]
        assert (new.place, new.agent_name, new.answer, new.seed, new.epoch) == (
            where,
            old.agent_name,
            old.answer,
            old.seed,
            old.epoch,
        )
        found = replay_of(parents, old)
        assert (found.id, found.task, found.epoch, found.agent.name) == (
            where,
            parents.task("arithmetic", old.task_id),
            0,
            "direct",
        )
        with pytest.raises(ConfigError) as told:
            replay_of(made, traces[0])
        assert "was not made by `firsthand run`" in str(told.value)


def test_the_playground_page_shows_what_is_continued_and_what_was_made(
    client: TestClient, home: Path, original: tuple[str, str]
) -> None:
    run, place = original
    made = start(client, prompt="hello there", model="scripted:four", seed="3")
    with store.open_run(run, home) as parents:
        asked_for, task = parents.trace(place).nodes[0].message.text, parents.trace(place).task_id
        count = len(parents.trace(place).nodes)
    names = {run: "RUN", place: "PLACE", made: "MADE"}
    page, status = asked(client, f"/playground?run={run}&attempt={place}&at=0&model=scripted:four", names)
    models = (
        "models {model=scripted:echo} scripted:echo {*model=scripted:four} scripted:four temperature {temperature=} "
    )
    assert status == 200 and page.startswith(
        f"Playground Continue arithmetic / {task}(/runs/RUN/attempts/PLACE) of direct from message "
        "#0. What comes of it "
        f"is a run of its own, which names this attempt as its origin. user #0 {' '.join(asked_for.split())} "
        f"[post /playground "
        "{run=RUN} {attempt=PLACE} {at=0} Say after it {say=} pattern pattern: the attempt's own reply: the "
        "model answers the "
        "conversation as it stands System message {system=} " + models + "new tokens {max_tokens=} seed {seed=} token "
        "alternatives {alternatives=} Run ] Runs made here run status models prompt attempts MADE(/runs/MADE) "
    )
    assert " scripted:four hello there 1" in page
    plain, status = asked(client, "/playground?prompt=Hi%20%22you%22", names)
    assert status == 200 and plain.startswith(
        'Playground [post /playground Prompt {prompt=Hi "you"} System message {system=} models '
        "{*model=scripted:echo} scripted:echo "
        "{model=scripted:four} scripted:four temperature {temperature=} new tokens {max_tokens=} seed {seed=} "
        "token alternatives "
        "{alternatives=} attempts of each {epochs=1} Run ] Runs made here "
    )
    says = f"Problem the attempt has no message {count}: it has {count} All runs(/)"
    assert asked(client, f"/playground?run={run}&attempt={place}&at={count}", names) == (says, 400)
    assert asked(client, f"/playground?run={run}&attempt={place}&at={count - 1}", names)[1] == 200


def test_a_replay_needs_room_and_an_agent_without_memory(
    home: Path, original: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, place = original
    with store.open_run(run, home) as parents:
        old, task = parents.trace(place), parents.task("arithmetic", parents.trace(place).task_id)
        monkeypatch.setattr(playground, "MOST_UNDER_WAY", 0)
        with pytest.raises(ConfigError, match="0 trials are under way: wait for one of them to end"):
            asyncio.run(Playground(home, {}).replay(parents, place))
        assert task is not None
        for changed, says in (
            ({"memory": "notes"}, "the attempt had a memory, which a replay would write to: run it again in a terminal"),
            ({"pattern": ["self_consistency"]}, "the run's settings name no pattern for the agent 'direct': give --pattern"),
        ):  # fmt: skip
            with store.create(home, {**parents.config, **changed}, "other") as other:
                other.add_tasks("arithmetic", [task])
                with pytest.raises(ConfigError) as told:
                    replay_of(other, old)
                assert str(told.value) == says
        found = replay_of(parents, replace(old, epoch=3))
        assert found.epoch == 3 and found.agent.name == old.agent_name and found.benchmark.name == "arithmetic"
        assert [scorer.__name__ for scorer in found.benchmark.scorers] == [score.name for score in old.scores]  # type: ignore[attr-defined]
