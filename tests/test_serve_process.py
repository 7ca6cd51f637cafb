"""`firsthand serve` as a process: started, told to stop under load, killed, over TLS."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from firsthand.cli import main
from served import until
from thorough import THOROUGH, repetitions
from tiny import write_model

BODY = {"messages": [{"role": "user", "content": "one two three four"}], "stream": True}


@contextmanager
def process(*words: str, cwd: Path, port: int = 0, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, once it is ready, and its address."""
    command = [sys.executable, "-m", "firsthand", "serve", *words, "--port", str(port)]
    running = subprocess.Popen(
        command, cwd=cwd, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert " is served at " in line, line + running.stderr.read()  # type: ignore[union-attr]
        yield running, line.split(" is served at ")[1].split("/v1")[0]
    finally:
        running.kill()
        running.wait()


@pytest.mark.slow
def test_told_to_stop_under_load_it_answers_what_it_took_and_ends_with_0(tmp_path: Path) -> None:
    config = tmp_path / "serve.toml"
    config.write_text('model = "scripted:echo"\ndrain-s = 10\nlog = "log.jsonl"\n')
    with process("--config", str(config), cwd=tmp_path) as (running, url):
        cut: list[str] = []
        done = []

        def client() -> None:
            with httpx.Client(timeout=10) as session:
                while True:
                    try:
                        with session.stream("POST", f"{url}/v1/chat/completions", json=BODY) as answer:
                            if answer.status_code == 503:
                                return
                            text = answer.read().decode()
                    except httpx.TransportError as error:
                        if isinstance(error, httpx.RemoteProtocolError) and "incomplete" in str(error):
                            cut.append(str(error))
                        return
                    if not text.endswith("data: [DONE]\n\n"):
                        cut.append(text[-200:])
                    done.append(1)

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: len(done) > 8, 30)
        running.send_signal(signal.SIGTERM)
        assert running.wait(15) == 0
        for thread in threads:
            thread.join()
        assert cut == []
    events = [json.loads(line)["event"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert events[0] == "ready" and "draining" in events and events[-1] == "stopped"
    assert events.count("request") >= len(done)


@pytest.mark.slow
def test_killed_it_leaves_a_log_of_whole_lines_and_starts_again(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for turn in (1, 2):
        with process("scripted:echo", "--log", "log.jsonl", cwd=tmp_path) as (running, url):
            assert httpx.post(f"{url}/v1/chat/completions", json={**BODY, "stream": False}).status_code == 200
            until(partial(lambda wanted: log.read_text().count('"request"') == wanted, turn))
            running.send_signal(signal.SIGKILL)
            assert running.wait(5) == -signal.SIGKILL
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["ready", "request"] * 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_over_tls_with_a_key_from_the_environment(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    key = "a-key-of-the-environment"
    words = ("scripted:echo", "--tls-cert", "cert.pem", "--tls-key", "key.pem", "--log", "none")
    with process(*words, cwd=tmp_path, FIRSTHAND_API_KEY=key) as (_, url):
        assert url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.get(f"{url}/v1/models", verify=trusted, headers=headers).json()["data"][0]["id"] == "scripted:echo"
        assert httpx.get(f"{url}/v1/models", verify=trusted).status_code == 401


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "serve what?"),
        (["scripted:echo", "--host", "0.0.0.0"], "there are no API keys"),
        (["scripted:echo", "--tls-cert", "x.pem"], "needs both a certificate and its private key"),
        (["scripted:echo", "--tls-cert", "x.pem", "--tls-key", "y.pem"], "no file 'x.pem'"),
        (["scripted:echo", "--port", "70000"], "port is 70000"),
        (["scripted:echo", "--keys", "none.toml"], "cannot be read"),
        (["scripted:echo", "--log", "no/such/folder/log"], "cannot be opened"),
        (["scripted:echo", "--max-requests", "0"], "max_requests is 0"),
        (["scripted:echo", "--host", "no.such.host.invalid", "--keys", "keys.toml"], "cannot be opened"),
        (["scripted:ehco"], "names no script"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.toml").write_text('[a]\nkey = "long-enough-0123456789"\n')
    assert main(["serve", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_the_command_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "lie.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    command = [sys.executable, "-m", "firsthand", "serve", "lie.gguf", "--port", "0", "--log", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "the model could not be served" in done.stderr and "lie.gguf" in done.stderr


@pytest.mark.slow
def test_hundreds_of_streams_are_open_at_once_and_all_end(tmp_path: Path) -> None:
    import asyncio

    async def load(url: str) -> list[bool]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=120) as client:

            async def one() -> bool:
                async with client.stream("POST", f"{url}/v1/chat/completions", json=BODY) as answer:
                    return (await answer.aread()).endswith(b"data: [DONE]\n\n")

            return await asyncio.gather(*(one() for _ in range(repetitions(1000, 300))))

    with process("scripted:echo", "--log", "none", cwd=tmp_path) as (_, url):
        assert all(asyncio.run(load(url)))


@pytest.mark.slow
def test_schemathesis_finds_no_answer_that_the_description_does_not_tell_of(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    write_model(tmp_path / "m", max_position=1024)
    with process("m", "--max-tokens", "64", "--log", "log.jsonl", cwd=tmp_path) as (_, url):
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json",
            "--max-examples", str(repetitions(10, 2)), "--seed", "1",
            "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            "--exclude-path", "/v1/embeddings",
        ]  # fmt: skip
        # the thousands of systematic cases of the longest descriptions are for one of them in CI, the drawn ones for all
        others = [f"--exclude-path=/v1/{name}" for name in ("completions", "messages", "responses")]
        in_ci = (["--phases", "examples,fuzzing,stateful"], ["--phases", "coverage", *others])
        for words in ([],) if THOROUGH else in_ci:
            done = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True, timeout=1500)
            assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert not [line for line in lines if "traceback" in line]


def test_a_model_whose_memory_is_not_there_ends_the_command_with_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    folder = write_model(tmp_path / "m")
    assert main(["serve", str(folder), "--port", "0", "--kv-memory-mb", "90000000", "--log", str(log)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "kv_memory_bytes is 90,000,000,000,000 and " in said.err
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["event"] for event in events] == ["failed", "stopped"]
    assert "bytes of memory are free" in events[0]["error"] and "traceback" not in events[0]
