"""Steering vectors by a model's name: added at every token of prompts, answers and scored texts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tiny
from firsthand import catalog
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, ModelError, ModelFileError
from firsthand.interp.activations import run_with_edits
from firsthand.message import user
from firsthand.model import Sampling
from firsthand.nn.activation_monitor import ActivationMonitor, write_monitor
from firsthand.nn.steering_vector import SteeringVector, read_steering, write_steering
from firsthand.nn.weights import load
from firsthand.providers.local import Local, open_model

SITE = "blocks.0.resid.post"
ASKED = [user("What is 2 + 3?")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def vector(folder: Path) -> SteeringVector:
    width = load(folder).architecture.hidden_size
    return SteeringVector(SITE, 3 * torch.randn(width, generator=torch.Generator().manual_seed(0)), 0.5, "calm")


@pytest.fixture
def plain(folder: Path) -> Iterator[Local]:
    model = Local(folder, name="tiny", config=EngineConfig(kv_memory_bytes=8 << 20, threads=1, weights="float32"))
    yield model
    model.close()


@pytest.mark.slow
def test_scored_texts_and_answers_are_those_of_a_model_with_the_vector_added(
    plain: Local, vector: SteeringVector, folder: Path
) -> None:
    steered = plain.steered_by(vector, name="tiny+steer:calm")

    async def asked() -> tuple[list[list[float]], list[float], list[float], tuple[int, ...], list[int]]:
        scored = []
        for model in (plain, steered, plain):  # the second reuses no prefix of the first, and the third none of it
            found = await model.score(ASKED, ["5", "12"])
            scored.append([each.logprob for each in found.likelihoods])
        (answer,) = await steered.complete(ASKED, Sampling(max_tokens=5, temperature=0))
        ids = await steered.tokenize(ASKED)
        rated = [each.logprob for each in await steered.rate(ids)]
        return scored, rated, list(await steered.next_logprobs(ids)), answer.message.sampled.token_ids, ids  # type: ignore[union-attr]

    scored, rated, after, sampled, ids = asyncio.run(asked())
    model = load(folder)
    edits = {SITE: lambda values: values + 0.5 * vector.direction}

    def exact(text: list[int]) -> torch.Tensor:
        return run_with_edits(model, text, edits).log_softmax(-1)

    tokenizer = plain._loaded.tokenizer  # type: ignore[union-attr]
    for place, text in enumerate(("5", "12")):
        more = tokenizer.encode(text)
        rows = exact([*ids, *more])[len(ids) - 1 : -1]
        assert scored[1][place] == pytest.approx(float(rows[range(len(more)), more].sum()), abs=1e-3)
    assert scored[0] == scored[2] != scored[1]
    assert rated == pytest.approx(exact(ids)[range(len(ids) - 1), ids[1:]].tolist(), abs=1e-3)
    assert after == pytest.approx(exact(ids)[-1].tolist(), abs=1e-3)
    text = list(ids)
    for token in sampled:
        assert token == int(exact(text)[-1].argmax())
        text.append(token)


def test_a_monitor_reads_what_was_steered(plain: Local, vector: SteeringVector) -> None:
    monitor = ActivationMonitor(SITE, vector.direction, name="same")

    async def scores(model: Local) -> list[float]:
        (answer,) = await model.complete(ASKED, Sampling(max_tokens=1, temperature=0))
        return list(answer.message.sampled.monitor)  # type: ignore[union-attr, arg-type]

    watched = plain.monitored_by(monitor, name="watched")
    both = plain.steered_by(vector, name="s").monitored_by(monitor, name="both")
    far = plain.steered_by(vector, name="s").monitored_by(ActivationMonitor("embed", vector.direction), name="far")
    before = plain.monitored_by(ActivationMonitor("embed", vector.direction), name="before")
    added = 0.5 * float(vector.direction @ vector.direction)
    assert asyncio.run(scores(both))[0] == pytest.approx(asyncio.run(scores(watched))[0] + added, abs=0.05)
    assert asyncio.run(scores(far))[0] == pytest.approx(asyncio.run(scores(before))[0], abs=0.05)


def test_a_file_and_a_strength_follow_a_models_name(folder: Path, vector: SteeringVector, tmp_path: Path) -> None:
    file = tmp_path / "calm.safetensors"
    write_steering(vector, file)
    assert torch.equal(read_steering(str(file)).direction, vector.direction)
    half, whole = open_model(f"{folder}+steer:{file}@-2"), open_model(f"{folder}+steer:{file}")
    assert half.steering is not None and half.steering.strength == -1.0 and half.name.endswith("@-2")
    assert whole.steering is not None and (whole.steering.strength, whole.steering.site) == (0.5, SITE)
    named = tmp_path / "calm@2"
    write_steering(vector, named)
    assert read_steering(str(named)).strength == 0.5 and read_steering(f"{named}@2").strength == 1.0
    assert len({each.fingerprint for each in (half, whole, Local(folder, config=whole.config))}) == 3
    write_monitor(ActivationMonitor(SITE, vector.direction), tmp_path / "monitor")
    both = catalog.model(f"{folder}+steer:{file}@2+monitor:{tmp_path / 'monitor'}")
    assert both.steering.strength == 1.0 and both.monitor is not None  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="has a steering vector already"):
        open_model(f"{folder}+steer:{file}+steer:{file}")


def test_files_and_strengths_that_do_not_fit_are_refused(plain: Local, vector: SteeringVector, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no steering vector"):
        read_steering(str(tmp_path / "missing"))
    write_monitor(ActivationMonitor(SITE, vector.direction), tmp_path / "monitor")
    with pytest.raises(ModelFileError, match="is no steering vector"):
        read_steering(str(tmp_path / "monitor"))
    write_steering(SteeringVector(SITE, vector.direction * float("nan")), tmp_path / "nan")
    with pytest.raises(ModelFileError, match="is no steering vector"):
        read_steering(str(tmp_path / "nan"))
    write_steering(vector, tmp_path / "calm")
    for text, told in ((f"{tmp_path / 'calm'}@loud", "no number"), (f"{tmp_path / 'calm'}@nan", "finite")):
        with pytest.raises(ConfigError, match=told):
            read_steering(text)
    for wrong in (SteeringVector(SITE, torch.ones(3)), SteeringVector("blocks.99.resid.post", vector.direction)):
        with pytest.raises((ConfigError, ModelError), match=r"has 3 values|blocks\.99"):
            asyncio.run(plain.steered_by(wrong, name="w").score(ASKED, ["5"]))


def test_a_vector_with_heads_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"at blocks.0.attn.q has the shape \(2, 3\): a file holds one vector"):
        write_steering(SteeringVector("blocks.0.attn.q", torch.ones(2, 3)), tmp_path / "v")
    assert not list(tmp_path.iterdir())
