"""`firsthand serve --replicas` on Ray: replicas and heads killed under load, and all that one server offers through two."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import test_serve_local
from adapters_tiny import adapter, write
from firsthand.cli import main
from firsthand.cluster.replicas.fleet import Fleet
from firsthand.cluster.replicas.ray_replicas import open_ray
from firsthand.cluster.replicas.replicated_model import ReplicatedModel
from firsthand.errors import ModelFileError
from firsthand.nn import weights
from served import Running, serving, until
from test_serve_local import (  # noqa: F401 - collected here again, for two replicas
    test_a_bias_forbids_and_demands_tokens,
    test_a_model_of_ours_is_served_with_logprobs_and_the_same_tokens_streamed,
    test_a_second_turn_finds_the_first_in_memory,
    test_a_seed_gives_the_same_answer_and_n_different_ones,
    test_a_stream_of_several_prompts_keeps_them_apart,
    test_answers_end_at_given_tokens_and_strings_and_go_on_past_the_models_end,
    test_answers_have_the_form_that_was_asked_for,
    test_completions_take_texts_and_ids_and_several_of_both,
    test_one_prompt_of_several_that_cannot_be_answered_is_a_refusal,
    test_prompt_logprobs_are_vllms,
    test_requests_beyond_the_engines_room_wait_and_all_are_answered,
    test_the_metrics_tell_what_happened,
    test_the_next_turn_computes_its_new_tokens_and_nothing_else,
    test_tokens_and_texts_are_turned_into_each_other,
    test_tool_choice_makes_the_model_call,
)
from test_serve_process import process
from tiny import write_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("replicas") / "m", max_position=2048)


@pytest.fixture(scope="module")
def local(folder: Path) -> Iterator[Running]:
    """Two replicas behind one server, on a Ray of this machine alone."""
    pytest.importorskip("ray")
    settings = {
        "model": str(folder),
        "embedder": None,
        "engine": {"kv_memory_bytes": 1 << 23, "threads": 1},
    }
    fleet = Fleet(open_ray(settings, 2, address="local", cpus=None, gpus=0), 2)
    with serving(ReplicatedModel(fleet, "tiny"), name="tiny") as running:
        yield running


def test_both_replicas_answer_and_the_sums_are_their_sums(local: Running) -> None:
    for number in range(6):
        test_serve_local.ask(local, [{"role": "user", "content": f"{number} is no other number"}], max_tokens=3)
    assert [each["state"] for each in httpx.get(f"{local.url}/health").json()["replicas"]] == ["ready", "ready"]
    values = numbers(local.url)
    for name in ("requests_total", "decode_tokens_total", "num_blocks"):
        parts = [values[f'firsthand_replica_engine_{name}{{replica="{i}"}}'] for i in (0, 1)]
        assert min(parts) > 0 and sum(parts) == values[f"firsthand_engine_{name}"]


def test_a_client_that_leaves_ends_its_answer_in_the_replica(local: Running) -> None:
    body = {"prompt": ["The answer"] * 8, "max_tokens": 1900, "n": 8, "ignore_eos": True, "stream": True}
    with httpx.Client(timeout=10) as session:
        answer = session.send(session.build_request("POST", f"{local.url}/v1/completions", json=body), stream=True)
        assert next(answer.iter_lines()).startswith("data: ")
        answer.close()
    until(lambda: numbers(local.url)["firsthand_engine_running"] == 0, 20)
    until(lambda: local.admission.in_flight == 0, 20)


def test_an_adapter_is_loaded_into_every_replica_or_none(local: Running, folder: Path, tmp_path: Path) -> None:
    model: Any = local.models.model
    tiny = weights.load(folder)
    red = write(tmp_path / "red", tiny, adapter(tiny, 1, rank=4))

    def change(work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, local.loop).result(60)

    def say(name: str) -> set[str]:
        body = {"model": name, "prompt": "What is", "max_tokens": 9, "temperature": 1.0, "seed": 4}
        asked = [httpx.post(f"{local.url}/v1/completions", json=body, timeout=60).json() for _ in range(4)]
        return {answer["choices"][0]["text"] for answer in asked}

    change(model.load_adapter("red", red))
    assert len(say("red")) == 1 and say("red") != say("tiny")
    (red / "adapter_model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelFileError):
        change(model.load_adapter("red", red, replace=True))
    assert len(say("red")) == 1 and say("red") != say("tiny")
    change(model.unload_adapter("red"))


def test_the_ray_that_was_started_here_lets_nobody_else_in(local: Running) -> None:
    import ray

    code = f"import ray; ray.init(address={ray.get_runtime_context().gcs_address!r}); print('came in')"
    stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run([sys.executable, "-c", code], env=stranger, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0 and "came in" not in done.stdout


# -- the command --

WORDS = ("m", "--replicas", "2", "--threads", "1", "--kv-memory-mb", "8", "--log", "log.jsonl")
TOKENS = 1000
"""Of an answer that something happens in the middle of."""


def numbers(url: str) -> dict[str, float]:
    lines = [line for line in httpx.get(f"{url}/metrics", timeout=30).text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def answers(url: str) -> list[float]:
    """How many each replica has under way."""
    values = numbers(url)
    return [values[f'firsthand_replica_answers{{replica="{number}"}}'] for number in (0, 1)]


def streamed(url: str, number: int, max_tokens: int) -> tuple[list[int], list[float], str]:
    """The tokens of a streamed answer, their log-probs, and the last line."""
    body = {"messages": [{"role": "user", "content": f"Question {number}"}], "stream": True, "max_tokens": max_tokens}
    body |= {"temperature": 1.0, "seed": number, "ignore_eos": True, "return_token_ids": True, "logprobs": True}
    ids: list[int] = []
    logprobs: list[float] = []
    last = ""
    with (
        httpx.Client(timeout=200) as session,
        session.stream("POST", f"{url}/v1/chat/completions", json=body) as answer,
    ):
        for line in answer.iter_lines():
            last = line or last
            if line.startswith("data: {"):
                choice = json.loads(line[6:])["choices"][0]
                ids += choice.get("token_ids", [])
                logprobs += [token["logprob"] for token in (choice.get("logprobs") or {}).get("content", [])]
    return ids, logprobs, last


def together(url: str, count: int, max_tokens: int, act: Any) -> list[Any]:
    """So many streams at once, and what is done in their middle."""
    found: list[Any] = [None] * count

    def one(number: int) -> None:
        found[number] = streamed(url, number, max_tokens)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    act()
    for thread in threads:
        thread.join()
    return found


def actors(log: Path) -> list[int]:
    """The processes of the replicas, as the log tells."""
    return [int(pid) for pid in re.findall(r'"replica_ready".*process (\d+)"', log.read_text())]


def is_there(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    with suppress(OSError):
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found, new = [], [pid]
    while new:
        new = [child for parent in new for child in parents.get(parent, [])]
        found += new
    return found


def test_a_replica_killed_under_load_costs_no_answer_and_SIGTERM_ends_all(tmp_path: Path) -> None:  # noqa: N802
    pytest.importorskip("ray")
    write_model(tmp_path / "m", max_position=2048)
    log = tmp_path / "log.jsonl"
    with process(*WORDS, cwd=tmp_path) as (running, url):
        assert len(set(actors(log))) == 2
        expected = [streamed(url, number, TOKENS) for number in range(6)]
        assert all(len(ids) == len(logprobs) == TOKENS for ids, logprobs, _ in expected)

        def lose_one() -> None:
            until(lambda: min(answers(url)) >= 1 and sum(answers(url)) >= 4, 60)
            os.kill(actors(log)[0], signal.SIGKILL)

        assert together(url, 6, TOKENS, lose_one) == expected, "to the bit, those in mid-stream too"
        events = [json.loads(line) for line in log.read_text().splitlines()]
        told = [event["event"] for event in events if event["event"] in ("replica_lost", "job_moved")]
        assert told[:2] == ["replica_lost", "job_moved"] and 1 <= told.count("job_moved") <= 5
        until(lambda: sum(each["restarts"] for each in httpx.get(f"{url}/health").json()["replicas"]) == 1, 30)
        until(lambda: len(actors(log)) == 3, 200)
        values = numbers(url)
        assert values['firsthand_replica_ready{replica="0"}'] == values['firsthand_replica_ready{replica="1"}'] == 1
        assert values['firsthand_requests_total{route="/v1/chat/completions",code="200"}'] == 12
        children = descendants(running.pid)
        assert set(actors(log)[1:]) <= set(children)

        def stop() -> None:
            until(lambda: numbers(url)["firsthand_requests_in_flight"] == 6, 60)
            running.send_signal(signal.SIGTERM)

        assert together(url, 6, TOKENS, stop) == expected, "what was accepted is answered"
        assert running.wait(60) == 0
        until(lambda: not any(map(is_there, children)), 30)
    assert "Traceback" not in (running.stderr.read() if running.stderr else "")


def test_a_head_that_is_killed_leaves_no_replica_behind(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    write_model(tmp_path / "m", max_position=2048)
    with process(*WORDS, cwd=tmp_path) as (running, url):
        replicas = actors(tmp_path / "log.jsonl")

        def kill() -> None:
            until(lambda: numbers(url)["firsthand_engine_running"] > 0, 60)
            running.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(httpx.TransportError):  # no answer that ends as if it were whole
            streamed(url, 1, 1800)
        killer.join()
        assert running.wait(10) == -signal.SIGKILL
        until(lambda: not any(map(is_there, replicas)), 60)


def test_a_cluster_that_is_there_is_joined_and_left_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    write_model(tmp_path / "m", max_position=2048)
    code = (
        "import sys\n"
        "from ray.cluster_utils import Cluster\n"
        "store = 80 << 20\n"
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 0, 'object_store_memory': store})\n"
        "for _ in range(2): cluster.add_node(num_cpus=1, object_store_memory=store)\n"
        "print(cluster.address, flush=True)\n"
        "sys.stdin.read()\n"
        "cluster.shutdown()\n"
    )
    there = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert there.stdout is not None
        address = next(line.strip() for line in there.stdout if re.fullmatch(r"[\d.]+:\d+\n", line))
        with process(*WORDS, "--address", address, cwd=tmp_path) as (running, url):
            assert len(streamed(url, 1, 20)[0]) == 20
            replicas = actors(tmp_path / "log.jsonl")
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == 0
        until(lambda: not any(map(is_there, replicas)), 30)
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), 5).close()
    finally:
        there.communicate("")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["m", "--address", "10.0.0.1:6379"], "address is for replicas"),
        (["m", "--replica-cpus", "2"], "replica_cpus is for replicas"),
        (["m", "--replicas", "0"], "replicas is 0"),
        (["m", "--replicas", "2", "--replica-gpus", "-1"], "replica_gpus is -1"),
        (["m", "--replicas", "2", "--address", "nowhere"], "no address of a Ray cluster"),
        (["m", "--replicas", "2", "--address", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
    ],
)
def test_settings_of_replicas_that_clash_are_one_sentence(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["serve", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_model_that_does_not_run_here_has_no_replicas(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = [
        sys.executable,
        "-m",
        "firsthand",
        "serve",
        "scripted:echo",
        "--replicas",
        "1",
        "--port",
        "0",
        "--log",
        "none",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1 and "scripted:echo does not run here" in done.stderr
