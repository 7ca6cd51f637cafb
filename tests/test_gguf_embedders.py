"""A GGUF file of an embedder gives the vectors of the folder it was made from, and what it states of them is followed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, pre_tokenizers, processors

from firsthand.embed.embedding import load
from firsthand.embed.embedding_config import EmbeddingConfig
from firsthand.embed.embedding_metadata import POOLING_TYPES, embedding_metadata, gguf_embedding_config
from firsthand.errors import ModelFileError
from firsthand.formats.gguf_file import read_gguf
from firsthand.hub.content_hash import content_hash
from firsthand.hub.quantize_model import quantize_file
from firsthand.nn import weights
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.gguf_writer import save_gguf
from firsthand.providers.local_embedder import VECTORS_VERSION, LocalEmbedder
from firsthand.tokens import pretrained
from firsthand.tokens.vocab_export import vocabulary_metadata

START, END, TURN = "<|startoftext|>", "<|endoftext|>", "<|im_end|>"
TEXTS = ["the cat sat", "a dog", "the dog ran to the house"]
TEMPLATES = {"end": f"$A {END}", "both": f"{START} $A {END}", "none": "$A", "two": f"$A {TURN} {END}",
             "other": f"{TURN} $A {END}", "long": f"{TURN} {START} $A"}  # fmt: skip


def write_folder(
    folder: Path, *, pooling: str = "lasttoken", template: str = "end", modules: bool = True, **changes: Any
) -> Path:
    """Write a tiny Qwen3 embedder, whose tokenizer ends chat turns with one token and texts with another."""
    specials = [START, END, TURN]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {text: id for id, text in enumerate([*specials, *alphabet, "th", "the"])}
    rust = Rust(models.BPE(vocab, [("t", "h"), ("th", "e")]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens(specials)
    rust.post_processor = processors.TemplateProcessing(
        single=TEMPLATES[template], special_tokens=[(each, vocab[each]) for each in specials]
    )
    sizes: dict[str, Any] = dict(
        family="qwen3", vocab_size=len(vocab), hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2,
        num_kv_heads=1, head_dim=16, max_position=64, norm_eps=1e-6, windows=(None, None), ropes=(Rope(), Rope()),
        tie_embeddings=True, qk_norm=True,
    )  # fmt: skip
    weights.save(initialise(Decoder(Architecture(**sizes | changes)), seed=1, std=0.2), folder)
    rust.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": START, "eos_token": TURN}))
    if modules:
        listed = [{"type": "x.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]
        (folder / "modules.json").write_text(json.dumps(listed))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    return folder


def vectors(path: Path) -> np.ndarray:
    embedder = load(path)
    try:
        return embedder.embed(TEXTS).vectors
    finally:
        embedder.close()


@pytest.mark.parametrize("pooling", ["lasttoken", "mean", "cls"])
@pytest.mark.parametrize("template", ["end", "both", "none", "other"])
def test_a_quantised_embedder_puts_the_same_tokens_around_a_text_and_pools_alike(
    pooling: str, template: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "m", pooling=pooling, template=template)
    quantize_file(folder, tmp_path / "m.gguf", "F32")
    encode = Rust.from_file(str(folder / "tokenizer.json")).encode
    model = weights.load(folder)
    for text, ours, theirs in zip(TEXTS, vectors(tmp_path / "m.gguf"), vectors(folder), strict=True):
        ids = encode(text).ids
        with torch.inference_mode():
            hidden_TD = model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)])).numpy()
        row = hidden_TD.mean(0) if pooling == "mean" else hidden_TD[0 if pooling == "cls" else -1]
        assert np.allclose(ours, row / np.linalg.norm(row), atol=1e-5) and np.allclose(ours, theirs, atol=1e-6)


def test_a_quantised_embedder_states_what_llama_cpps_converter_does(tmp_path: Path) -> None:
    assert {"mean": gguf.PoolingType.MEAN, "cls": gguf.PoolingType.CLS, "lasttoken": gguf.PoolingType.LAST} == (
        POOLING_TYPES
    )
    folder = write_folder(tmp_path / "m", template="both", pooling="mean")
    quantize_file(folder, tmp_path / "m.gguf", "Q8_0")
    quantize_file(tmp_path / "m.gguf", tmp_path / "again.gguf", "F16")
    for name in ("m.gguf", "again.gguf"):
        stated = read_gguf(tmp_path / name).metadata
        assert stated[gguf.Keys.LLM.POOLING_TYPE.format(arch="qwen3")] == 1
        assert stated[gguf.Keys.Tokenizer.ADD_BOS] is stated[gguf.Keys.Tokenizer.ADD_EOS] is True
        ends = [stated[key] for key in (gguf.Keys.Tokenizer.EOS_ID, gguf.Keys.Tokenizer.EOT_ID)]
        assert [stated[gguf.Keys.Tokenizer.BOS_ID], *ends] == [0, 1, 2], "the token after a text is the file's EOS"


def test_the_template_goes_before_a_flag_of_bos_as_in_the_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": START, "eos_token": TURN, "add_bos_token": True})
    )
    assert vocabulary_metadata(folder)["tokenizer.ggml.add_bos_token"] is True
    quantize_file(folder, tmp_path / "m.gguf", "F32")
    assert np.allclose(vectors(tmp_path / "m.gguf"), vectors(folder), atol=1e-6)


def test_a_folder_that_is_no_embedder_keeps_its_metadata(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", modules=False)
    assert embedding_metadata(folder, {"a": 1}) == {"a": 1}
    quantize_file(folder, tmp_path / "m.gguf", "F32")
    save_gguf(weights.load(folder), tmp_path / "plain.gguf", dtype="F32", vocabulary=vocabulary_metadata(folder))
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "plain.gguf").read_bytes()
    both_ways = write_folder(tmp_path / "both", modules=False, is_causal=False)
    assert embedding_metadata(both_ways, {})["qwen3.pooling_type"] == 3, "such a model only embeds"


def test_what_gguf_cannot_say_of_an_embedder_is_refused(tmp_path: Path) -> None:
    for template in ("two", "long"):
        with pytest.raises(ModelFileError, match="puts several tokens before or after a text"):
            quantize_file(write_folder(tmp_path / template, template=template), tmp_path / "m.gguf", "F32")
    lower = write_folder(tmp_path / "lower")
    (lower / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    with pytest.raises(ModelFileError, match="lower-cases texts"):
        quantize_file(lower, tmp_path / "m.gguf", "F32")
    ends = {f"tokenizer.ggml.{name}_token_id": 5 + place for place, name in enumerate(("eos", "eot", "eom"))}
    with pytest.raises(ModelFileError, match="4 end tokens"):
        embedding_metadata(write_folder(tmp_path / "ends"), ends)
    assert not (tmp_path / "m.gguf").exists()


def stated(path: Path, folder: Path, **metadata: Any) -> Path:
    """A GGUF file of the folder's weights with these keys, `__` for a dot."""
    vocabulary = vocabulary_metadata(folder) | {key.replace("__", "."): value for key, value in metadata.items()}
    save_gguf(weights.load(folder), path, dtype="F32", vocabulary=vocabulary)
    return path


