"""Packs of an embedder and a reranker: real hidden states, what is computed after an error or an early end, and loading."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from engine_tiny import tiny_model
from firsthand.embed import embedding
from firsthand.embed.embedding import TextEmbedder, _torch_forward, load
from firsthand.embed.embedding_config import EmbeddingConfig
from firsthand.embed.pair_config import PairConfig
from firsthand.embed.relevance import RelevanceModel
from firsthand.errors import ModelError
from firsthand.nn import weights
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.encoder import Encoder, Together
from firsthand.nn.gguf_writer import save_gguf
from firsthand.nn.pair_classifier import PairClassifier
from firsthand.tokens import pretrained
from firsthand.tokens.vocab_export import vocabulary_metadata
from test_embedded_vectors import Sums, architecture, embedder
from test_embedding_files import tokenizer

LENGTHS = [3, 1, 5, 2]
IDS = np.array([4, 9, 2, 7, 30, 31, 32, 5, 6, 8, 8], np.int64)


def random_weights(model: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def test_each_text_of_a_pack_has_the_hidden_states_that_it_has_alone() -> None:
    encoder, decoder = random_weights(Encoder(architecture())), tiny_model(0)
    for model, attend in ((encoder, Together), (decoder, Packed)):
        found = _torch_forward(model)(IDS, LENGTHS)
        assert found.dtype == np.float32 and len(found) == len(IDS)
        end = 0
        for length in LENGTHS:
            ids = torch.from_numpy(IDS[end : end + length])
            with torch.no_grad():
                alone = model(ids, torch.arange(length), attend([length])).numpy()
            assert np.abs(found[end : end + length] - alone).max() < 1e-5 * np.abs(alone).max()
            end += length
    changed = IDS.copy()
    changed[2] = 11  # the last token of the first text
    begins = [np.abs(_torch_forward(each)(changed, LENGTHS) - _torch_forward(each)(IDS, LENGTHS)).max(1) > 1e-6
              for each in (encoder, decoder)]  # fmt: skip
    assert begins[0].tolist() == [True] * 3 + [False] * 8, "an encoder looks at all of a text, and at no other"
    assert begins[1].tolist() == [False, False, True] + [False] * 8, "a decoder at what came before"


def test_models_in_bfloat16_give_vectors_and_scores_in_float32() -> None:
    half = [random_weights(made).bfloat16() for made in (Encoder(architecture()), tiny_model(0))]
    for model in half:
        found = _torch_forward(model)(IDS, LENGTHS)
        wanted = _torch_forward(model.float())(IDS, LENGTHS)  # its rounded weights, computed in float32
        assert found.dtype == np.float32 and np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()
    config = PairConfig(((7, 0), ("A", 0), (8, 0), ("B", 1), (8, 1)), 30, "identity")
    pairs = random_weights(PairClassifier(architecture())).bfloat16()
    scores = RelevanceModel(pairs, tokenizer(), config).score("w1", ["w2", "w3 w4"])
    wanted = RelevanceModel(pairs.float(), tokenizer(), config).score("w1", ["w2", "w3 w4"])
    assert scores.dtype == np.float64 and scores == pytest.approx(wanted, abs=0.1 * np.abs(wanted).max())


@pytest.mark.parametrize("is_fast", [True, False])
def test_the_kernels_are_ours_where_they_are_fast_or_asked_for_and_never_where_they_are_forbidden(
    is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "is_fast_here", lambda: is_fast)
    wide = architecture(hidden_size=64, intermediate_size=64)
    for compiled, expected in ((None, is_fast), (False, False), (True, True)):
        made = TextEmbedder(Encoder(wide), tokenizer(), EmbeddingConfig("mean", 9), compiled=compiled)
        assert made.is_compiled is expected
        made.close()


def test_an_embedder_has_a_thread_for_each_pack_where_the_kernels_are_ours() -> None:
    wide = architecture(hidden_size=64, intermediate_size=64)
    config = EmbeddingConfig("mean", 9)
    for given, is_compiled, workers in (
        ({"compiled": True}, True, torch.get_num_threads()),
        ({"compiled": True, "threads": 2, "precision": "bfloat16"}, True, 2),
        ({"compiled": False, "threads": 2}, False, 1),
    ):
        made = TextEmbedder(Encoder(wide), tokenizer(), config, **given)  # type: ignore[arg-type]
        assert (made.is_compiled, made._workers, made.dimension) == (is_compiled, workers, 64)
        assert made._pool.workers == workers and made.config is config
        made.close()
        with pytest.raises(RuntimeError, match="after shutdown"):
            made.embed(["w1"])
        pair = PairConfig((("A", 0), ("B", 1)), 9, "identity")
        given.pop("precision", None)
        model = RelevanceModel(PairClassifier(wide), tokenizer(), pair, **given)  # type: ignore[arg-type]
        assert (model.is_compiled, model._workers, model._pool._max_workers) == (is_compiled, workers, workers)
        assert (model._compiled is not None) is is_compiled
        model.close()
        with pytest.raises(RuntimeError, match="after shutdown"):
            model.score("w1", ["w2"])


def test_a_pair_has_the_logit_of_its_own_tokens_and_types_in_torch_and_in_our_kernels() -> None:
    wide = architecture(hidden_size=64, intermediate_size=64)
    model = random_weights(PairClassifier(wide)).eval()
    config = PairConfig(((7, 0), ("A", 0), (8, 0), ("B", 1), (8, 1)), 30, "identity")
    texts = ["w3 w4 w5", "", "w6", "w1 " * 20]
    wanted = []
    for ids, types in RelevanceModel(model, tokenizer(), config, compiled=False).pairs("w1 w2", texts):
        with torch.no_grad():
            hidden = model.encoder(torch.tensor(ids), torch.arange(len(ids)), Together([len(ids)]), torch.tensor(types))
            wanted.append(model.logits(hidden[:1]).item())
    assert np.ptp(wanted) > 0.01
    for compiled, most in ((False, 1e-4), (True, 0.05)):
        ours = RelevanceModel(model, tokenizer(), config, compiled=compiled, threads=2)
        found = ours.score("w1 w2", texts)
        assert np.abs(found - wanted).max() < most * np.ptp(wanted)
        assert np.array_equal(ours.score("w1 w2", texts[:1]), found[:1]) or not compiled, "whatever is beside it"
        ours.close()


class Gate:
    """Keeps the number of each pack that is computed; the pack `fails` fails, and `waits` waits until it may go."""

    def __init__(self, fails: int, waits: int):
        self.seen: list[int] = []
        self.fails, self.waits = fails, waits
        self.began, self.goes = threading.Event(), threading.Event()

    def enter(self, number: int) -> None:
        self.seen.append(number)
        if number == self.waits:
            self.began.set()
            assert self.goes.wait(20)
        if number == self.fails:
            raise ModelError("broken")

    def computed(self, pool: Any) -> list[int]:
        """All packs that are computed in the end."""
        self.goes.set()
        pool.submit(int).result()
        return self.seen


WORDS = [f"w{number} " * 300 for number in range(1, 9)]
"""Each is a pack."""


def test_an_embedder_does_not_compute_what_nobody_waits_for_any_more() -> None:
    for fails, waits in ((0, 4), (1, 2)):
        made, gate = embedder(EmbeddingConfig("mean", 600)), Gate(fails, waits)

        def forward(ids_N: Any, lengths: Sequence[int], gate: Gate = gate) -> Any:
            gate.enter(int(ids_N[0]))
            return np.ones((len(ids_N), 2), np.float32)

        made._forward = forward
        parts = made.embed_batches(WORDS, batch_size=3)
        if fails:
            with pytest.raises(ModelError, match="broken"):
                next(parts)
        else:
            assert next(parts).num_tokens == (300,) * 3
            assert gate.began.wait(20), "the second window has begun by now"
        parts.close()  # type: ignore[attr-defined]
        found = gate.computed(made._pool)
        assert found == ([1, 2, 3, 4] if not fails else [1, 2][: len(found)]), "what had not begun is cancelled"
        made.close()


def test_a_reranker_does_not_go_on_after_an_error() -> None:
    gate = Gate(fails=1, waits=2)

    class Gated(PairClassifier):
        def forward(self, ids_N: Any, *given: Any) -> Any:
            gate.enter(int(ids_N[-1]))
            return torch.zeros(1)

    config = PairConfig((("A", 0), ("B", 1)), 600, "identity")
    model = RelevanceModel(Gated(architecture()), tokenizer(), config)
    with pytest.raises(ModelError, match="broken"):
        model.score("w9", WORDS)
    assert gate.computed(model._pool) in ([1], [1, 2]), "the second may have begun"
    model.close()


def test_a_gguf_decoder_embeds_by_its_last_token_and_a_given_pooling_changes_nothing_else(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "m", max_position=40)
    path = tmp_path / "m.gguf"
    save_gguf(weights.load(folder), path, dtype="F32", vocabulary=vocabulary_metadata(folder))
    words = pretrained.load(path)
    before = (words.bos_id,) if words.add_bos else ()
    own = tmp_path / "own"  # the transformer in a folder of its own, and a pooling that the modules name
    own.mkdir()
    (own / "0_Model").symlink_to(folder)
    (own / "1_Pooling").mkdir()
    (own / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (own / "modules.json").write_text(
        '[{"type": "x.Transformer", "path": "0_Model"}, {"type": "x.Pooling", "path": "1_Pooling"}]'
    )
    apart, last = load(own), load(own, pooling="cls")
    assert apart.config == EmbeddingConfig("mean", 40, before) and last.config == EmbeddingConfig("cls", 40, before)
    apart.close()
    last.close()
    for place in (str(path), folder):
        plain, mean = load(place, threads=5), load(place, pooling="mean")
        assert plain.config == EmbeddingConfig("lasttoken", 40, before)  # type: ignore[arg-type]
        assert mean.config == EmbeddingConfig("mean", 40, before)  # type: ignore[arg-type]
        assert not plain.is_compiled and plain.dimension == weights.load(folder).architecture.hidden_size
        long = plain.embed(["The answer is " * 40, "42"])
        assert (long.num_tokens[0], long.truncated) == (40, (True, False))
        assert not np.array_equal(mean.embed(["The answer"]).vectors, plain.embed(["The answer"]).vectors)
        plain.close()
        mean.close()


def test_a_reranker_may_have_rows_to_spare_and_one_odd_score_of_many_is_an_error() -> None:
    config = PairConfig((("A", 0), ("B", 1)), 9, "identity")
    for spare in (0, 1, 24):
        wide = RelevanceModel(Sums(architecture(vocab_size=40 + spare)), tokenizer(), config)
        assert wide.score("w9", ["w1", "w2"]).tolist() == [19.0, 29.0]
        wide.close()

    class Odd(Sums):
        def forward(self, *given: Any) -> Any:
            made = super().forward(*given)
            made[made == 29] = self.less_finite
            return made

        less_finite = 0.0

    odd = RelevanceModel(Odd(architecture()), tokenizer(), config)
    for activation in ("identity", "sigmoid"):
        both = RelevanceModel(odd.model, tokenizer(), PairConfig(config.parts, 9, activation))  # type: ignore[arg-type]
        for wrong in (float("nan"), float("inf"), -float("inf")):
            odd.model.less_finite = wrong  # type: ignore[assignment]
            with pytest.raises(ModelError) as told:
                both.score("w9", ["w1", "w2", "w3"])
            assert str(told.value) == "the reranker gave numbers that are not finite: its weights may be damaged"
            assert np.isfinite(both.score("w9", ["w1", "w3"])).all(), "the others have scores"
        both.close()
    odd.close()
