"""What clients are told a model is called: never where it lies."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from firsthand.commands.serve import public_name
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.providers.local import Local
from served import serving


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("smollm2", "smollm2"),
        ("/home/me/models/m.gguf", "m.gguf"),
        ("../m.gguf", "m.gguf"),
        ("./some folder/model/", "model"),
        ("C:\\models\\m.gguf", "m.gguf"),
        ("C:\\some folder\\model\\", "model"),
        ("\\\\host\\share\\model\\\\", "model"),
        ("C:\\models/model\\/", "model"),
        ("C:/models\\model/\\", "model"),
        ("/m/model//", "model"),
        ("/m/base+lora:/secret/ad/", "base+lora:ad"),
        ("C:\\m\\base\\+lora:C:\\secret\\ad\\", "base+lora:ad"),
        ("C:\\m\\base.gguf+steer:C:\\s\\v.safetensors+monitor:D:\\t\\w\\", "base.gguf+steer:v.safetensors+monitor:w"),
        ("/m/base+adapter:x/one+lora:y\\two", "base+adapter:one+lora:two"),
        ("/m/a+b/base", "base"),
        ("openai:llama3", "llama3"),
        ("google:gemini-x@http://a@b", "gemini-x"),
        ("hf:ORG/NAME\\", "hf:ORG/NAME\\"),
        ("openai:llama3@http://user:pass@10.0.0.1:8000/v1", "llama3"),
        ("openai:org/model@http://x", "org/model"),
        ("ollama:llama3.2:3b@http://10.0.0.1:11434/x", "llama3.2:3b"),
        ("anthropic:claude-x@https://proxy/v", "claude-x"),
        ("google:gemini-x", "gemini-x"),
        ("hf:ORG/NAME", "hf:ORG/NAME"),
        ("scripted:echo", "scripted:echo"),
        ("scripted:/tmp/x/replies.json", "replies.json"),
        ("/m/base.gguf+lora:/secret/ad", "base.gguf+lora:ad"),
        ("smollm2+adapter:ads/sql", "smollm2+adapter:sql"),
    ],
)
def test_a_path_is_told_by_its_last_part(given: str, told: str) -> None:
    assert public_name(given) == told


@pytest.mark.parametrize("folder", ["plain", "with blanks in it"])
def test_a_model_that_cannot_be_loaded_does_not_tell_where_it_was_looked_for(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    broken = tmp_path / folder / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\xff" * 100)
    log = tmp_path / "log"
    with serving(Local(broken, config=EngineConfig(threads=1)), name="m", log=log) as running:
        told = httpx.post(f"{running.url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]})
        assert told.status_code == 503 and "broken.gguf" in told.text
        assert folder not in told.text and str(tmp_path) not in told.text
    assert str(broken) in log.read_text()
