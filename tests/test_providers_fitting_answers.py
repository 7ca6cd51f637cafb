"""Answers from elsewhere that do not fit their grammar, and vectors of a local embedder that are asked for in vain."""

import asyncio
from pathlib import Path

import pytest

from firsthand.errors import ConfigError, ModelError
from firsthand.grammar import Grammar
from firsthand.hub.content_hash import content_hash
from firsthand.message import assistant
from firsthand.model import Completion, Sampling, Usage
from firsthand.providers.local_embedder import AT_BFLOAT16, LocalEmbedder, open_embedder
from firsthand.providers.output_validation import check

LETTERS = Grammar("regex", "abc")


def checked(text: str, *, reason="stop", grammar: Grammar | None = LETTERS, stop: tuple[str, ...] = ()) -> None:
    answers = [Completion(assistant(each), reason, Usage()) for each in ("abc", text)]
    asyncio.run(check("m", answers, Sampling(grammar=grammar, stop=stop)))


def test_every_finished_answer_must_fit_its_grammar_whole():
    checked("abc")
    checked("x", grammar=None)
    for reason in ("length", "tool_calls", "content_filter"):
        checked("x", reason=reason)
    checked("ab", stop=("c",))  # a stop string may have cut it
    for text, stop in (("ab", ()), ("abcd", ()), ("x", ("c",)), ("x" * 90, ())):
        with pytest.raises(ModelError) as refused:
            checked(text, stop=stop)
        assert str(refused.value) == (
            f"m answered {text[:80]!r}, which does not fit the regex grammar it was given: it seems to ignore grammars, so "
            "leave the grammar out, or use a local model"
        )


def test_a_grammar_that_only_the_endpoint_knows_is_taken_at_its_word():
    schema = Grammar("json_schema", '{"type": "string", "pattern": "(?<=a)b"}')  # a look-behind is not compiled here
    checked('"anything"', grammar=schema)


def files(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / name.replace("__", ".").replace("_0_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_fingerprint_of_an_embedder_covers_every_file_that_decides_its_vectors(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    names = {"config__json": "1", "pool_0_config__json": "1", "a__safetensors": "1", "s__model": "1"}
    plain = LocalEmbedder(files(tmp_path / "plain", **names)).fingerprint
    for number, name in enumerate(names):
        assert LocalEmbedder(files(tmp_path / f"other{number}", **names | {name: "2"})).fingerprint != plain
    beside = files(tmp_path / "beside", **names, README__md="x")
    assert LocalEmbedder(beside).fingerprint == plain == LocalEmbedder(beside, threads=2).fingerprint
    others = [LocalEmbedder(beside, pooling="mean"), LocalEmbedder(beside, precision="bfloat16")]
    assert len({plain, *(each.fingerprint for each in others)}) == 3
    file = beside / "one.gguf"
    file.write_text("x")
    assert LocalEmbedder(file).fingerprint not in (plain, LocalEmbedder(beside).fingerprint)
    assert content_hash(file) != content_hash(beside / "config.json")
    assert (LocalEmbedder(beside).name, LocalEmbedder(beside, name="n").name) == (str(beside), "n")
    rounded = open_embedder(f"{beside}{AT_BFLOAT16}")
    assert rounded.name == f"{beside}@bfloat16" and rounded.path == beside
    assert rounded.fingerprint == LocalEmbedder(beside, precision="bfloat16").fingerprint


def test_no_texts_load_no_model_and_a_batch_has_a_text(tmp_path):
    embedder = LocalEmbedder(tmp_path)
    assert asyncio.run(embedder.embed([])) == asyncio.run(embedder.embed(())) == []

    async def batches(size: int) -> list[object]:
        return [each async for each in embedder.embed_batches([], batch_size=size)]

    assert asyncio.run(batches(1)) == []
    with pytest.raises(ConfigError, match="batch_size is 0: give 1 or more"):
        asyncio.run(batches(0))
    embedder.close()
