"""Encoder-decoders against transformers in both directions: log-probs, and greedy output with both caches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_decoders import MODELS, SOURCES, logprobs, reference, reference_logprobs

from firsthand.errors import ConfigError, ModelFileError
from firsthand.hub.inspection import inspect
from firsthand.nn.blocks.positions import sinusoidal
from firsthand.nn.encoder_decoder_weights import load_encoder_decoder, save_encoder_decoder

torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_each_encoder_decoder_is_transformers_in_both_directions(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_encoder_decoder(tmp_path / "theirs")
    expected = reference_logprobs(theirs, ours.architecture.decoder_start)
    assert expected[0].std() > 0.3
    torch.testing.assert_close(logprobs(ours), expected, atol=1e-4, rtol=0)
    place = tmp_path / "not" / "ours"
    for _ in range(2):
        save_encoder_decoder(ours, place)
    back = type(theirs).from_pretrained(place).eval()
    torch.testing.assert_close(reference_logprobs(back, ours.architecture.decoder_start), expected, atol=1e-4, rtol=0)
    assert load_encoder_decoder(place).architecture == ours.architecture


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_greedy_output_with_caches_is_that_of_computing_all_again(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    theirs.save_pretrained(tmp_path)
    ours = load_encoder_decoder(tmp_path)
    ids = [ours.architecture.decoder_start]
    while len(ids) < 9 and (len(ids) == 1 or ids[-1] != ours.architecture.end):
        with torch.no_grad():
            logits = theirs(input_ids=torch.tensor([SOURCES[0]]), decoder_input_ids=torch.tensor([ids])).logits
        ids.append(int(logits[0, -1].argmax()))
    assert ours.generate(SOURCES[0], max_tokens=8) == ids[1:]
    for bad in ([], [61], [5] * (ours.architecture.max_position + 1)):
        with pytest.raises(ConfigError, match="the source has"):
            ours.generate(bad, max_tokens=1)


def test_inspect_states_the_cache_of_the_decoder(tmp_path: Path) -> None:
    reference("bart").save_pretrained(tmp_path)
    facts = inspect(tmp_path)
    assert (facts.architecture, facts.context, facts.vocabulary) == ("bart", 64, 61)
    assert facts.kv_bytes_per_token == 3 * 2 * 32 * 2


def test_sines_and_cosines_are_the_papers() -> None:
    found = sinusoidal(torch.arange(5), 8)
    for position in range(5):
        for pair in range(4):
            angle = torch.tensor(position / 10_000 ** (2 * pair / 8))
            assert found[position, 2 * pair] == pytest.approx(float(angle.sin()), abs=1e-6)
            assert found[position, 2 * pair + 1] == pytest.approx(float(angle.cos()), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("t5", {"feed_forward_proj": "gated-swoosh"}, "feed_forward_proj"),
        ("t5", {"num_heads": 0}, "encoder_heads is 0"),
        ("t5", {"relative_attention_num_buckets": 2}, "num_buckets"),
        ("t5", {"relative_attention_max_distance": 8}, "max_distance"),
        ("t5", {"d_ff": 99}, "misshapen"),
        ("bart", {"decoder_layers": 4}, "missing"),
        ("bart", {"encoder_attention_heads": 5}, "head_dim is 0"),
        ("bart", {"normalize_before": True}, "normalize_before"),
        ("bart", {"decoder_start_token_id": 61}, "decoder_start is 61"),
        ("bart", {"model_type": "pegasus"}, "t5, bart, marian"),
    ],
)
def test_configs_that_contradict_themselves_or_their_tensors_say_so(
    name: str, change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    reference(name).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelFileError, match=sentence):
        load_encoder_decoder(tmp_path)