EOS = {"tokenizer__ggml__add_eos_token": True, "tokenizer__ggml__eos_token_id": 1}


@pytest.mark.parametrize(
    ("metadata", "config"),
    [
        ({}, EmbeddingConfig("lasttoken", 64)),
        ({"tokenizer__ggml__add_eos_token": False}, EmbeddingConfig("lasttoken", 64)),
        (EOS, EmbeddingConfig("lasttoken", 64, (), (1,))),
        ({"qwen3__pooling_type": 1}, EmbeddingConfig("mean", 64)),
        ({"qwen3__pooling_type": 2, "tokenizer__ggml__add_bos_token": True}, EmbeddingConfig("cls", 64, (0,))),
        ({"qwen3__pooling_type": 3, **EOS}, EmbeddingConfig("lasttoken", 64, (), (1,))),
        ({"llama__pooling_type": 1}, EmbeddingConfig("lasttoken", 64)),
    ],
)
def test_a_file_of_another_converter_is_followed(
    metadata: Mapping[str, Any], config: EmbeddingConfig, tmp_path: Path
) -> None:
    path = stated(tmp_path / "m.gguf", write_folder(tmp_path / "m"), **metadata)
    embedder, given = load(path), load(path, pooling="cls")
    assert embedder.config == config
    assert given.config == EmbeddingConfig("cls", 64, config.before, config.after), "the caller's pooling goes first"
    ids, cut = embedder.tokenise("ab" * 99)
    assert (len(ids), cut) == (64, True)
    assert (*ids[: len(config.before)], *ids[64 - len(config.after) :]) == (*config.before, *config.after)
    embedder.close()
    given.close()


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"qwen3__pooling_type": 0}, r"qwen3\.pooling_type is '0': expected 1 \(mean\), 2 \(cls\) or 3"),
        ({"qwen3__pooling_type": 4}, r"qwen3\.pooling_type is '4': expected"),
        ({"qwen3__pooling_type": "mean"}, r"qwen3\.pooling_type is 'mean': expected a whole number"),
        ({"tokenizer__ggml__add_eos_token": 1}, "add_eos_token is '1': expected true or false"),
    ],
)
def test_a_file_that_states_no_vector_of_a_text_is_refused(
    metadata: Mapping[str, Any], why: str, tmp_path: Path
) -> None:
    path = stated(tmp_path / "m.gguf", write_folder(tmp_path / "m"), **metadata)
    with pytest.raises(ModelFileError, match=why):
        load(path)
    if "qwen3__pooling_type" in metadata:
        load(path, pooling="mean").close()


