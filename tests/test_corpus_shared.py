"""Which embedder the corpora of a process share: the one that was given, else the one that is loaded, else a new one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corpus_tiny import DIMENSION, WordEmbedder
from firsthand.errors import ConfigError
from firsthand.providers.local_embedder import LocalEmbedder
from firsthand.retrieval import corpus as corpus_module
from firsthand.retrieval.chunk_index import IndexHeader
from firsthand.retrieval.corpus import INDEX_NAME, _opened, close_corpora, open_corpus
from firsthand.retrieval.store.sqlite_index import open_index


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    close_corpora()
    yield
    close_corpora()


def test_a_given_embedder_comes_before_the_loaded_one_and_a_local_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        open_index(tmp_path / name / INDEX_NAME, IndexHeader("words", "words", DIMENSION, "lines")).close()
    loaded, given = WordEmbedder(), WordEmbedder()
    corpus_module._embedders["words"] = loaded  # type: ignore[assignment]
    loaded.close = lambda: None  # type: ignore[attr-defined]
    first = _opened(tmp_path / "one" / INDEX_NAME, given)  # type: ignore[arg-type]
    assert first.embedder is given and corpus_module._embedders == {"words": loaded}
    assert _opened(tmp_path / "two" / INDEX_NAME, None).embedder is loaded
    del corpus_module._embedders["words"]
    opened: list[str] = []

    def opener(name: str) -> LocalEmbedder:
        opened.append(name)
        made = LocalEmbedder(tmp_path / "model", name=name)
        made.__dict__["fingerprint"] = "words"
        return made

    monkeypatch.setattr(corpus_module, "open_embedder", opener)
    one, two = open_corpus(tmp_path / "one"), open_corpus(str(tmp_path / "two" / INDEX_NAME))
    assert one.embedder is two.embedder and opened == ["words"] and (one.name, two.name) == ("one", "two")
    assert corpus_module._embedders == {"words": one.embedder} and one.fingerprint == "words"
    held = one.embedder
    assert isinstance(held, LocalEmbedder)
    held._loaded = object()  # type: ignore[assignment]
    close_corpora()
    assert held._loaded is None and corpus_module._embedders == {} and open_corpus(tmp_path / "one") is not one
    assert opened == ["words", "words"]
    close_corpora()
    monkeypatch.setattr(corpus_module, "open_embedder", lambda name: LocalEmbedder(tmp_path / "none", name=name))
    with pytest.raises(ConfigError, match=r"was made with another version of words \(words, here embedder:"):
        open_corpus(tmp_path / "one")
    assert corpus_module._embedders == {} == corpus_module._corpora
