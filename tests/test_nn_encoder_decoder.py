"""Encoder-decoders against transformers in both directions: log-probs, and greedy output with both caches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from firsthand.errors import ConfigError, ModelFileError
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.blocks.positions import sinusoidal
from firsthand.nn.encoder_decoder import EncoderDecoder
from firsthand.nn.encoder_decoder_weights import load_encoder_decoder, save_encoder_decoder

torch.set_num_threads(1)
T5: dict[str, Any] = dict(vocab_size=61, d_model=32, d_kv=12, d_ff=48, num_layers=2, num_heads=4)
BART: dict[str, Any] = dict(
    vocab_size=61, d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=2,
    encoder_ffn_dim=48, decoder_ffn_dim=40, max_position_embeddings=64, decoder_start_token_id=2, pad_token_id=1,
    bos_token_id=0, eos_token_id=2,
)  # fmt: skip
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "t5": ("T5", "T5ForConditionalGeneration", T5 | dict(num_decoder_layers=3)),
    "t5_gated": ("T5", "T5ForConditionalGeneration", T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    "bart": ("Bart", "BartForConditionalGeneration", BART),
    "transformer_2017": ("Marian", "MarianMTModel", BART | dict(activation_function="relu", scale_embedding=True,
        pad_token_id=60, decoder_start_token_id=60)),
}  # fmt: skip
SOURCES, OUTPUTS = [[5, 17, 44, 9, 30, 1], [3, 3, 58]], [[7, 8, 50, 33], [12, 20, 2, 4, 41]]


def reference(name: str) -> Any:
    config, model, changes = MODELS[name]
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, f"{config}Config")(**changes)).eval()
    with torch.no_grad():
        for label, parameter in made.named_parameters():
            if "embed_positions" not in label or name == "bart":
                parameter.add_(torch.randn_like(parameter) * 0.2)
        if name != "t5" and name != "t5_gated":
            made.final_logits_bias.copy_(torch.randn_like(made.final_logits_bias))
    return made


def logprobs(model: EncoderDecoder) -> list[Tensor]:
    """Two texts packed into one call of each stack."""
    lengths, written = [len(each) for each in SOURCES], [len(each) for each in OUTPUTS]
    start = model.architecture.decoder_start
    ids = torch.tensor([token for output in OUTPUTS for token in [start, *output[:-1]]])
    positions = torch.cat([torch.arange(length) for length in written])
    with torch.no_grad():
        hidden = model.encode(torch.tensor([token for each in SOURCES for token in each]), lengths)
        states = model(ids, positions, Packed(written), model.sources(hidden, lengths))
        return list(model.logits(states).log_softmax(-1).split(written))


def reference_logprobs(model: Any, start: int) -> list[Tensor]:
    found = []
    for source, output in zip(SOURCES, OUTPUTS, strict=True):
        with torch.no_grad():
            logits = model(
                input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[start, *output[:-1]]])
            ).logits
        found.append(logits[0].log_softmax(-1))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_each_encoder_decoder_is_transformers_in_both_directions(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_encoder_decoder(tmp_path / "theirs")
    expected = reference_logprobs(theirs, ours.architecture.decoder_start)
    assert expected[0].std() > 0.3
    torch.testing.assert_close(logprobs(ours), expected, atol=1e-4, rtol=0)
    save_encoder_decoder(ours, tmp_path / "ours")
    back = type(theirs).from_pretrained(tmp_path / "ours").eval()
    torch.testing.assert_close(reference_logprobs(back, ours.architecture.decoder_start), expected, atol=1e-4, rtol=0)
    assert load_encoder_decoder(tmp_path / "ours").architecture == ours.architecture


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
