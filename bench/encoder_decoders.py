"""Tiny random encoder-decoders of transformers, and the log-probs of both sides for two texts; `families.py` prints them."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor

from firsthand.nn.blocks.attention import Packed
from firsthand.nn.encoder_decoder import EncoderDecoder

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
