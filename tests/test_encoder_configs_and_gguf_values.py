"""Configs of encoders key by key, and the values that GGUF files hold in an order or a size of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.families import gemma, llama
from firsthand.nn.families.bert import MODEL_TYPES, BertArchitecture, from_config
from firsthand.nn.families.shared_fields import experts_from_gguf, experts_to_gguf, without_rope
from firsthand.nn.layout_reader import LayoutReader
from firsthand.nn.weight_layout import ROWS, FileLayout, row

LEAST = {
    "vocab_size": 70, "hidden_size": 64, "intermediate_size": 90, "num_hidden_layers": 5, "num_attention_heads": 8,
    "max_position_embeddings": 40,
}  # fmt: skip
DISTILLED = {
    "vocab_size": 70, "dim": 64, "hidden_dim": 90, "n_layers": 5, "n_heads": 8, "max_position_embeddings": 40,
}  # fmt: skip
BERT = BertArchitecture("bert", 70, 64, 90, 5, 8, 40, 0, 2, 1e-12)
A = Architecture(
    "llama", 20, 12, 16, 2, 3, num_kv_heads=1, head_dim=4, max_position=64, norm_eps=1e-5, windows=(None, None),
    ropes=(Rope(), Rope()), tie_embeddings=False,
)  # fmt: skip


def read(family: str, **more: Any) -> BertArchitecture:
    least = DISTILLED if family == "distilbert" else LEAST
    return from_config(Fields({"model_type": family, **least, **more}, "c"))


def test_absent_keys_of_an_encoder_are_its_kind_s_defaults_and_given_ones_count() -> None:
    others = {"roberta": {"first_position": 2}, "xlm-roberta": {"first_position": 2}, "distilbert": {"num_types": 0},
              "mpnet": {"first_position": 2, "num_types": 0, "num_buckets": 32}, "bert": {}}  # fmt: skip
    assert set(others) == set(MODEL_TYPES)
    for family, own in others.items():
        assert read(family) == replace(BERT, family=family, **own)  # type: ignore[arg-type]
    given: dict[str, Any] = {
        "pad_token_id": 0, "type_vocab_size": 3, "layer_norm_eps": 0.01, "hidden_act": "gelu_new", "activation": "relu6",
        "relative_attention_num_buckets": 32, "position_embedding_type": "absolute", "is_decoder": False,
    }  # fmt: skip
    changed = replace(BERT, norm_eps=0.01, activation="gelu_tanh", num_types=3)
    assert read("bert", **given) == changed
    assert read("roberta", **given) == replace(changed, family="roberta", first_position=1)
    assert read("mpnet", **given) == replace(changed, family="mpnet", first_position=2, num_types=0, num_buckets=32)
    distilled = read("distilbert", **given | {"activation": "silu"})
    assert distilled == replace(BERT, family="distilbert", num_types=0, activation="silu")
    assert read("bert", type_vocab_size=0).num_types == 0
    for family, changes, said in (
        ("bert", {"position_embedding_type": "relative_key"},
         "c: position_embedding_type is 'relative_key': expected 'absolute', the only kind that is read"),
        ("distilbert", {"position_embedding_type": "rope"},
         "c: position_embedding_type is 'rope': expected 'absolute', the only kind that is read"),
        ("roberta", {"is_decoder": True}, "c: is_decoder is 'True': expected false: the model is to see both ways"),
        ("mpnet", {"relative_attention_num_buckets": 16},
         "c: relative_attention_num_buckets is '16': expected 32, which transformers computes whatever the table's rows"),
        ("bert", {"hidden_act": "relu"},
         "c: hidden_act is 'relu': expected one of silu, swish, gelu, gelu_new, gelu_pytorch_tanh"),
        ("distilbert", {"activation": "relu"},
         "c: activation is 'relu': expected one of silu, swish, gelu, gelu_new, gelu_pytorch_tanh"),
        ("distilbert", {"dim": None}, "c has no dim: expected a whole number from 0 to 2**31"),
        ("bert", {"num_hidden_layers": 0}, "c: num_hidden_layers is '0': expected 1 to 1024 layers"),
    ):  # fmt: skip
        with pytest.raises(ModelFileError) as told:
            read(family, **changes)
        assert str(told.value) == said
    with pytest.raises(ConfigError, match=r"^first_position is 40: expected below 40$"):
        read("roberta", pad_token_id=39)
    assert read("roberta", pad_token_id=38).max_tokens == 1


def test_llama_s_rotated_pairs_lie_side_by_side_in_gguf_biases_too_and_gemma_s_norms_have_their_one() -> None:
    q, k = torch.arange(24.0).reshape(12, 2), torch.arange(4.0)
    # of each head of 4 the halves 0 1 and 2 3 become the pairs 0 2 and 1 3
    in_file = q[[0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11]]
    q_name, k_name = "layers.1.attention.q_proj.weight", "layers.0.attention.k_proj.bias"
    assert torch.equal(llama.to_gguf_values(q_name, q, A), in_file)
    assert torch.equal(llama.from_gguf_values(q_name, in_file, A), q)
    assert llama.to_gguf_values(k_name, k, A).tolist() == [0, 2, 1, 3]
    assert llama.from_gguf_values(k_name, k, replace(A, head_dim=4)).tolist() == [0, 2, 1, 3]
    wide = torch.arange(8.0)  # two heads of 4, or a head of 8
    assert llama.to_gguf_values(k_name, wide, A).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert llama.from_gguf_values(k_name, wide, A).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    two = replace(A, num_kv_heads=2, num_heads=2)
    assert llama.to_gguf_values(k_name, wide, two).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    for name in ("layers.0.attention.v_proj.weight", "layers.0.attention.o_proj.weight", "embed.weight", "norm.weight"):
        assert llama.to_gguf_values(name, q, A) is q and llama.from_gguf_values(name, q, A) is q
    for name, is_norm in (
        ("norm.weight", True), ("layers.0.attention_norm.weight", True), ("layers.0.attention.q_norm.weight", True),
        ("layers.0.attention.q_proj.weight", False), ("embed.weight", False), ("norm.bias", False),
    ):  # fmt: skip
        assert gemma.to_gguf_values(name, k, A).tolist() == [x + is_norm for x in range(4)]
        assert gemma.from_gguf_values(name, k, A).tolist() == [x - is_norm for x in range(4)]


def test_the_experts_of_a_gguf_file_begin_after_its_dense_layers() -> None:
    def read_experts(**given: int) -> Any:
        fields = Fields({f"x.{key}": value for key, value in given.items()}, "a.gguf", "x.")
        return experts_from_gguf(fields, 4, scale=1.5)

    given = {"expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20}
    for dense in (0, 1, 3):
        found = read_experts(**given, leading_dense_block_count=dense)
        assert found.layers == tuple(layer >= dense for layer in range(4)) and found.scale == 1.5
        assert (found.num_experts, found.per_token, found.width) == (6, 2, 20)
        assert experts_to_gguf(found) == {**given, "leading_dense_block_count": dense}
    assert read_experts(**given).layers == (True,) * 4
    with pytest.raises(ConfigError, match="a layer that has experts"):
        read_experts(**given, leading_dense_block_count=4)
    with pytest.raises(ConfigError, match=r"^experts' width is 0"):
        read_experts(expert_count=6, expert_used_count=2)
    wide = experts_from_gguf(Fields({"expert_count": 6, "expert_used_count": 2}, "a"), 1, width=7)
    assert wide.width == 7
    assert without_rope(3) == (Rope(kind="none"),) * 3 and without_rope(0) == ()


def test_a_reader_reads_a_joined_tensor_once_and_hands_out_parts_of_its_own() -> None:
    layout = FileLayout(
        outer=(row("a.embed", "embed"), row("head", "lm_head")),
        inner=(row("qk", "q", "k"), row("v", "v")), layers="a.layers", prefix="a.", ignored=(r"a\.old\.\d+",),
    )  # fmt: skip
    shapes = {
        "embed.weight": (2, 3),
        "layers.0.q.weight": (2, 3),
        "layers.0.k.weight": (4, 3),
        "layers.0.v.weight": (1, 3),
    }
    values = {
        "layers.0.qk.weight": torch.arange(18.0).reshape(6, 3), "embed.weight": torch.ones(2, 3),
        "layers.0.v.weight": torch.ones(1, 3),
    }  # fmt: skip
    asked: list[str] = []

    def stored(name: str) -> torch.Tensor:
        asked.append(name)
        return values[name]

    reader = LayoutReader(layout, ["embed.weight", "head.weight"], stored)  # an older file, without the prefix
    assert reader.needed(shapes) == {
        "embed.weight": (2, 3), "layers.0.qk.weight": (6, 3), "layers.0.v.weight": (1, 3),
    }  # fmt: skip
    q, k = reader.read("layers.0.q.weight"), reader.read("layers.0.k.weight")
    assert (q.tolist(), k[0].tolist(), asked) == ([[0, 1, 2], [3, 4, 5]], [6, 7, 8], ["layers.0.qk.weight"])
    q.zero_()
    assert values["layers.0.qk.weight"][1].tolist() == [3, 4, 5]
    assert reader.read("embed.weight").data_ptr() == values["embed.weight"].data_ptr()  # whole: no copy is made
    reader.read("layers.0.q.weight")
    assert asked == ["layers.0.qk.weight", "embed.weight", "layers.0.qk.weight"]
    assert [reader.rows(f"layers.0.{name}.weight") for name in "qkv"] == [
        ("layers.0.qk.weight", 0, 2), ("layers.0.qk.weight", 2, 6), ("layers.0.v.weight", 0, 1),
    ]  # fmt: skip
    names = ("layers.0.k.weight", "embed.weight", "lm_head.weight")
    assert [reader.name_of(name) for name in names] == ["layers.0.qk.weight", "embed.weight", "head.weight"]
    newer = LayoutReader(layout, ["a.embed.weight"], stored)
    newer.needed(shapes)
    assert [newer.name_of(name) for name in names] == ["a.layers.0.qk.weight", "a.embed.weight", "head.weight"]
    assert [newer.is_ignored(name) for name in ("a.old.12", "a.old.", "xa.old.1", "a.old.1.b", "a.olds1")] == [
        True, False, False, False, False,
    ]  # fmt: skip
    assert not ROWS.split(torch.zeros(3, 2), [(1, 2), (2, 2)])[1].any()
    with pytest.raises(ModelFileError) as told:
        newer.needed(shapes | {"layers.0.z.weight": (1,), "layers.0.y.weight": (1,)})
    assert str(told.value) == (
        "files of this family cannot hold this model: the family's layout has no row for layers.0.y.weight"
    )
