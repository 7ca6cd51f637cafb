"""Settings and tensors that make another model are followed or refused by name, never passed over."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from firsthand.embed.embedding import _load_model, _torch_forward
from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.encoder_decoder import EncoderDecoder
from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture
from firsthand.nn.encoder_decoder_weights import load_encoder_decoder, save_encoder_decoder
from firsthand.nn.families import bert
from firsthand.nn.families.deepseek_gguf import to_gguf
from firsthand.nn.families.spellings import respelled
from firsthand.nn.gguf_quantizer import quantise_model
from firsthand.nn.gguf_writer import save_gguf
from firsthand.nn.model_config import architecture_of, config_architecture, encoder_decoder_architecture, to_config
from firsthand.nn.weights import load, load_encoder, open_checkpoint, save
from firsthand.providers.local_embedder import LocalEmbedder

torch.set_num_threads(1)
FILE = Path("models/config.json")
TINY = Architecture(
    "qwen2", 40, 16, 24, 2, 4, num_kv_heads=2, head_dim=4, max_position=64, norm_eps=1e-6, windows=(None,) * 2,
    ropes=(Rope(),) * 2, tie_embeddings=True, qkv_bias=True,
)  # fmt: skip
LEAST = {"vocab_size": 70, "hidden_size": 64, "intermediate_size": 90, "num_hidden_layers": 4, "num_attention_heads": 8}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
T5 = EncoderDecoderArchitecture(
    "t5", 30, 16, 1, 1, 2, 2, 8, 20, 20, "relative", 64, 1e-6, is_t5=True, num_buckets=8, logit_scale=0.25, end=1
)
BART = EncoderDecoderArchitecture(
    "bart", 30, 16, 1, 1, 2, 2, 8, 20, 20, "learned", 64, 1e-5, activation="gelu", position_offset=2, embed_norm=True,
    has_logit_bias=True, decoder_start=2, end=2,
)  # fmt: skip


def read(kind: str, **said: Any) -> Architecture:
    return config_architecture({"model_type": kind, **LEAST, **said}, FILE)


def two_way() -> Decoder:
    return initialise(Decoder(replace(TINY, is_causal=False)), std=0.3)


@pytest.mark.parametrize("form", ["folder", "file"])
def test_a_decoder_whose_file_says_so_embeds_in_both_directions_and_generates_nothing(
    form: str, tmp_path: Path
) -> None:
    model, path = two_way(), tmp_path / ("m.gguf" if form == "file" else "m")
    save_gguf(model, path, dtype="F32") if form == "file" else save(model, path)
    assert not architecture_of(path).is_causal
    with pytest.raises(ModelFileError, match=r"attends in both directions .* --embedder NAME"):
        load(path)
    forward = _torch_forward(_load_model(path))
    ids = np.array([3, 4, 5, 6, 7])
    alone, other = forward(ids[:3], [3]), forward(np.array([3, 4, 9]), [3])
    assert np.abs(alone[0] - other[0]).max() > 0.01  # the first token sees the last
    together = forward(np.concatenate([ids[:3], ids, ids[:3]]), [3, 5, 3])
    np.testing.assert_allclose(together[:3], alone, atol=1e-5)
    np.testing.assert_allclose(together[8:], alone, atol=1e-5)


def test_a_decoder_that_says_nothing_or_true_embeds_causally(tmp_path: Path) -> None:
    save(initialise(Decoder(TINY), std=0.3), tmp_path)
    assert "is_causal" not in json.loads((tmp_path / "config.json").read_text())
    assert read("qwen2", is_causal=True).is_causal and load(tmp_path).architecture == TINY
    forward = _torch_forward(_load_model(tmp_path))
    first, other = (forward(np.array([3, 4, last]), [3]) for last in (5, 9))
    np.testing.assert_array_equal(first[:2], other[:2])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Qwen2", "Llama"])
def test_hidden_states_in_both_directions_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, is_causal=False,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    theirs.save_pretrained(tmp_path)
    ids = torch.arange(5, 16)
    with torch.no_grad():
        expected = theirs.model(ids[None]).last_hidden_state[0]
    found = torch.from_numpy(_torch_forward(_load_model(tmp_path))(ids.numpy(), [11]))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_windows_in_both_directions_are_refused_for_every_family() -> None:
    assert not read("llama", is_causal=False).is_causal and not read("qwen3", is_causal=False).is_causal
    for said in ({"is_causal": False, "sliding_window": 7}, {"is_causal": False}):  # Mistral's default is a window
        with pytest.raises(ModelFileError, match="is_causal is False: expected true, or no sliding windows"):
            read("mistral", **said)
    assert to_config(read("mistral", is_causal=False, sliding_window=None))["is_causal"] is False


def test_vectors_in_both_directions_have_a_fingerprint_of_their_own(tmp_path: Path) -> None:
    save(two_way(), tmp_path / "both")
    save(two_way(), tmp_path / "same")
    both = LocalEmbedder(tmp_path / "both").fingerprint
    assert both == LocalEmbedder(tmp_path / "same").fingerprint
    files = sorted((tmp_path / "both").iterdir())
    from hashlib import sha256

    from firsthand.hub.content_hash import content_hash

    before = sha256("|".join([*map(content_hash, files), "None", "None", "1"]).encode()).hexdigest()[:16]
    assert both != f"embedder:{before}"
    save(initialise(Decoder(TINY), std=0.3), tmp_path / "both")
    before = sha256("|".join([*map(content_hash, files), "None", "None", "1"]).encode()).hexdigest()[:16]
    assert LocalEmbedder(tmp_path / "both").fingerprint == f"embedder:{before}"


@pytest.mark.parametrize("differs", [True, False])
def test_a_head_in_the_file_that_is_not_the_embedding_is_the_models(differs: bool, tmp_path: Path) -> None:
    save(initialise(Decoder(TINY), std=0.3), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"] + (0.5 if differs else 0.0)
    save_file(state, tmp_path / "model.safetensors")
    model = load(tmp_path)
    torch.testing.assert_close(model.lm_head.weight, state["lm_head.weight"], atol=0, rtol=0)
    assert (model.lm_head.weight is model.embed.weight) is not differs
    assert open_checkpoint(tmp_path).architecture.tie_embeddings is not differs


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_of_the_body_alone_embeds_as_the_whole_one_and_generates_where_its_head_is_tied(
    tied: bool, tmp_path: Path
) -> None:
    whole = initialise(Decoder(replace(TINY, tie_embeddings=tied)), std=0.3)
    save(whole, tmp_path / "whole")
    save(whole, tmp_path / "body")
    state = load_file(tmp_path / "whole" / "model.safetensors")
    body = {name.removeprefix("model."): each for name, each in state.items() if name != "lm_head.weight"}
    save_file(body, tmp_path / "body" / "model.safetensors")
    ids = np.array([3, 4, 5, 6])
    expected, found = (_torch_forward(_load_model(tmp_path / name))(ids, [4]) for name in ("whole", "body"))
    np.testing.assert_array_equal(found, expected)
    assert open_checkpoint(tmp_path / "body").has_head is tied
    if tied:
        torch.testing.assert_close(load(tmp_path / "body").lm_head.weight, whole.lm_head.weight, atol=0, rtol=0)
        return
    with pytest.raises(ModelFileError, match=r"body holds no head \(lm_head\.weight\), so it embeds"):
        load(tmp_path / "body")
    with pytest.raises(ModelFileError, match="body holds no head"):
        quantise_model(tmp_path / "body", tmp_path / "m.gguf", "Q8_0")
    save_file({**body, "norm2.weight": body["norm.weight"].clone()}, tmp_path / "body" / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"1 surplus: model\.norm2\.weight"):
        _load_model(tmp_path / "body")
    del state["lm_head.weight"]
    two = {**state, "embed_tokens.weight": body["embed_tokens.weight"].clone()}  # of a whole model and of a body
    save_file(two, tmp_path / "body" / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"1 missing: lm_head\.weight; 1 surplus: embed_tokens\.weight$"):
        _load_model(tmp_path / "body")
    save_file(state, tmp_path / "body" / "model.safetensors")  # a whole model that lacks its head
    with pytest.raises(ModelFileError, match=r"1 missing: lm_head\.weight"):
        _load_model(tmp_path / "body")


def test_tied_heads_are_compared_across_dtypes_and_a_head_of_another_shape_is_refused(tmp_path: Path) -> None:
    save(initialise(Decoder(TINY), std=0.3), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    table = state["model.embed_tokens.weight"].bfloat16().float()
    for head, tied in ((table.bfloat16(), True), (table.double(), True), ((table + 1).bfloat16(), False)):
        save_file({**state, "model.embed_tokens.weight": table, "lm_head.weight": head}, tmp_path / "model.safetensors")
        assert open_checkpoint(tmp_path).architecture.tie_embeddings is tied
    save_file({**state, "lm_head.weight": table[:-1].clone()}, tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"lm_head\.weight"):
        load(tmp_path)


def test_the_bias_of_cross_attention_that_t5s_first_release_wrote_is_not_read(tmp_path: Path) -> None:
    unused = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.ones(8, 2)}
    for a, fits in ((T5, True), (BART, False)):
        save_encoder_decoder(EncoderDecoder(a), tmp_path)
        save_file({**load_file(tmp_path / "model.safetensors"), **unused}, tmp_path / "model.safetensors")
        if fits:
            load_encoder_decoder(tmp_path)
        else:
            with pytest.raises(ModelFileError, match="EncDecAttention"):
                load_encoder_decoder(tmp_path)


@pytest.mark.parametrize("a", [T5, BART], ids=["t5", "bart"])
def test_an_encoder_decoder_keeps_a_head_of_its_own_through_saving(
    a: EncoderDecoderArchitecture, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    save_encoder_decoder(EncoderDecoder(a), tmp_path / "tied")
    state = load_file(tmp_path / "tied" / "model.safetensors")
    shared = state["shared.weight" if a.is_t5 else "model.shared.weight"]
    for head, own in ((shared.clone(), False), (shared + 1, True)):
        save_file({**state, "lm_head.weight": head}, tmp_path / "tied" / "model.safetensors")
        model = load_encoder_decoder(tmp_path / "tied")
        assert model.architecture.tie_embeddings is not own
        save_encoder_decoder(model, tmp_path / "again")
        assert ("lm_head.weight" in load_file(tmp_path / "again" / "model.safetensors")) is own
        hidden = torch.randn(3, 16)
        torch.testing.assert_close(load_encoder_decoder(tmp_path / "again").logits(hidden), model.logits(hidden))
        torch.testing.assert_close(
            model.logits(hidden), hidden * a.logit_scale @ head.T + (0 if a.is_t5 else model.logit_bias)
        )
    if not a.is_t5:
        assert json.loads((tmp_path / "again" / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize("a", [T5, BART], ids=["t5", "bart"])
def test_an_encoder_or_decoder_with_an_embedding_of_its_own_is_refused(
    a: EncoderDecoderArchitecture, tmp_path: Path
) -> None:
    save_encoder_decoder(EncoderDecoder(a), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    prefix = "" if a.is_t5 else "model."
    for stack in ("encoder", "decoder"):
        name, shared = f"{prefix}{stack}.embed_tokens.weight", state[f"{prefix}shared.weight"]
        save_file({**state, name: shared.clone()}, tmp_path / "model.safetensors")
        load_encoder_decoder(tmp_path)
        for other in (shared + 1, shared[:-1].clone()):
            save_file({**state, name: other}, tmp_path / "model.safetensors")
            with pytest.raises(ModelFileError, match=f"{name} is not {prefix}shared.weight"):
                load_encoder_decoder(tmp_path)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text", "deepseek_v3"])
def test_rope_scaling_that_differs_from_rope_parameters_is_refused(kind: str) -> None:
    more: dict[str, Any] = {"num_key_value_heads": 8, "moe_intermediate_size": 8, "n_routed_experts": 16}
    more |= {"num_experts_per_tok": 2, "first_k_dense_replace": 9}
    plain: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e6}

    def both(parameters: dict[str, Any], scaling: dict[str, Any]) -> Architecture:
        nested = {"full_attention": parameters, "sliding_attention": {"rope_type": "default"}}
        stated = nested if kind == "gemma3_text" else parameters
        return read(kind, **more, rope_parameters=stated, rope_scaling=scaling)

    old = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    for parameters, scaling in (
        (plain, YARN), (plain, old), ({**plain, **YARN}, {**YARN, "factor": 2.0}), ({**plain, **YARN}, {"type": "default"}),
    ):  # fmt: skip
        with pytest.raises(
            ModelFileError, match=r"rope_scaling is .* and remove rope_scaling|its newer name rope_type"
        ):
            both(parameters, scaling)
    themed = {"rope_theta": 1e6}
    older = YARN if kind == "gemma3_text" else old  # where transformers passes `type` over
    for scaling in ({}, {**YARN, **themed}, {**older, **themed}, {**YARN, **themed, "attention_factor": None}):
        assert both({**plain, **YARN}, scaling) == both({**plain, **YARN}, {})
    assert both({"rope_theta": 1e6, **old}, {**YARN, **themed}) == both({**plain, **YARN}, {})
    for scaling in ({"type": "default", **themed}, {"rope_type": "default", **themed}):
        if kind != "gemma3_text" or "type" not in scaling:
            assert both({"rope_theta": 1e6}, scaling) == both(plain, {}) == both({**plain, "type": "default"}, scaling)
    if kind == "gemma3_text":  # transformers adds rope_scaling to what rope_parameters states there
        assert both({**plain, **YARN}, YARN) == both({**plain, **YARN}, {})
        return
    stated = {**plain, **YARN, "attention_factor": 1.5}  # elsewhere it is read in its place
    for lost in (YARN, {**YARN, **themed}, {**YARN, **themed, "attention_factor": None}):
        with pytest.raises(ModelFileError, match=r"rope_scaling is .* and remove rope_scaling"):
            both(stated, lost)
    assert read(kind, **more, rope_theta=1e6, rope_parameters={**plain, **YARN}, rope_scaling=YARN) == both(
        {**plain, **YARN}, {}
    )


def test_stablelm_rotates_a_quarter_of_each_head_unless_the_share_is_stated() -> None:
    plain = {"rope_type": "default", "rope_theta": 1e4}
    assert read("stablelm", rope_parameters=plain).rotated == 2
    assert read("stablelm", rope_parameters={**plain, "partial_rotary_factor": 1.0}).rotated == 8
    assert read("stablelm", rope_parameters=plain, partial_rotary_factor=0.5).rotated == 4
    assert read("phi3", rope_parameters=plain).rotated == 8


def test_mistral_has_windows_where_layer_types_say_so() -> None:
    kinds = ["full_attention", "sliding_attention"] * 2
    found = read("mistral", sliding_window=7, layer_types=kinds)
    assert found.windows == (None, 7, None, 7)
    assert config_architecture(to_config(found), FILE).windows == found.windows
    assert read("mistral", sliding_window=None, layer_types=kinds).windows == (None,) * 4
    assert read("mistral", layer_types=kinds).windows == (None, 4096, None, 4096)
    assert "layer_types" not in to_config(read("mistral", sliding_window=7))
    assert to_config(read("mistral", sliding_window=None))["sliding_window"] is None


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("smollm3", {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]}, "layer_types"),
    ("deepseek_v3", {"scoring_func": "softmax"}, "scoring_func"),
    ("deepseek_v2", {"scoring_func": "sigmoid"}, "scoring_func"),
    ("deepseek_v2", {"norm_topk_prob": True}, "norm_topk_prob"),
    ("deepseek_v2", {"moe_layer_freq": 2}, "moe_layer_freq"),
    ("deepseek_v2", {"topk_method": "noaux_tc"}, "topk_method"),
    ("deepseek_v3", {"topk_method": "greedy"}, "topk_method"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma2", {"use_bidirectional_attention": "all"}, "use_bidirectional_attention"),
    (
        "gemma3_text",
        {"num_key_value_heads": 8, "rope_scaling": {"type": "linear", "factor": 2.0}},
        "rope_scaling: type",
    ),
    ("llama", {"per_layer_config": {"1": {"rms_norm_eps": 0.5}}}, "per_layer_config"),
    ("gpt2", {"n_embd": 64, "n_layer": 4, "n_head": 8, "num_attention_heads": 4}, "num_attention_heads"),
    ("phi3", {"rope_scaling": YARN}, "original_max_position_embeddings"),
    ("mpt", {"logit_scale": 0.5}, "logit_scale"),
    ("mpt", {"logit_scale": "inv_sqrt_d_model"}, "logit_scale"),
]
EXPERTS = {"moe_intermediate_size": 8, "n_routed_experts": 16, "num_experts_per_tok": 2, "n_layers": 4, "n_heads": 8}
EXPERTS |= {"d_model": 64}


@pytest.mark.parametrize(("kind", "said", "key"), REFUSED)
def test_settings_that_are_not_computed_are_refused_by_name(kind: str, said: dict[str, Any], key: str) -> None:
    with pytest.raises(ModelFileError, match=f"{key} is "):
        read(kind, **EXPERTS, **said)


def test_the_released_values_of_these_settings_load() -> None:
    read("smollm3", layer_types=["full_attention"] * 4)
    read("deepseek_v3", **EXPERTS, scoring_func="sigmoid", moe_layer_freq=1, norm_topk_prob=True)
    read("deepseek_v2", **EXPERTS, scoring_func="softmax", moe_layer_freq=1, norm_topk_prob=False)
    assert read("mpt", **EXPERTS, logit_scale=1) == read("mpt", **EXPERTS, logit_scale=None)


SEQ = {
    "t5": {"d_model": 16, "d_ff": 20, "num_layers": 1, "vocab_size": 30},
    "marian": {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 30},
}  # fmt: skip
SEQ["t5"]["num_heads"] = 2


def seq(kind: str, **said: Any) -> EncoderDecoderArchitecture:
    return encoder_decoder_architecture({"model_type": kind, **SEQ[kind], **said}, FILE)


@pytest.mark.parametrize(
    ("kind", "said", "key"),
    [
        ("t5", {"is_causal": False}, "is_causal"),
        ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder"),
        ("marian", {"is_causal": False}, "is_causal"),
        ("marian", {"per_layer_config": {"0": {"num_heads": 1}}}, "per_layer_config"),
        ("t5", {"dense_act_fn": "gelu_new"}, "dense_act_fn"),
        ("t5", {"dense_act_fn": "tanh"}, "dense_act_fn"),
        ("t5", {"feed_forward_proj": "gated-gelu", "dense_act_fn": "relu"}, "dense_act_fn"),
        ("t5", {"is_gated_act": True}, "is_gated_act"),
        ("t5", {"num_heads": 2, "num_attention_heads": 4}, "num_attention_heads"),
    ],
)
def test_settings_of_encoder_decoders_that_are_not_computed_are_refused_by_name(
    kind: str, said: dict[str, Any], key: str
) -> None:
    seq(kind)
    with pytest.raises(ModelFileError, match=f"{key} is "):
        seq(kind, **said)


def test_t5_scales_its_output_unless_null_or_an_untied_head_say_no() -> None:
    scaled = [seq("t5", **said).logit_scale for said in (
        {}, {"scale_decoder_outputs": None}, {"scale_decoder_outputs": False}, {"tie_word_embeddings": False},
        {"tie_word_embeddings": False, "scale_decoder_outputs": True},
    )]  # fmt: skip
    assert scaled == [0.25, 1.0, 1.0, 1.0, 0.25]
    gated = {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True}
    assert (seq("t5", **gated).activation, seq("t5", **gated).is_gated) == ("gelu_tanh", True)


def test_a_key_is_read_under_either_of_its_names() -> None:
    own = config_architecture({"model_type": "gpt2", "vocab_size": 9, "n_embd": 64, "n_layer": 4, "n_head": 8}, FILE)
    names = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 8, "max_position_embeddings": 1024}
    assert config_architecture({"model_type": "gpt2", "vocab_size": 9, **names}, FILE) == own
    both = {"n_embd": 64, "n_layer": 4, "n_head": None, "n_positions": 1024, "per_layer_config": {}}
    assert config_architecture({"model_type": "gpt2", "vocab_size": 9, **names, **both}, FILE) == own
    sizes = {"vocab_size": 9, "max_position_embeddings": 20}
    found = bert.from_config(respelled(Fields({"model_type": "distilbert", **names, **sizes, "hidden_dim": 8}, "F")))
    assert (found.hidden_size, found.num_layers, found.num_heads) == (64, 4, 8)


def test_an_encoder_s_folder_is_read_with_its_second_names_and_refused_by_layer(tmp_path: Path) -> None:
    for said, sentence in (
        ({"dim": 32, "hidden_size": 64}, "hidden_size is '64': expected 32, as in dim"),
        ({"per_layer_config": {"0": {}}}, "per_layer_config is "),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "distilbert", **said}))
        with pytest.raises(ModelFileError, match=sentence):
            load_encoder(tmp_path)


def test_deepseeks_latents_have_norms_of_their_own_eps_in_a_folder_and_the_models_in_gguf() -> None:
    more: dict[str, Any] = EXPERTS | {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "rms_norm_eps": 1e-3}
    more |= {"kv_lora_rank": 32, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "q_lora_rank": 16}
    for kind in ("deepseek_v2", "deepseek_v3"):
        a = read(kind, **more)
        attention = Decoder(a).layers[0].attention
        assert (attention.latent_norm.eps, attention.q_latent_norm.eps, a.norm_eps) == (1e-6, 1e-6, 1e-3)
        assert config_architecture(to_config(a), FILE) == a
        assert a.latent is not None
        with pytest.raises(ConfigError, match="GGUF has one eps for all norms"):
            to_gguf(a)
        single = float(np.float32(1e-6))
        to_gguf(replace(a, norm_eps=single))
        to_config(replace(a, latent=replace(a.latent, norm_eps=single)))
        with pytest.raises(ConfigError, match=r"config\.json means 1e-06"):
            to_config(replace(a, latent=replace(a.latent, norm_eps=1e-3)))
    assert third_experts(norm_topk_prob=None) is False and third_experts() is True


@pytest.mark.slow  # torch imports much for it
def test_the_eps_of_deepseeks_latents_in_gguf_is_the_one_that_the_file_states(tmp_path: Path) -> None:
    more: dict[str, Any] = EXPERTS | {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "rms_norm_eps": 1e-3}
    a = read("deepseek_v3", **more, kv_lora_rank=32)
    assert a.latent is not None
    model = initialise(Decoder(replace(a, latent=replace(a.latent, norm_eps=1e-3))), std=0.1)
    save_gguf(model, tmp_path / "a.gguf", dtype="F32")
    found = architecture_of(tmp_path / "a.gguf").latent
    assert found is not None and found.norm_eps == pytest.approx(1e-3)


def third_experts(**said: Any) -> bool:
    experts = read("deepseek_v3", **EXPERTS, **said).experts
    assert experts is not None
    return experts.renormalise


def test_phi3_takes_the_trained_length_from_beside_the_rope() -> None:
    long = {"type": "longrope", "long_factor": [2.0] * 4, "short_factor": [1.0] * 4}
    stated = {"max_position_embeddings": 8192, "rope_scaling": long}
    assert read("phi3", **stated).ropes[0].original_max_position == 4096
    assert read("phi3", **stated, original_max_position_embeddings=64).ropes[0].original_max_position == 64
    inner = {**long, "original_max_position_embeddings": 64}
    both = {"max_position_embeddings": 8192, "rope_scaling": inner, "original_max_position_embeddings": 64}
    assert read("phi3", **both).ropes[0].original_max_position == 64


@pytest.mark.parametrize("kind", ["linear", "default"])
def test_deepseek_scales_attention_for_every_stretched_rope(kind: str) -> None:
    rope = {"rope_type": kind, "factor": 4.0, "rope_theta": 1e4}
    plain, scaled = (
        read("deepseek_v3", **EXPERTS, rope_parameters={**rope, **more}) for more in ({}, {"mscale_all_dim": 1.0})
    )
    expected = (0.1 * np.log(4) + 1) ** 2 if kind == "linear" else 1.0
    assert scaled.attention_scale / plain.attention_scale == pytest.approx(expected)
    again = config_architecture(to_config(scaled), FILE)
    assert again.attention_scale == pytest.approx(scaled.attention_scale)


def test_mpnets_positions_begin_at_row_2_whatever_its_padding() -> None:
    sizes = {**LEAST, "max_position_embeddings": 40, "pad_token_id": 5}
    rows = {
        kind: bert.from_config(Fields({"model_type": kind, **sizes}, "F")).first_position
        for kind in bert.MODEL_TYPES[:3]
    }
    rows["mpnet"] = bert.from_config(Fields({"model_type": "mpnet", **sizes}, "F")).first_position
    assert rows == {"bert": 0, "roberta": 6, "xlm-roberta": 6, "mpnet": 2}


def test_an_architecture_with_windows_in_both_directions_is_refused_at_birth() -> None:
    with pytest.raises(ConfigError, match="is_causal is False"):
        replace(TINY, is_causal=False, windows=(None, 8))
