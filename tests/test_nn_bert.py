"""Encoders against transformers, and the compiled form against torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firsthand.errors import ConfigError, FirsthandError, ModelFileError
from firsthand.kernels.products.amx_products import has_tiles
from firsthand.nn.compiled_encoder import CompiledEncoder, arithmetic_here, can_compile
from firsthand.nn.encoder import Encoder, Together
from firsthand.nn.encoder_arithmetic import Arithmetic, Shorts, Tiles
from firsthand.nn.families.bert import BertArchitecture
from firsthand.nn.weights import load, load_encoder

torch.set_num_threads(1)
SIZES: dict[str, Any] = dict(
    vocab_size=131,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=2,
    max_position_embeddings=80,
)


def reference(kind: str = "Bert", **changes: Any) -> Any:
    """A transformers model with random weights, norms and biases among them, so that none can be forgotten."""
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **changes})
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "LayerNorm.weight" in name else 0.0, 0.2)
    return model


def packed(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(5, 131, (sum(lengths),), generator=torch.Generator().manual_seed(seed))
    return ids, torch.cat([torch.arange(length) for length in lengths])


@torch.no_grad()
def one_by_one(model: Any, ids: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    return torch.cat([model(text[None]).last_hidden_state[0] for text in ids.split(lengths)])


TILES_ONLY = pytest.mark.skipif(not has_tiles(), reason="needs a CPU with AMX")
TILES = pytest.param("tiles", marks=TILES_ONLY)
ARITHMETICS = pytest.mark.parametrize("kind", ["shorts", TILES])


def arithmetic(kind: str) -> Arithmetic:
    return Tiles() if kind == "tiles" else Shorts()


def compiled_encoder(kind: str, hidden: int = 64, heads: int = 2, **changes: Any) -> tuple[Encoder, CompiledEncoder]:
    a = BertArchitecture("bert", 131, hidden, 2 * hidden, 2, heads, 300, 0, 2, 1e-12, **changes)
    torch.manual_seed(1)
    encoder = Encoder(a).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.15)
    return encoder, CompiledEncoder(encoder, arithmetic(kind))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Bert", {}),
        ("Bert", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "type_vocab_size": 1}),
        ("Roberta", {"type_vocab_size": 1}),
        ("XLMRoberta", {"type_vocab_size": 1, "pad_token_id": 1}),
    ],
)
def test_packed_texts_give_what_transformers_gives_each_alone(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    model = reference(kind, **changes)
    model.save_pretrained(tmp_path)
    lengths = [3, 3, 1, 40, 7]
    ids, positions = packed(lengths)
    with torch.no_grad():
        ours = load_encoder(tmp_path)(ids, positions, Together(lengths))
    assert torch.allclose(ours, one_by_one(model, ids, lengths), atol=1e-5)


def test_a_file_with_a_head_and_a_prefix_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)).eval()
    model.save_pretrained(tmp_path)
    ids, positions = packed([9])
    with torch.no_grad():
        ours = load_encoder(tmp_path)(ids, positions, Together([9]))
    assert torch.allclose(ours, one_by_one(model.bert, ids, [9]), atol=1e-5)


@pytest.mark.slow
@ARITHMETICS
@pytest.mark.parametrize(("hidden", "heads"), [(64, 2), (128, 2), (96, 3), (128, 1), (448, 7)])
def test_the_compiled_encoder_is_near_the_plain_one(hidden: int, heads: int, kind: str) -> None:
    encoder, compiled = compiled_encoder(kind, hidden, heads)
    lengths = [1, 2, 15, 16, 17, 33, 64, 100, 257]
    ids, positions = packed(lengths)
    with torch.no_grad():
        plain = encoder(ids, positions, Together(lengths)).numpy()
    ours = compiled.forward(ids.numpy(), lengths)
    most, mean = (1e-3, 8e-5) if kind == "tiles" else (8e-3, 8e-4)
    assert ours.shape == plain.shape and np.abs(ours - plain).max() < most and np.abs(ours - plain).mean() < mean


@ARITHMETICS
def test_scores_of_hundreds_are_no_more_than_their_differences_and_the_norms_have_their_eps(kind: str) -> None:
    a = BertArchitecture("bert", 131, 64, 128, 2, 2, 300, 0, 2, 0.3)  # an eps that shows
    torch.manual_seed(2)
    encoder = Encoder(a).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.15)
            if name.endswith(
                "k_proj.bias"
            ):  # adds the same number to all scores of a query: the softmax is what it was
                parameter += 300.0
    lengths = [5, 17, 33, 47]
    ids, positions = packed(lengths)
    with torch.no_grad():
        plain = encoder(ids, positions, Together(lengths)).numpy()
    ours = CompiledEncoder(encoder, arithmetic(kind)).forward(ids.numpy(), lengths)
    assert np.isfinite(ours).all() and np.abs(ours - plain).max() < 5e-3 and np.abs(ours - plain).mean() < 5e-4


@ARITHMETICS
def test_in_the_compiled_encoder_no_bit_depends_on_the_company(kind: str) -> None:
    _, compiled = compiled_encoder(kind)
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 131, size=int(length)) for length in rng.integers(1, 70, size=24)]
    alone = [compiled.forward(text, [len(text)]) for text in texts]
    for _ in range(4):
        order = rng.permutation(len(texts))[: rng.integers(2, 25)]
        together = compiled.forward(np.concatenate([texts[i] for i in order]), [len(texts[i]) for i in order])
        for i, rows in zip(order, np.split(together, np.cumsum([len(texts[i]) for i in order])[:-1]), strict=True):
            assert rows.tobytes() == alone[i].tobytes()


@given(st.integers(0, 10_000), st.sampled_from([1e-20, 1e-3, 1.0, 1e3, 1e10]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_products_of_16_bits_cannot_overflow_and_stay_near(seed: int, size: float, has_outlier: bool) -> None:
    from firsthand.kernels.products import int16_products as kernels

    rng = np.random.default_rng(seed)
    rows, inputs, outputs = 6, 96, 64
    x = rng.standard_normal((rows, inputs)).astype(np.float32) * np.float32(size)
    weight = rng.standard_normal((outputs, inputs)).astype(np.float32)
    x[1] = weight[3] * np.float32(size)  # as long as can be in one direction: Cauchy-Schwarz is met with equality
    x[2] = 0
    if has_outlier:
        x[0, 5] *= 1000
        weight[1, 7] *= 1000
    product = Shorts().pack(torch.from_numpy(weight), torch.zeros(outputs))
    rounded, scales = np.zeros(x.size, np.int16), np.zeros(x.size // kernels.BLOCK, np.float32)
    out = np.full(rows * outputs, np.nan, np.float32)
    kernels.round_rows(x.reshape(-1), rows, inputs, rounded, scales)
    kernels.products(
        rounded.view(np.int32), scales, product.numbers, product.scales, product.bias, rows, inputs, outputs,
        out, kernels.PANEL, outputs,
    )  # fmt: skip
    exact = x.astype(np.float64) @ weight.astype(np.float64).T
    bound = np.linalg.norm(x.astype(np.float64), axis=1)[:, None] * np.linalg.norm(weight.astype(np.float64), axis=1)
    assert (np.abs(out.reshape(rows, outputs) - exact) <= 2e-4 * bound + 1e-25).all()


@TILES_ONLY
@given(st.integers(0, 10_000), st.sampled_from([1e-20, 1e-3, 1.0, 1e3, 1e10]), st.sampled_from([1, 2]))
@settings(max_examples=20, deadline=None)
def test_products_on_tiles_stay_near(seed: int, size: float, parts: Any) -> None:
    rng = np.random.default_rng(seed)
    rows, inputs, outputs = 48, 416, 64  # a tile of rows without a second one, and a turn of one step
    x = rng.standard_normal((rows, inputs)).astype(np.float32) * np.float32(size)
    weight, bias = rng.standard_normal((outputs, inputs)).astype(np.float32), rng.standard_normal(outputs)
    by = Tiles(parts)
    held, out = by.empty(rows, inputs), np.full(rows * outputs, np.nan, np.float32)
    by.round(x.reshape(-1), rows, inputs, held)
    by.multiply(held, by.pack(torch.from_numpy(weight), torch.from_numpy(bias * size)), rows, out)
    exact = x.astype(np.float64) @ weight.astype(np.float64).T + bias * size
    bound = np.linalg.norm(x.astype(np.float64), axis=1)[:, None] * np.linalg.norm(weight.astype(np.float64), axis=1)
    assert (np.abs(out.reshape(rows, outputs) - exact) <= (2e-6 if parts == 2 else 4e-3) * bound).all()


def test_without_tiles_they_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.kernels.products import amx_products

    monkeypatch.setattr(amx_products, "has_tiles", lambda: False)
    assert isinstance(arithmetic_here("bfloat16"), Shorts)
    with pytest.raises(ConfigError, match="AMX"):
        Tiles()


def test_gelu_is_that_of_torch() -> None:
    from numba import njit

    from firsthand.kernels.products.int16_products import gelu
    from firsthand.kernels.vectors import load, store

    @njit  # type: ignore[untyped-decorator]
    def through(x: Any, out: Any) -> None:
        for c in range(0, len(x), 16):
            store(out, c, gelu(load(x, c)))

    x = np.linspace(-12, 12, 16 * 2000, dtype=np.float32)
    out = np.empty_like(x)
    through(x, out)
    exact = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    assert np.abs(out - exact).max() < 2e-6


def test_what_does_not_fit_the_kernels_is_said() -> None:
    fits = BertArchitecture("bert", 9, 64, 128, 1, 2, 8, 0, 2, 1e-12)
    assert can_compile(fits)
    for changes in ({"hidden_size": 40}, {"intermediate_size": 100}, {"num_heads": 4}, {"activation": "gelu_tanh"}):
        assert not can_compile(BertArchitecture(**{**vars(fits), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 3}, "num_heads is 3: expected a divisor of hidden_size"),
        ({"hidden_size": 2**30}, "hidden_size"),
        ({"num_hidden_layers": 10**6}, "1 to 1024 layers"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder"),
        ({"layer_norm_eps": -1}, "norm_eps"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
        ({"model_type": "t5"}, "model_type is 't5': expected one of bert"),
        ({"vocab_size": None}, "has no vocab_size"),
        ({"intermediate_size": 128}, "does not hold the bert it says"),
        ({"num_hidden_layers": 4}, "16 missing: encoder.layer.3"),
        ({"num_hidden_layers": 2}, "16 surplus: encoder.layer.2"),
    ],
)
def test_a_config_that_cannot_be_is_a_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    reference().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ModelFileError, match=message):
        load_encoder(tmp_path)


VALUES = (
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=5) | st.lists(st.integers())
)


@pytest.mark.slow
@given(st.sampled_from(sorted(reference().config.to_dict())), VALUES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_a_config_loads_or_is_a_sentence(tmp_path: Path, key: str, value: Any) -> None:
    if not (tmp_path / "model.safetensors").exists():
        reference().save_pretrained(tmp_path)
        (tmp_path / "kept.json").write_text((tmp_path / "config.json").read_text())
    config = json.loads((tmp_path / "kept.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
    try:
        assert isinstance(load_encoder(tmp_path), Encoder)
    except FirsthandError:
        return


def test_an_encoder_is_no_decoder_and_a_file_no_encoder(tmp_path: Path) -> None:
    reference().save_pretrained(tmp_path)
    with pytest.raises(ModelFileError, match=r"is of an encoder \(bert\), which embeds texts and writes none"):
        load(tmp_path)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFileError, match="an encoder is read from a folder"):
        load_encoder(tmp_path / "m.gguf")
    with pytest.raises(ConfigError, match="1 token or more"):
        Together([3, 0])


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("DistilBert", dict(dim=64, hidden_dim=96, n_layers=3, n_heads=2)),
        ("MPNet", dict(relative_attention_num_buckets=32, pad_token_id=1)),
    ],
)
def test_distilbert_and_mpnet_are_transformers(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    sizes = dict(vocab_size=131, max_position_embeddings=80) if kind == "DistilBert" else SIZES
    config = getattr(transformers, f"{kind}Config")(**{**sizes, **changes})
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{kind}Model")(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_(1.0 if "orm.weight" in name else 0.0, 0.2)
    theirs.save_pretrained(tmp_path)
    ours, lengths = load_encoder(tmp_path), [5, 40, 1]
    ids, positions = packed(lengths)
    with torch.no_grad():
        found = ours(ids, positions, Together(lengths))
    torch.testing.assert_close(found, one_by_one(theirs, ids, lengths), atol=1e-4, rtol=0)
    assert can_compile(ours.architecture) is (kind == "DistilBert")
    if kind == "DistilBert":
        compiled = CompiledEncoder(ours).forward(ids.numpy(), lengths)
        np.testing.assert_allclose(compiled, found.numpy(), atol=0.02)
