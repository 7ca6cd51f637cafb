"""What the flags of `firsthand serve` mean for the engine behind it, in this process and in replicas."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from firsthand.cluster.replicas.replica_worker import open_replica
from firsthand.commands import serve as command
from firsthand.config import parse
from firsthand.errors import ConfigError
from served import serving
from tiny import write_model

HI = {"model": "tiny", "messages": [{"role": "user", "content": "Hi there"}], "max_tokens": 4}


def config_of(*words: str) -> command.Config:
    return parse(command.Config, words, prog="firsthand serve")


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
