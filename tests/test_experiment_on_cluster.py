"""An experiment on a cluster: what is refused before it, what its workers are made from, and what the run then holds."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collector import collecting, values
from firsthand import Agent, Experiment
from firsthand.cluster.spread.ray_workers import LOCAL_STORE_BYTES, STAYS_HERE, WorkerSpec
from firsthand.errors import ConfigError, MissingExtra
from firsthand.experiment.on_cluster import build_worker, check_cluster, worker_spec
from firsthand.experiment.settings import RunSettings
from firsthand.loop.approval import Approval
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.tool import tool
from ray_in_process import ray_in_process

MINE = """
import asyncio
from pathlib import Path

async def mine(task, ctx):
    await asyncio.sleep(0.002)
    if Path("broken").exists():
        raise ValueError("down")
    return "7"
"""
TOGETHER = """
import asyncio
from pathlib import Path

async def together(task, ctx):
    log = Path("log.txt")
    with log.open("a") as file:
        file.write("+")
    for _ in range(1000):
        if log.read_text().count("+") >= 3:
            break
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)  # for a fourth one, if there is any
    with log.open("a") as file:
        file.write("-")
    return "7"
"""
NAMED = RunSettings(
    ("arithmetic:levels=1:tasks=3",), ("scripted:echo",), pattern=("mine.py",), tools=("none",), on="ray", seed=5,
    concurrency=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


@pytest.fixture
def address() -> Iterator[str]:
    """Where something listens, as the head of a cluster does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@tool(effect="external")
def send(text: str) -> str:
    """Send."""
    return text


