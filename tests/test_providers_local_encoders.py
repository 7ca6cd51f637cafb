"""Local encoders: loaded once with their settings, asked in a thread or in turn, told to stop, and closed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firsthand.errors import ConfigError
from firsthand.providers import local_cross_encoder, local_embedder
from firsthand.providers.local_cross_encoder import LocalCrossEncoder
from firsthand.providers.local_embedder import LocalEmbedder


class Encoder:
    """Scores and embeds by length, and keeps what it was asked and whether it was told to stop."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.closed = 0

    def score(self, query: str, texts: Any, *, stopped: Any) -> Any:
        if isinstance(texts, str):
            raise ConfigError("one text")
        self.asked.append((query, list(texts), stopped(), stopped))
        return np.array([float(len(each)) for each in texts])

    async def embed_in_turn(self, texts: Any, *, owner: str, whole: bool) -> Any:
        self.asked.append((list(texts), owner, whole))
        return SimpleNamespace(vectors=np.array([[float(len(each)), 0.5] for each in texts]))

    def close(self) -> None:
        self.closed += 1


def test_a_cross_encoder_is_loaded_once_and_again_after_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from firsthand.embed import relevance

    made: list[tuple[Any, Encoder]] = []

    def load(path: Path, **settings: Any) -> Encoder:
        made.append(((path, settings), Encoder()))
        return made[-1][1]

    monkeypatch.setattr(relevance, "load_relevance", load)
    model = LocalCrossEncoder(str(tmp_path), compiled=False, threads=3)
    assert (model.path, model.name) == (tmp_path, str(tmp_path)) and LocalCrossEncoder("x", name="n").name == "n"
    assert asyncio.run(model.score("q", [])) == asyncio.run(model.score("q", ())) == [] and made == []
    model.close()
    for one in ("", "a"):
        with pytest.raises(ConfigError, match="one text"):
            asyncio.run(model.score("q", one))
    assert asyncio.run(model.score("q", ["a", "", "bcd"])) == [1.0, 0.0, 3.0]
    assert asyncio.run(model.score("r", ("zz",))) == [2.0]
    assert [each for each, _ in made] == [(tmp_path, {"compiled": False, "threads": 3})]
    first = made[0][1]
    assert [each[:3] for each in first.asked] == [("q", ["a", "", "bcd"], False), ("r", ["zz"], False)]
    assert all(each[3]() for each in first.asked), "who is still at it stops when nobody waits"
    model.close()
    model.close()
    assert first.closed == 1
    asyncio.run(model.score("q", ["a"]))
    assert len(made) == 2 and made[1][1].closed == 0
    monkeypatch.setattr(local_cross_encoder.model_lookup, "resolve", lambda text: Path("/found", text))
    opened = local_cross_encoder.open_cross_encoder("some")
    assert (opened.path, opened.name) == (Path("/found/some"), "some")


def test_an_embedder_is_loaded_once_with_its_settings_and_asked_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.embed import embedding

    made: list[tuple[Any, Encoder]] = []

    def load(path: Path, **settings: Any) -> Encoder:
        made.append(((path, settings), Encoder()))
        return made[-1][1]

    monkeypatch.setattr(embedding, "load", load)
    model = LocalEmbedder("/e", pooling="mean", compiled=True, threads=2, precision="bfloat16")
    assert asyncio.run(model.embed([])) == [] and made == []
    assert asyncio.run(model.embed(["a", "bcd"])) == [[1.0, 0.5], [3.0, 0.5]]

    async def batches() -> list[int]:
        return [len(each.vectors) async for each in model.embed_batches(iter("abcde"), batch_size=2)]

    assert asyncio.run(batches()) == [2, 2, 1]
    settings = {"pooling": "mean", "compiled": True, "threads": 2, "precision": "bfloat16"}
    assert [each for each, _ in made] == [(Path("/e"), settings)]
    encoder = made[0][1]
    assert encoder.asked == [
        (["a", "bcd"], "", False), (["a", "b"], "", False), (["c", "d"], "", False), (["e"], "", False),
    ]  # fmt: skip
    model.close()
    model.close()
    asyncio.run(model.embed(["x"]))
    assert encoder.closed == 1 and len(made) == 2
    monkeypatch.setattr(local_embedder.model_lookup, "resolve", lambda text: Path("/found", text))
    for text, path, precision in (("some", "some", "float32"), ("some@bfloat16", "some", "bfloat16")):
        opened = local_embedder.open_embedder(text)
        assert (opened.path, opened.name, opened._precision) == (Path("/found", path), text, precision)
