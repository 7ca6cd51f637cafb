"""`firsthand serve`: the keys that an address needs, and the name that clients give for what is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from firsthand.commands import serve
from firsthand.config import parse
from firsthand.errors import ConfigError, FirsthandError
from firsthand.serve.http.listen_address import ListenAddress
from firsthand.serve.models import served_models
from firsthand.serve.openai.openai_settings import OpenAISettings

KEY = "k" * 32


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FIRSTHAND_API_KEY", raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(**given: Any) -> str:
    with pytest.raises(FirsthandError) as found:
        serve.main(serve.Config(**given))
    return str(found.value)


def test_an_address_that_others_reach_needs_a_key_of_a_file_or_of_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = ListenAddress(host="0.0.0.0", port=0)
    keys = folder / "keys.toml"
    keys.write_text(f'[ada]\nkey = "{KEY}"\n')
    bare = "host is '0.0.0.0', which others can reach, and there are no API keys"
    assert refused(model="scripted:no.json", listen=wide).startswith(bare)
    later = refused(model="scripted:no.json")
    assert "no.json" in later and "API keys" not in later, "this machine alone needs none"
    assert refused(model="scripted:no.json", listen=wide, keys=keys) == later
    rooted = OpenAISettings(adapter_root=folder)
    assert "no key may load adapters" in refused(model="scripted:no.json", listen=wide, keys=keys, openai=rooted)
    monkeypatch.setenv("FIRSTHAND_API_KEY", KEY[:-1] + "x")
    assert refused(model="scripted:no.json", listen=wide) == later
    assert refused(model="scripted:no.json", listen=wide, keys=keys, openai=rooted) == later, "the operator may"
    monkeypatch.setenv("FIRSTHAND_API_KEY", KEY)
    assert refused(model="scripted:no.json", keys=keys) == "two clients have the same API key: give each its own"


@pytest.mark.parametrize(
    "words",
    [
        ("--private-caches",), ("--kv-cache", "int8"), ("--kv-memory-mb", "10"), ("--speculation",), ("--threads", "2"),
        ("--max-sequences", "2"), ("--max-adapters", "3"), ("--kv-cache", "auto"),
    ],
)  # fmt: skip
def test_flags_of_the_engine_are_refused_for_what_does_not_run_here(words: tuple[str, ...]) -> None:
    def said(*served: str) -> str:
        config = parse(serve.Config, [*served, *words], prog="serve")
        with pytest.raises(ConfigError) as found:
            serve.refuse_unused(config)
            serve.open_here(config)
        return str(found.value)

    assert said("scripted:echo") == f"{words[0]}: it is for a model that runs here, and scripted:echo does not"
    assert said("--agent", "a.toml") == f"{words[0]}: it is for a model: an agent's file says how its own is loaded"
    assert said("--embedder", "minilm") == f"{words[0]}: it is for a model, and an embedder alone is served"


def test_a_given_name_is_kept_whole_and_others_are_shown_without_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[Any] = []

    def opened(model: Any, embedder: Any, *, name: str) -> Any:
        named.append((model, embedder, name))
        raise ConfigError("enough")

    monkeypatch.setattr(served_models, "ServedModels", opened)
    for way in ("open_here", "open_replicas"):
        monkeypatch.setattr(serve, way, lambda config, way=way: (way, config.embedder))
    several = serve.ReplicaSettings(2)
    for given in ({"model": "a/m.gguf", "name": "org/model"}, {"model": "a/m.gguf"}, {"embedder": "b/e"},
                  {"model": "a/m.gguf", "embedder": "b/e", "replication": several}):  # fmt: skip
        assert refused(**given) == "enough"
    assert named == [
        ("open_here", None, "org/model"), ("open_here", None, "m.gguf"), ("open_here", "b/e", "e"),
        ("open_replicas", "b/e", "m.gguf"),
    ]  # fmt: skip


def test_an_adapter_root_is_a_folder_that_is_there_and_counts_are_not_below_0(folder: Path) -> None:
    (folder / "file").write_text("x")
    (folder / "sub").mkdir()
    (folder / "link").symlink_to("sub")
    (folder / "gone").symlink_to("nowhere")
    for name in ("file", "none", "gone", "file/sub"):
        with pytest.raises(ConfigError) as told:
            OpenAISettings(adapter_root=folder / name)
        assert str(told.value) == f"adapter_root is {str(folder / name)!r}: give a folder that is there"
    for name in ("sub", "link"):
        assert OpenAISettings(adapter_root=folder / name).adapter_root == folder / name
    for field in ("stored_responses", "stored_bytes"):
        with pytest.raises(ConfigError) as told:
            OpenAISettings(**{field: -1})  # type: ignore[arg-type]
        assert str(told.value) == f"{field} is -1: give 0 or more"
        OpenAISettings(**{field: 0})  # type: ignore[arg-type]
    made = OpenAISettings()
    assert (made.stored_responses, made.stored_bytes, made.private_caches, made.adapter_root) == (
        1024,
        64 << 20,
        False,
        None,
    )