def test_a_cluster_is_refused_if_nobody_answers_a_person_is_asked_or_a_model_lies_in_this_folder(
    folder: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray_in_process(monkeypatch)
    free = socket.create_server(("127.0.0.1", 0))
    nobody = f"127.0.0.1:{free.getsockname()[1]}"
    free.close()
    settings = replace(NAMED, on=f"ray:{address}")
    quiet = Agent("a", Scripted(["x"]), direct, {}, (send,))
    asks = replace(quiet, name="b", approval=Approval({"send": "ask"}))
    (folder / "here.gguf").touch()
    local = "the model 'here.gguf' lies in this folder, and model files do not travel: give its absolute path, "
    for given, agents, said in (
        (replace(settings, on=f"ray:{nobody}"), [quiet], f"no Ray cluster answers at {nobody} (Connection refused): see "
         "`ray status`, or start one with `ray start --head`"),
        (settings, [quiet, asks], "a tool asks before it is called, and on a cluster nobody can be asked: allow or deny it, "
         "as in --approve irreversible=deny"),
        (replace(settings, model=("scripted:echo", "here.gguf")), [quiet],
         f"{local}{str(folder / 'here.gguf')!r}, under which each machine of the cluster has a copy"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            check_cluster(given, agents)
        assert str(refused.value) == said
    fine = ("scripted:echo", str(folder / "here.gguf"), "nowhere.gguf")
    check_cluster(replace(settings, model=fine), [quiet])
    (folder / "openai:x").touch()  # a name of a provider's, whatever lies here
    check_cluster(replace(settings, model=("openai:x",)), [quiet])


def test_workers_are_made_from_the_settings_and_must_have_the_agents_and_benchmarks_of_the_places() -> None:
    settings = replace(NAMED, benchmarks=(*NAMED.benchmarks, "game24"), pattern=("direct", "cot"))
    places = Experiment.from_settings(settings).places()
    spec = worker_spec(replace(settings, workers=3, epochs=2), places)
    assert spec == WorkerSpec(build_worker, replace(settings, workers=3, epochs=2).to_json(), spec.expected, 3, False)
    assert spec.expected == build_worker(settings.to_json()).about()
    assert set(spec.expected["agents"]) == {"direct", "cot"} and set(spec.expected["benchmarks"]) == {
        "arithmetic",
        "game24",
    }
    one = [place for place in places if place.benchmark.name == "game24" and place.agent.name == "cot"]
    found = worker_spec(replace(settings, model=("scripted:echo", "smollm2")), one)
    assert (found.count, found.gpus) == (None, True), "a GPU is of use if one of the models runs in the worker"
    assert set(found.expected["agents"]) == {"cot"} and set(found.expected["benchmarks"]) == {"game24"}


def test_a_run_on_a_cluster_holds_the_attempts_of_its_workers(
    folder: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", "home")  # in this folder, and not sent with it
    actors = ray_in_process(monkeypatch, [("a", 4, 2), ("b", 2, 0)])
    experiment = Experiment.from_settings(replace(NAMED, on=f"ray:{address}", workers=2))
    assert (experiment.where, experiment.workers) == (f"ray:{address}", 2)
    told: list[str] = []
    (folder / "broken").touch()
    asyncio.run(experiment.make_ready())  # loads nothing here
    with experiment.run(on_trace=lambda trace: told.append(trace.place)) as run:
        assert sorted(told) == sorted(place.id for place in experiment.places()) and len(told) == 3
        assert [(each.seed, each.error and each.error.message) for each in run.traces()] == [(5, "down")] * 3
        assert run.config["on"] == f"ray:{address}" and run.config["workers"] == 2 and run.status == "done"
        (folder / "broken").unlink()
        experiment.resume(run)
        assert all(trace.error for trace in run.traces()), "errors are attempted again only when asked"
        experiment.resume(run, redo_errors=True)
        assert [(trace.seed, trace.answer, trace.error) for trace in run.traces()] == [(5, "7", None)] * 3
    kept = {"working_dir": str(folder), "excludes": [*STAYS_HERE, "/home"]}
    assert actors.inits[0] == {
        "address": address, "log_to_driver": False, "logging_level": logging.ERROR, "runtime_env": kept,
    }  # fmt: skip
    assert [(each["num_cpus"], each["num_gpus"]) for each in actors.options[:2]] == [(4, 0), (2, 0)]
    assert actors.shutdowns == len(actors.inits) == 3


@pytest.mark.slow
def test_each_worker_makes_at_most_so_many_attempts_at_once(
    folder: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    actors = ray_in_process(monkeypatch)
    (folder / "together.py").write_text(TOGETHER)
    many = replace(NAMED, benchmarks=("arithmetic:levels=1:tasks=5",), concurrency=3)
    made = Experiment.from_settings(replace(many, pattern=(str(folder / "together.py"),), on=f"ray:{address}"))
    made.run().close()
    running = most = 0
    for sign in (folder / "log.txt").read_text():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert most == 3 and "runtime_env" not in actors.inits[0], "nothing that is named lies in this folder"


def test_a_lost_worker_is_told_and_another_goes_on(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ray_in_process(monkeypatch, [("a", 1, 0), ("b", 1, 0)], dying=["a"])
    experiment = Experiment.from_settings(replace(NAMED, on=f"ray:{address}", concurrency=1))
    notices: list[str] = []
    with experiment.run(on_notice=notices.append) as run:
        assert [trace.answer for trace in run.traces()] == ["7"] * 3
    assert notices == ["the worker on host-a (a) was lost (its process ended): its 1 attempt goes to others"]


def test_without_an_address_the_cluster_of_this_machine_is_used_or_one_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    actors = ray_in_process(monkeypatch)
    ready = actors.init

    def none_runs(**given: Any) -> None:
        ready(**given)
        if given["address"] == "auto":
            raise ConnectionError

    monkeypatch.setattr("ray.init", none_runs)
    Experiment.from_settings(replace(NAMED, pattern=("direct",))).run().close()
    plain = {"log_to_driver": False, "logging_level": logging.ERROR}
    assert actors.inits == [
        {"address": "auto", **plain},
        {"address": "local", "object_store_memory": LOCAL_STORE_BYTES, "include_dashboard": False, **plain},
    ]


def test_no_run_is_made_for_a_cluster_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra):
        Experiment.from_settings(NAMED).create()
    assert not (folder / "home" / "runs").exists()


def test_the_cluster_that_is_looked_for_is_the_experiments_own(
    folder: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    actors = ray_in_process(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    named_nobody = Experiment.from_settings(replace(NAMED, on=f"ray:{nobody}"))
    moved = replace(named_nobody, where=f"ray:{address}")
    moved.create().close()
    with moved.run() as run:
        assert run.config["on"] == f"ray:{address}" and [trace.answer for trace in run.traces()] == ["7"] * 3
    assert [each["address"] for each in actors.inits] == [address]
    made = len(list((folder / "home" / "runs").glob("*/run.sqlite")))
    lost = replace(Experiment.from_settings(replace(NAMED, on=f"ray:{address}")), where=f"ray:{nobody}")
    for call in (lost.create, lost.run):
        with pytest.raises(ConfigError, match=f"^no Ray cluster answers at {nobody} "):
            call()
    assert len(list((folder / "home" / "runs").glob("*/run.sqlite"))) == made == 2


def test_on_a_cluster_the_attempts_are_sent_to_the_collector_and_told_once_each(
    folder: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray_in_process(monkeypatch)
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)
    told: list[str] = []
    notices: list[str] = []
    experiment = Experiment.from_settings(replace(NAMED, on=f"ray:{address}"))
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with experiment.run(
            otel=True, on_trace=lambda trace: told.append(trace.task_id), on_notice=notices.append
        ) as run:
            assert run.status == "done"
            sent = [values(each.attributes) for each in collector.spans]  # all are sent before the run ends
            assert {each["firsthand.run"] for each in sent} == {run.id}
            tasks = sorted(trace.task_id for trace in run.traces())
    assert sorted(each["firsthand.task"] for each in sent) == tasks == sorted(told) and len(tasks) == 3
    assert notices == []
