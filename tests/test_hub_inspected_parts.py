"""A model's facts from its header, part by part: sizes, KV cache, embeddings and head, weight files, licence."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from firsthand.errors import ModelFileError
from firsthand.formats.model_files import TensorInfo
from firsthand.hub.inspection import (
    Inspection,
    _block_bytes,
    _embeddings_and_head,
    _encoder_decoder,
    _Form,
    _form_of_gguf,
    _has_template,
    _inspection,
    _known,
    _kv_heads,
    _layer_weights,
    _licence_file,
    _shards,
    inspect,
)
from firsthand.nn.architecture import Architecture, ExpertSettings, Rope
from firsthand.nn.matrices import num_active_parameters, num_parameters


def tensor(name: str, dtype: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, shape, dtype, 0, 0)


TENSORS = [
    tensor("token_embd.weight", "Q8_0", 10, 8), tensor("blk.0.attn.weight", "Q4_0", 8, 6),
    tensor("blk.0.up.weight", "Q4_0", 8, 4), tensor("output.weight", "Q6_K", 10, 8), tensor("norm.weight", "F32", 9),
]  # fmt: skip
FORM = _Form(5000, 10, 12, 6, 4, 3, 100, 0.25, 16)


def inspected(tensors: list[TensorInfo] = TENSORS, form: _Form = FORM, kind: Any = "llama", **more: Any) -> Inspection:
    options: dict[str, Any] = {"has_chat_template": True, "licence": "MIT", **more}
    return _inspection(Path("/m"), kind, tensors, 77, form, **options)


def test_the_facts_follow_from_tensors_and_sizes() -> None:
    # 2 bytes x 6 KV heads of all layers x (4 + 3) values; a quarter of it keeps 100 positions
    assert vars(inspected()) == {
        "path": Path("/m"), "architecture": "llama", "is_encoder": False, "parameters": 249, "active_parameters": 233,
        "file_bytes": 77, "tensor_types": {"Q4_0": 2, "Q8_0": 1, "Q6_K": 1, "F32": 1},
        "weight_bytes": {"float32": 996, "float16": 498, "int8": 249, "4-bit": 125},
        "kv_bytes": {2048: 84 * (1536 + 25), 5000: 84 * (3750 + 25)}, "kv_bytes_per_token": 84, "window": 100,
        "window_share": 0.25, "decode_parameters": 249 - 16 - 80, "block_bytes": (80 * 9 // 2 + 80 * 8) // 8,
        "head_parameters": 80, "attention_width": 48, "context": 5000, "vocabulary": 10, "has_chat_template": True,
        "licence": "MIT",
    }  # fmt: skip
    tied = inspected(TENSORS[:3])
    assert (tied.decode_parameters, tied.head_parameters, tied.block_bytes) == (144, 80, (80 * 17 + 80 * 9) // 16)
    encoder = inspected(kind="bert", has_chat_template=False, licence=7)
    assert (encoder.is_encoder, encoder.kv_bytes, encoder.kv_bytes_per_token, encoder.head_parameters) == (
        True, {}, None, None,
    )  # fmt: skip
    assert (encoder.decode_parameters, encoder.has_chat_template, encoder.licence) == (8 * 6 + 8 * 4 + 80, False, None)
    assert encoder.attention_width == 48 and encoder.active_parameters == 233
    long = inspected(kind="k" * 90, licence="l" * 90)
    assert (long.architecture, long.licence) == ("k" * 80, "l" * 80)
    assert inspected(kind=None).architecture is None and not inspected(kind=5).is_encoder


def test_kv_bytes_are_given_for_two_usual_lengths_and_the_models_own_within_its_context() -> None:
    plain = FORM._replace(window=None, window_share=0.0)
    lengths = {
        context: list(inspected(form=plain._replace(context=context)).kv_bytes)
        for context in (None, 1000, 2048, 8191, 8192, 9000)
    }
    assert lengths == {
        None: [2048, 8192], 1000: [1000], 2048: [2048], 8191: [2048, 8191], 8192: [2048, 8192], 9000: [2048, 8192, 9000],
    }  # fmt: skip
    assert inspected(form=plain).kv_bytes == {2048: 84 * 2048, 5000: 84 * 5000}
    for unknown in ("kv_heads", "key_dim", "value_dim"):
        found = inspected(form=FORM._replace(**{unknown: None}))
        assert (found.kv_bytes, found.kv_bytes_per_token) == ({}, None)
    assert inspected(form=FORM._replace(query_heads=None)).attention_width is None
    assert inspected(form=FORM._replace(key_dim=None)).attention_width is None


def test_the_table_is_apart_from_the_head_or_is_the_head() -> None:
    embed, head = tensor("model.embed_tokens.weight", "F16", 5, 3), tensor("lm_head.weight", "F16", 5, 3)
    norm, bias = tensor("norm.weight", "F16", 3), tensor("output.bias", "F16", 5)
    bare = tensor("output", "F16", 5, 3)
    assert _embeddings_and_head([norm, embed, bias, bare, head]) == (embed, head)
    assert _embeddings_and_head([norm, embed, bias, bare]) == (None, embed)
    assert _embeddings_and_head([head]) == (None, head) and _embeddings_and_head([norm]) == (None, None)
    first = tensor("a.token_embd.weight", "F16", 2, 2)
    assert _embeddings_and_head([embed, first, tensor("output.weight", "F16", 1, 1), head])[0] is first
    layers = [
        tensor("embeddings.word_embeddings.weight", "F32", 9, 9), tensor("token_embd.weight", "F32", 9, 9),
        tensor("pooler.dense.weight", "F32", 9, 9), tensor("layer.0.q.weight", "F32", 3, 5),
        tensor("layer.0.q.bias", "F32", 3), tensor("layer.0.conv", "F32", 3, 5, 2), tensor("layer.1.k.weight", "F32", 2, 5),
    ]  # fmt: skip
    assert _layer_weights(layers) == 15 + 10 and _layer_weights([]) == 0


def test_blocks_take_their_bits_and_no_other_type_has_them() -> None:
    bits = {"Q4_0": 4.5, "Q4_1": 5, "Q4_K": 6, "Q5_0": 5.5, "Q8_0": 8.5, "Q5_1": 6, "Q5_K": 7, "Q6_K": 8}
    assert {kind: _block_bytes([tensor("x", kind, 4, 4)]) for kind in bits} == {k: 2 * b for k, b in bits.items()}
    assert _block_bytes([tensor("x", "Q4_0", 1, 3), tensor("y", "Q8_0", 1, 1)]) == 3  # 22 bits
    assert _block_bytes([]) is None and _block_bytes([tensor("x", "Q4_0", 4), tensor("y", "F16", 4)]) is None


def architecture(**more: Any) -> Architecture:
    whole: dict[str, Any] = {
        "family": "llama", "vocab_size": 11, "hidden_size": 12, "intermediate_size": 20, "num_layers": 3, "num_heads": 4,
        "num_kv_heads": 2, "head_dim": 6, "max_position": 64, "norm_eps": 1e-5, "windows": (None,) * 3,
        "ropes": (Rope(),) * 3, "tie_embeddings": True,
    }  # fmt: skip
    return Architecture(**{**whole, **more})


def test_a_model_that_we_load_has_heads_of_all_layers_its_widest_window_and_idle_experts() -> None:
    assert _known(architecture()) == _Form(64, 11, 12, 6, 6, 6, None, 0.0, 0)
    windowed = architecture(windows=(8, None, 6))
    assert _known(windowed) == _Form(64, 11, 12, 6, 6, 6, 8, 2 / 3, 0)
    experts = ExpertSettings(4, 1, 7, (False, True, True))
    mixed = architecture(experts=experts)
    # two layers, three experts that a token is not sent to, of three matrices of 12 x 7
    assert _known(mixed).idle == 2 * 3 * 3 * 12 * 7 == num_parameters(mixed) - num_active_parameters(mixed)


def test_an_encoder_decoder_has_the_cache_of_its_decoder() -> None:
    config = {
        "model_type": "t5", "vocab_size": 31, "d_model": 12, "d_kv": 5, "d_ff": 9, "num_heads": 4, "num_layers": 2,
        "num_decoder_layers": 3, "n_positions": 77,
    }  # fmt: skip
    assert _encoder_decoder(config, Path("c")) == _Form(77, 31, 12, 12, 5, 5)
    assert _encoder_decoder({**config, "model_type": "other"}, Path("c")) is None
    assert _encoder_decoder({**config, "num_heads": "4"}, Path("c")) is None


def test_a_gguf_of_another_family_states_its_sizes_under_its_own_name() -> None:
    sizes = {
        "attention.head_count": 6, "embedding_length": 50, "block_count": 3, "context_length": 100, "vocab_size": 70,
    }  # fmt: skip
    plain = {"general.architecture": "new", "llama.block_count": 9} | {f"new.{k}": v for k, v in sizes.items()}
    assert _form_of_gguf(plain) == _Form(100, 70, 18, 18, 8, 8)
    more = {
        "new.attention.head_count_kv": 2, "new.attention.key_length": 10, "new.attention.value_length": 7,
        "tokenizer.ggml.tokens": ["a", "b"],
    }  # fmt: skip
    assert _form_of_gguf(plain | more) == _Form(100, 2, 18, 6, 10, 7)
    assert _form_of_gguf(plain | {"new.attention.head_count_kv": [1, 2, 0]}).kv_heads == 3
    assert _form_of_gguf(plain | {"new.embedding_length": 0})[4:6] == (None, None)
    assert _form_of_gguf({"general.architecture": "new"}) == _Form(None, None, None, None, None, None)
    cases: list[tuple[Any, int | None]] = [
        ([2, 3], 2), ([2, 3], 3), ([2**31, 4], 2), ([True, 4], 2), (5, 3), (0, 3), (5, None), ([], 0), ("5", 3),
    ]  # fmt: skip
    assert [_kv_heads(*case) for case in cases] == [5, None, 4, 4, 15, None, None, None, None]


def write_safetensors(path: Path, **tensors: list[int]) -> int:
    header, at = {}, 0
    for name, shape in tensors.items():
        size = 2
        for each in shape:
            size *= each
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    body = json.dumps(header).encode()
    path.write_bytes(len(body).to_bytes(8, "little") + body + bytes(at))
    return path.stat().st_size


def test_weight_files_are_those_of_the_index_and_none_may_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError) as none:
        _shards(tmp_path)
    assert str(none.value) == f"{tmp_path} has no .safetensors file: give a Hugging Face folder or a .gguf file"
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "c.safetensors")]
    for path in reversed(paths):
        path.touch()
    assert _shards(tmp_path) == paths
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "c.safetensors", "y": "a.safetensors", "z": "c.safetensors"}}))
    assert _shards(tmp_path) == [paths[0], paths[2]]
    index.write_text(json.dumps({"weight_map": {"x": "z", "y": "d" * 90, "z": "a.safetensors", "w": "z"}}))
    with pytest.raises(ModelFileError) as lacking:
        _shards(tmp_path)
    assert str(lacking.value) == f"{tmp_path} lacks 2 of 3 weight files, such as {'d' * 80!r}"
    for other in ("{}", '{"weight_map": []}'):
        index.write_text(other)
        assert _shards(tmp_path) == paths


def test_a_template_stands_in_a_file_of_its_own_or_in_the_tokenizers_settings(tmp_path: Path) -> None:
    settings = tmp_path / "tokenizer_config.json"
    found = [_has_template(tmp_path)]
    for text in ("{}", '{"chat_template": null}', '{"chat_template": ""}'):
        settings.write_text(text)
        found.append(_has_template(tmp_path))
    settings.unlink()
    (tmp_path / "chat_template.jinja").touch()
    assert [*found, _has_template(tmp_path)] == [False, False, False, True, True]


def test_a_licence_is_the_first_line_with_text_of_the_first_file_that_can_be_read(tmp_path: Path) -> None:
    assert _licence_file(tmp_path) is None
    (tmp_path / "LICENSE").mkdir()
    assert _licence_file(tmp_path) is None
    (tmp_path / "LICENSE.b").write_text("\n \n  Lizenz é  \nmore\n")
    (tmp_path / "LICENSE.c").write_text("other")
    assert _licence_file(tmp_path) == "Lizenz é"
    (tmp_path / "LICENSE.a").write_bytes(b"\r\n \xff Lizenz\r\nmore")
    assert _licence_file(tmp_path) == "\ufffd Lizenz"
    (tmp_path / "LICENSE.a").write_text(" \n\n")
    assert _licence_file(tmp_path) is None
    (tmp_path / "LICENSE.a").write_text(" " * 4096 + "late")
    assert _licence_file(tmp_path) is None


def test_a_folder_is_read_by_its_config_and_all_its_weights(tmp_path: Path) -> None:
    text = {
        "model_type": "new_text", "num_attention_heads": 6, "hidden_size": 48, "num_hidden_layers": 4,
        "num_key_value_heads": 2, "vocab_size": 70, "max_position_embeddings": 3000,
    }  # fmt: skip
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "new", "license": "mit", "vocab_size": 9, "text_config": text}))
    sizes = [
        write_safetensors(tmp_path / "a.safetensors", x=[7, 3]),
        write_safetensors(tmp_path / "b.safetensors", y=[5]),
    ]
    (tmp_path / "LICENSE").write_text("other")
    facts = inspect(str(tmp_path))
    assert (facts.path, facts.architecture, facts.licence, facts.vocabulary) == (tmp_path, "new", "mit", 70)
    assert (facts.parameters, facts.file_bytes, facts.tensor_types) == (26, sum(sizes), {"F16": 2})
    assert (facts.kv_bytes_per_token, facts.attention_width, facts.context) == (2 * 8 * 16, 24 * 8, 3000)
    config.write_text(json.dumps({**text, "text_config": "none", "model_type": 5}))
    plain = inspect(tmp_path)
    assert (plain.architecture, plain.licence, plain.vocabulary) == (None, "other", 70)
    config.write_text(json.dumps({**text, "model_type": "llama", "intermediate_size": 9}))
    assert (inspect(tmp_path).attention_width, inspect(tmp_path).context) == (4 * 6 * 8, 3000)
    t5 = {
        "model_type": "t5", "vocab_size": 31, "d_model": 12, "d_kv": 5, "d_ff": 9, "num_heads": 4, "num_layers": 2,
        "num_decoder_layers": 3, "n_positions": 77, "license": "", "hidden_size": 12, "num_attention_heads": 4,
    }  # fmt: skip
    (tmp_path / "chat_template.jinja").touch()
    config.write_text(json.dumps(t5))
    seq = inspect(tmp_path)
    assert (seq.architecture, seq.context, seq.vocabulary, seq.attention_width) == ("t5", 77, 31, 12 * 5)
    assert (seq.kv_bytes_per_token, seq.licence, seq.has_chat_template) == (2 * 12 * 10, "other", True)
    config.write_text(json.dumps({"model_type": "new", "text_config": t5}))
    assert (inspect(tmp_path).architecture, inspect(tmp_path).context) == ("new", 77)
    for contested in ({"hidden_size": 99}, {"num_attention_heads": 3}):  # which transformers reads in place of T5's own
        config.write_text(json.dumps(t5 | contested))
        seq = inspect(tmp_path)
        assert (seq.architecture, seq.context, seq.vocabulary) == ("t5", 77, 31)
        assert (seq.attention_width, seq.kv_bytes_per_token) == (None, None)
    with pytest.raises(ModelFileError, match="is a pickle"):
        inspect(tmp_path / "x.bin")


def test_a_gguf_file_is_read_by_its_metadata(tmp_path: Path) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def file(tensor: str = "x.weight", **pairs: Any) -> Inspection:
        found = {"general__architecture": "new", "general__license": "mit", **pairs}
        packed = b"".join(
            text(key.replace("__", "."))
            + (
                struct.pack("<I", 8) + text(value)
                if isinstance(value, str)
                else struct.pack("<If", 6, value)
                if isinstance(value, float)
                else struct.pack("<II", 4, value)
            )
            for key, value in found.items()
        )
        head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(found)) + packed
        head += text(tensor) + struct.pack("<I2QIQ", 2, 4, 3, 0, 0)
        path = tmp_path / "m.gguf"
        path.write_bytes(head + bytes(-len(head) % 32) + bytes(48))
        return inspect(path)

    sizes = {"attention.head_count": 6, "embedding_length": 48, "block_count": 4, "context_length": 3000}
    facts = file(**{f"new__{key.replace('.', '__')}": value for key, value in sizes.items()},
                 tokenizer__chat_template="x")  # fmt: skip
    assert (facts.architecture, facts.licence, facts.has_chat_template, facts.parameters) == ("new", "mit", True, 12)
    assert (facts.attention_width, facts.kv_bytes_per_token, facts.tensor_types) == (24 * 8, 2 * 24 * 16, {"F32": 1})
    assert facts.file_bytes == (tmp_path / "m.gguf").stat().st_size
    (tmp_path / "sha256-1a2b").write_bytes((tmp_path / "m.gguf").read_bytes())
    assert inspect(tmp_path / "sha256-1a2b") == replace(facts, path=tmp_path / "sha256-1a2b"), (
        "as Ollama names its files"
    )
    bare = file(tokenizer__chat_template=5, general__license=7)
    assert (bare.has_chat_template, bare.licence, bare.kv_bytes, bare.context) == (False, None, {}, None)

    llama = {
        "embedding_length": 4, "block_count": 2, "feed_forward_length": 5, "attention.head_count": 2, "context_length": 70,
        "attention.head_count_kv": 1, "attention.layer_norm_rms_epsilon": 1e-5, "attention.sliding_window": 9,
    }  # fmt: skip
    given = {f"llama__{key.replace('.', '__')}": value for key, value in llama.items()}
    known = file("token_embd.weight", general__architecture="llama", **given)
    assert (known.window, known.window_share, known.context, known.vocabulary) == (9, 1.0, 70, 3)
    assert (known.attention_width, known.kv_bytes_per_token, known.head_parameters) == (2 * 2 * 2, 2 * 2 * 4, 12)


def test_the_tokens_that_fit_count_windows_that_are_full() -> None:
    facts = inspected()
    assert (facts.keys_and_values(99), facts.keys_and_values(100), facts.keys_and_values(104)) == (8316, 8400, 8652)
    assert [facts.tokens_in(size) for size in (0, 83, 84, 8399, 8400, 8652, 8651)] == [0, 0, 1, 99, 100, 104, 103]
    whole = inspected(form=FORM._replace(window_share=1.0))
    assert (whole.tokens_in(8399), whole.tokens_in(8400), whole.keys_and_values(9999)) == (99, 5000, 8400)
    none = inspected(form=FORM._replace(window=None))
    assert (none.tokens_in(8483), none.keys_and_values(101)) == (100, 8484)
    assert inspected(kind="bert").tokens_in(84) is None and inspected(kind="bert").keys_and_values(1) is None
    mapped = replace(
        inspected(), tensor_types=MappingProxyType({"F16": 1}), weight_bytes=MappingProxyType({"int8": 2})
    ).to_json()
    assert json.loads(json.dumps(mapped))["tensor_types"] == {"F16": 1} and mapped["weight_bytes"] == {"int8": 2}
    assert _embeddings_and_head([tensor("weight", "F16", 2), tensor("", "F16", 1)]) == (None, None)
    assert inspected().to_json() == {
        **vars(inspected()), "path": "/m", "kv_bytes": {"2048": 84 * 1561, "5000": 84 * 3775},
    }  # fmt: skip
