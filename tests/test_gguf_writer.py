"""A model saved as GGUF is read back as it was: every family, its rope, its vocabulary, and the engine's log-probs."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.gguf_file import read_gguf
from firsthand.model import Sampling
from firsthand.nn import weights
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.gguf_writer import save_gguf
from firsthand.nn.model_config import folder_architecture
from firsthand.providers.local import Local
from firsthand.tokens.pretrained import load as load_tokenizer
from firsthand.tokens.vocab_export import vocabulary_metadata
from firsthand.train.adapters.export_gguf import export_gguf
from firsthand.train.adapters.lora_config import LoRAConfig
from firsthand.train.adapters.lora_training import add_lora, merged
from test_tokens_pretrained import byte_level_gguf, trained_description, write_folder
from tiny import SPECIALS, write_model

PLAIN = Architecture(
    family="llama", vocab_size=96, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=8, max_position=256, norm_eps=1e-5, windows=(None, None), ropes=(Rope(), Rope()), tie_embeddings=False,
)  # fmt: skip


def llama(rope: Rope, **changes: object) -> Architecture:
    return replace(PLAIN, ropes=(rope, rope), **changes)  # type: ignore[arg-type]


FAMILIES = {
    "llama": PLAIN,
    "tied and biased": replace(PLAIN, tie_embeddings=True, qkv_bias=True, o_bias=True, mlp_bias=True),
    "linear": llama(Rope(5e5, "linear", 2.0)),
    "yarn": llama(Rope(1e4, "yarn", 4.0, 64, attention_factor=0.1 * math.log(4.0) + 1.0)),
    "llama3": llama(Rope(5e5, "llama3", 8.0, 8192), max_position=131072),
    "divided": llama(Rope(1e4, "divided", divisors=(1.0, 1.5, 3.0, 9.0))),
    "mistral": replace(PLAIN, family="mistral", windows=(16, 16)),
    "qwen2": replace(PLAIN, family="qwen2", qkv_bias=True, ropes=(Rope(1e6), Rope(1e6))),
    "qwen3": replace(PLAIN, family="qwen3", qk_norm=True),
    "gemma3": replace(
        PLAIN, family="gemma3", tie_embeddings=True, qk_norm=True, activation="gelu_tanh", norm_placement="sandwich",
        norm_unit_offset=True, embed_scale=32**0.5, windows=(8, None), ropes=(Rope(), Rope(1e6, "linear", 8.0)),
        logit_softcap=30.0,
    ),
}  # fmt: skip
IDS = torch.tensor([5, 17, 90, 3, 3, 41, 8, 1, 2, 55])


def random_model(a: Architecture) -> Decoder:
    model = initialise(Decoder(a), seed=0, std=0.3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def logprobs(model: Decoder) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model.logits(model(IDS, torch.arange(len(IDS)), Packed([len(IDS)]))), -1)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_read_back_with_its_numbers(name: str, tmp_path: Path) -> None:
    model = random_model(FAMILIES[name])
    save_gguf(model, tmp_path / "m.gguf", dtype="F32")
    again = weights.load(tmp_path / "m.gguf")
    for key, values in model.state_dict().items():  # norms of Gemma lose a bit to the 1 that was added
        torch.testing.assert_close(again.state_dict()[key], values, atol=2e-7 if name == "gemma3" else 0, rtol=0)
    torch.testing.assert_close(logprobs(again), logprobs(model), atol=2e-5, rtol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize("dtype", ["F16", "Q8_0"])
def test_the_engine_answers_with_the_log_probs_of_the_rounded_model(dtype: str, tmp_path: Path) -> None:
    model = add_lora(random_model(replace(PLAIN, tie_embeddings=True)), LoRAConfig(rank=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".b"):
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
    export_gguf(model, tmp_path / "m.gguf", dtype=dtype)
    file, plain = read_gguf(tmp_path / "m.gguf"), merged(model)
    assert {file.tensors[name].dtype for name in file.tensors} == {dtype, "F32"}
    rounded = weights.load(tmp_path / "m.gguf")
    each = gguf.GGMLQuantizationType[dtype]
    for name, parameter in plain.named_parameters():
        expected = parameter.detach().numpy()
        if parameter.dim() == 2:
            expected = gguf.quants.dequantize(gguf.quants.quantize(expected, each), each).reshape(expected.shape)
        assert np.array_equal(rounded.state_dict()[name].numpy(), expected), name
    engine = Engine(
        weights.load(tmp_path / "m.gguf"),
        EngineConfig(kv_memory_bytes=1 << 21, kv_cache="float32", weights="float32"),
    )
    prefix, answer = IDS[:4].tolist(), IDS[4:].tolist()
    (found,) = engine.score(prefix, [answer])
    wanted = [logprobs(rounded)[3 + i, id].item() for i, id in enumerate(answer)]
    assert found.logprobs == pytest.approx(wanted, abs=1e-4)
    assert (logprobs(plain) - logprobs(rounded)).abs().max() < {"F16": 0.02, "Q8_0": 0.5}[dtype]


def test_a_matrix_that_fills_no_block_stays_f16(tmp_path: Path) -> None:
    model = random_model(replace(PLAIN, intermediate_size=40))
    save_gguf(model, tmp_path / "m.gguf", dtype="Q8_0")
    tensors = read_gguf(tmp_path / "m.gguf").tensors
    assert (tensors["blk.0.ffn_down.weight"].dtype, tensors["blk.0.ffn_up.weight"].dtype) == ("F16", "Q8_0")
    weights.load(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"attention_scale": 0.5}, "its attention_scale is 0.5 and would be read as 0.35"),
        ({"family": "qwen2", "qkv_bias": True, "windows": (None, 8)}, "its windows is"),
        ({"qk_norm": True}, "cannot express this model|qk_norm"),
        ({"activation": "gelu"}, "its activation is gelu"),
    ],
)
def test_what_gguf_cannot_express_is_refused_and_leaves_no_file(
    tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        save_gguf(random_model(replace(PLAIN, **changes)), tmp_path / "m.gguf", dtype="F32")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_saved_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    save_gguf(random_model(PLAIN), path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="projections were replaced"):
        save_gguf(add_lora(random_model(PLAIN), LoRAConfig()), path)
    for value, expected in ((math.nan, "no finite numbers"), (7e4, "F16 ends at 65504: save F32")):
        model = random_model(PLAIN)
        with torch.no_grad():
            model.layers[1].mlp.up_proj.weight[3, 3] = value  # type: ignore[union-attr]
        with pytest.raises(ConfigError, match=expected):
            save_gguf(model, path)
    with pytest.raises(ConfigError, match="no GGUF file type 'Q4_K_X'; did you mean Q4_K_S"):
        save_gguf(random_model(PLAIN), path, dtype="Q4_K_X")
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["m.gguf"]


# -- vocabularies --

TEXT = "What is 12 + 30?\n  The answer: 42, naïve façade 你好 <|im_end|> tail"


@pytest.mark.slow
def test_a_folder_s_vocabulary_gives_equal_ids_from_gguf(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "t", trained_description(), chat_template="{{ messages }}")
    metadata = vocabulary_metadata(folder)
    assert metadata["tokenizer.ggml.pre"] == "smollm"
    size = len(metadata["tokenizer.ggml.tokens"])
    model = random_model(replace(PLAIN, vocab_size=size + 3))
    export_gguf(add_lora(model, LoRAConfig()), tmp_path / "m.gguf", tokenizer=folder)
    ours, theirs = load_tokenizer(folder), load_tokenizer(tmp_path / "m.gguf")
    assert theirs.encode(TEXT) == ours.encode(TEXT)
    assert (theirs.bos_id, theirs.eos_ids, theirs.add_bos, theirs.chat_template) == (
        ours.bos_id, ours.eos_ids, ours.add_bos, ours.chat_template
    )  # fmt: skip
    assert theirs.vocab_size == size + 3


def test_a_gguf_s_vocabulary_is_copied(tmp_path: Path) -> None:
    source = byte_level_gguf(tmp_path / "source.gguf", trained_description())
    size = load_tokenizer(source).vocab_size
    model = random_model(replace(PLAIN, vocab_size=size))
    save_gguf(model, tmp_path / "m.gguf", vocabulary=vocabulary_metadata(source))
    metadata = read_gguf(tmp_path / "m.gguf").metadata
    for key, value in read_gguf(source).metadata.items():
        if key.startswith("tokenizer."):
            assert metadata[key] == value, key


def test_each_row_of_the_embedding_has_a_token(tmp_path: Path) -> None:
    tokens, size = [f"t{id}" for id in range(PLAIN.vocab_size)], PLAIN.vocab_size
    keys = [f"tokenizer.ggml.{key}" for key in ("tokens", "token_type", "scores")]
    whole = dict(zip(keys, (tokens, [1] * size, [-2.0] * size), strict=True))
    short = {key: each[: size - 2] for key, each in whole.items()}
    pads = dict(zip(keys, ([f"[PAD{size - 2}]", f"[PAD{size - 1}]"], [5, 5], [-1000.0, -1000.0]), strict=True))
    for given in (whole, short):
        for kept in (keys, keys[:1]):
            save_gguf(random_model(PLAIN), tmp_path / "m.gguf", vocabulary={key: given[key] for key in kept})
            read = read_gguf(tmp_path / "m.gguf").metadata
            assert [key for key in keys if key in read] == kept
            for key in kept:
                expected = [*given[key], *(pads[key] if given is short else [])]
                assert list(read[key]) == expected, key
    before = (tmp_path / "m.gguf").read_bytes()
    with pytest.raises(
        ConfigError, match=f"has {size + 1} tokens and the model's embedding {size} rows: give the model's"
    ):
        save_gguf(random_model(PLAIN), tmp_path / "m.gguf", vocabulary={keys[0]: [*tokens, "more"]})
    assert (tmp_path / "m.gguf").read_bytes() == before


def test_a_vocabulary_without_merges_is_refused_by_name(tmp_path: Path) -> None:
    description = json.loads(trained_description())
    description["model"]["merges"] = []
    folder = write_folder(tmp_path / "t", json.dumps(description))
    with pytest.raises(ModelFileError, match="its BPE has no merges, and readers of GGUF need at least one") as caught:
        vocabulary_metadata(folder)
    assert str(folder) in str(caught.value)


def test_a_tokenizer_without_a_name_in_gguf_is_refused(tmp_path: Path) -> None:
    description = trained_description().replace('"individual_digits":true', '"individual_digits":false')
    assert description != trained_description()
    with pytest.raises(ModelFileError, match="its normalizer or pre-tokenizer has no name in GGUF"):
        vocabulary_metadata(write_folder(tmp_path / "t", description))
    save_gguf(random_model(PLAIN), tmp_path / "m.gguf")
    with pytest.raises(ModelFileError, match="holds no vocabulary"):
        vocabulary_metadata(tmp_path / "m.gguf")


def test_a_trained_model_is_served_from_its_gguf(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    model = add_lora(weights.load(folder), LoRAConfig(rank=4))
    export_gguf(model, tmp_path / "out.gguf", dtype="F32", tokenizer=folder)
    answers = []
    for path in (folder, tmp_path / "out.gguf"):
        local = Local(path, config=EngineConfig(kv_memory_bytes=1 << 21, weights="float32"))
        answers.append(asyncio.run(local.complete("What", Sampling(max_tokens=8)))[0].message.text)
        local.close()
    assert answers[0] == answers[1]
    assert SPECIALS[0] in vocabulary_metadata(folder)["tokenizer.ggml.tokens"]
    assert folder_architecture(folder).vocab_size == read_gguf(tmp_path / "out.gguf").shape("token_embd.weight")[0]