def test_an_end_token_must_be_there_and_leave_room(tmp_path: Path) -> None:
    tokenizer = pretrained.load(write_folder(tmp_path / "m"))
    size = tokenizer.vocab_size
    ends = {"general.architecture": "qwen3", "tokenizer.ggml.add_eos_token": True}
    with pytest.raises(ModelFileError, match=r"F has no tokenizer\.ggml\.eos_token_id"):
        gguf_embedding_config(ends, tokenizer, 9, where="F")
    with pytest.raises(ModelFileError, match=f"a token of the vocabulary of {size}"):
        gguf_embedding_config(ends | {"tokenizer.ggml.eos_token_id": size}, tokenizer, 9, where="F")
    ends["tokenizer.ggml.eos_token_id"] = size - 1
    assert gguf_embedding_config(ends, tokenizer, 2, where="F").max_text_tokens == 1
    with pytest.raises(ModelFileError, match="no room for the text itself"):
        gguf_embedding_config(ends, tokenizer, 1, where="F")


def test_an_index_of_vectors_that_passed_over_the_file_is_refused_and_others_are_kept(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")

    def is_as_before(path: Path, **given: Any) -> bool:
        parts = [content_hash(path), str(given.get("pooling")), "None", VECTORS_VERSION]
        return (
            LocalEmbedder(path, **given).fingerprint == f"embedder:{sha256('|'.join(parts).encode()).hexdigest()[:16]}"
        )

    assert is_as_before(stated(tmp_path / "plain.gguf", folder))
    assert is_as_before(stated(tmp_path / "last.gguf", folder, qwen3__pooling_type=3))
    assert not is_as_before(stated(tmp_path / "eos.gguf", folder, **EOS))
    mean = stated(tmp_path / "mean.gguf", folder, qwen3__pooling_type=1)
    assert not is_as_before(mean) and is_as_before(mean, pooling="lasttoken") and is_as_before(mean, pooling="cls")
    assert is_as_before(stated(tmp_path / "none.gguf", folder, qwen3__pooling_type=0)), "loading refuses it"
