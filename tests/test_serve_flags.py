"""What the flags of `firsthand serve` mean for the engine behind it, in this process and in replicas."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from firsthand.cluster.replicas.replica_settings import ReplicaSettings
from firsthand.cluster.replicas.replica_worker import open_replica
from firsthand.commands import serve as command
from firsthand.config import field_docs, make_parser, parse
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError
from firsthand.serve.a2a.a2a_settings import A2ASettings
from firsthand.serve.admission.admission_settings import AdmissionSettings, ClientLimits
from firsthand.serve.agents.session_settings import SessionSettings
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.openai.openai_settings import OpenAISettings
from firsthand.serve.telemetry.telemetry_settings import TelemetrySettings
from served import serving
from tiny import write_model

HI = {"model": "tiny", "messages": [{"role": "user", "content": "Hi there"}], "max_tokens": 4}


def config_of(*words: str) -> command.Config:
    return parse(command.Config, words, prog="firsthand serve")


@pytest.mark.slow
def test_keys_and_values_are_kept_as_the_flag_says_here_and_in_a_replica(tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "m"))
    config = config_of(folder, "--kv-cache", "int8", "--kv-memory-mb", "8", "--threads", "1")
    model: Any = command.open_model(config, folder)
    with serving(model, name="tiny") as running:
        answer = httpx.post(f"{running.url}/v1/chat/completions", json=HI)
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] > 0
        assert all(pages.is_scaled for pages in model._loaded.worker.engine.runner.pages)
    model.close()
    engine = command.engine_settings(config)
    replica: Any = open_replica({"model": folder, "embedder": None, "engine": engine, "neighbours": 2})
    assert (replica.model.config.kv_cache, replica.model.config.kv_memory_bytes) == ("int8", 8_000_000)


def test_memory_that_cannot_be_and_unknown_ways_to_keep_it_are_refused(tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "m"))
    with pytest.raises(ConfigError, match=r"int4.*auto.*float32.*float16.*int8"):
        config_of(folder, "--kv-cache", "int4")
    for megabytes in ("-1", "0"):
        with pytest.raises(ConfigError, match=r"kv_memory_bytes is .*: give None or above 0"):
            command.open_model(config_of(folder, "--kv-memory-mb", megabytes), folder)


def test_every_setting_of_the_server_is_a_flag_with_the_default_of_its_dataclass() -> None:
    config = config_of("m")
    parts = {
        A2ASettings, AdmissionSettings, ClientLimits, ListenAddress, OpenAISettings, ReplicaSettings, SessionSettings,
        TelemetrySettings,
    }  # fmt: skip
    held = [getattr(config, each.name) for each in fields(config)]
    assert {type(part) for part in held if is_dataclass(part)} == parts
    assert all(part == type(part)() for part in held if is_dataclass(part))
    help = " ".join(make_parser(command.Config, prog="firsthand serve").format_help().split())
    for part in parts:
        for name, doc in field_docs(part).items():
            assert f"--{name.replace('_', '-')} " in help and " ".join(doc.split()[:4]) in help, name
    assert (config.max_sequences, config.kv_cache, config.max_adapters) == (
        EngineConfig.max_sequences, EngineConfig.kv_cache, EngineConfig.max_adapters
    )  # fmt: skip


@pytest.mark.slow
def test_flags_reach_the_settings_that_they_are_of(tmp_path: Path) -> None:
    config = config_of(
        "m", "--port", "0", "--drain-s", "2", "--max-tokens", "9", "--tokens-per-minute", "60", "--log", "none"
    )
    assert (config.listen.port, config.admission.drain_s) == (0, 2.0)
    assert (config.limits.max_tokens, config.limits.tokens_per_minute, config.telemetry.log) == (9, 60, "none")
    file = tmp_path / "serve.toml"
    file.write_text('model = "m"\nallow_host = ["a.example"]\nstored_responses = 2\nreplicas = 3\nreplica-cpus = 1.5\n')
    config = config_of("--config", str(file))
    assert config.admission.allow_host == ("a.example",) and config.openai.stored_responses == 2
    assert (config.replication.replicas, config.replication.replica_cpus) == (3, 1.5)
    for words in (("--replica-gpus", "1"), ("--replicas", "0"), ("--port", "65536"), ("--stall-s", "0")):
        with pytest.raises(ConfigError, match=words[0][2:].replace("-", "_")):
            config_of("m", *words)
