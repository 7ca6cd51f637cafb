"""The model that an index names: one of a repository that nobody here has named is not downloaded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from firsthand.commands.rag_reindex import Config, _made
from firsthand.errors import ConfigError, FirsthandError
from firsthand.retrieval.corpus import _opened
from firsthand.retrieval.index_settings import Asked, prepare
from firsthand.retrieval.store.sqlite_index import open_index
from firsthand.retrieval.stored_model import expect_chosen
from index_tiny import HEADER

STRANGER = "hf:attacker/tracker"
TOLD = r"names the model 'hf:attacker/tracker', which is not on this machine, .*`firsthand models pull hf:attacker/tracker`"


@pytest.mark.parametrize("model", [STRANGER, f"{STRANGER}@bfloat16"])
def test_a_model_that_an_index_names_is_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    path = tmp_path / "a.index"
    open_index(path, replace(HEADER, embedder=model)).close()
    with pytest.raises(ConfigError, match=TOLD):
        asyncio.run(prepare(path, Asked()))
    with pytest.raises(ConfigError, match=TOLD):
        _opened(path, None)
    with pytest.raises(ConfigError, match=TOLD):
        asyncio.run(_made(Config(path), path))


def test_known_models_paths_and_those_of_this_machine_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    for model in ("", "minilm", "minilm@bfloat16", "/models/mine", str(tmp_path)):
        expect_chosen(tmp_path / "a.index", model)


def test_a_model_that_somebody_names_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FIRSTHAND_OFFLINE", "1")
    path = tmp_path / "a.index"
    open_index(path, replace(HEADER, embedder=STRANGER)).close()
    with pytest.raises(FirsthandError, match="FIRSTHAND_OFFLINE"):
        asyncio.run(prepare(path, Asked(model=STRANGER)))
