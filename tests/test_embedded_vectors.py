"""Vectors of texts and scores of pairs from hidden states that are known: packs, order, pooling, lengths, and errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from firsthand.embed.embedding import TextEmbedder, load
from firsthand.embed.embedding_config import EmbeddingConfig
from firsthand.embed.pair_config import PairConfig
from firsthand.embed.relevance import RelevanceModel, load_relevance
from firsthand.errors import ConfigError, ModelError, ModelFileError
from firsthand.nn.encoder import Encoder
from firsthand.nn.families.bert import BertArchitecture
from firsthand.nn.pair_classifier import PairClassifier
from test_embedding_files import tokenizer


def architecture(**changes: Any) -> BertArchitecture:
    given = {"vocab_size": 40, "hidden_size": 8, "intermediate_size": 8, "num_layers": 1, "num_heads": 2,
             "max_position": 600,
             "first_position": 0, "num_types": 2, "norm_eps": 1e-6}  # fmt: skip
    return BertArchitecture("bert", **{**given, **changes})


def embedder(config: EmbeddingConfig, **given: Any) -> TextEmbedder:
    """One whose hidden state of an id is (id, 1), and that keeps the lengths of its packs in `packs`."""
    words = tokenizer(**given)
    made = TextEmbedder(Encoder(architecture()), words, config)
    made.packs = []  # type: ignore[attr-defined]

    def forward(ids_N: Any, lengths: Sequence[int]) -> Any:
        made.packs.append(list(lengths))  # type: ignore[attr-defined]
        return np.stack([ids_N, np.ones_like(ids_N)], 1).astype(np.float32)

    made._forward = forward
    return made


def unit(x: float, y: float = 1.0) -> list[float]:
    return [x / math.hypot(x, y), y / math.hypot(x, y)]


def test_each_text_has_the_unit_vector_of_its_own_tokens_in_the_order_given() -> None:
    texts = ["w3", "w5 w6 w7 w9", "w4 w8", "w1 w2 w3 w4 w5 w6"]
    for pooling, values in {"mean": (3, 27 / 4, 6, 3), "cls": (3, 5, 4, 1), "lasttoken": (3, 9, 8, 5)}.items():
        made = embedder(EmbeddingConfig(pooling, 5))  # type: ignore[arg-type]
        found = made.embed(texts)
        assert found.vectors == pytest.approx(np.array([unit(value) for value in values]), abs=1e-6)
        assert (found.num_tokens, found.truncated) == ((1, 4, 2, 5), (False, False, False, True))
        assert found.vectors.dtype == np.float32 and made.packs == [[5, 4, 2, 1]]  # type: ignore[attr-defined]
        made.close()


def test_texts_stand_between_special_tokens_and_batches_in_their_order() -> None:
    made = embedder(EmbeddingConfig("mean", 4, (10,), (20, 30), True))
    assert made.tokenise("W7") == ([10, 7, 20, 30], False) and made.tokenise("w1 w2") == ([10, 1, 20, 30], True)
    assert made.tokenise("") == ([10, 20, 30], False)
    parts = list(made.embed_batches((f"w{number}" for number in range(5)), batch_size=2))
    assert [part.num_tokens for part in parts] == [(4, 4), (4, 4), (4,)]
    assert parts[1].vectors == pytest.approx(np.array([unit((60 + number) / 4) for number in (2, 3)]))
    assert embedder(EmbeddingConfig("mean", 4, (), (), False)).tokenise("W7")[0] == [0]
    for given, wanted in (
        ({"bos_id": 5, "eos_ids": [6]}, [5]),
        ({"bos_id": 0, "eos_ids": [6]}, [0]),
        ({"eos_ids": [6]}, [6]),
    ):
        assert embedder(EmbeddingConfig("mean", 4), **given).tokenise("") == (wanted, False)
    with pytest.raises(
        ModelError, match=r"^an empty text has no tokens, and the model has no start token: leave it out$"
    ):
        embedder(EmbeddingConfig("mean", 4)).embed(["w1", ""])
    empty = made.embed([])
    assert empty.vectors.shape == (0, 8) and (empty.num_tokens, empty.truncated) == ((), ())


def test_packs_are_asked_whether_to_stop_and_bad_numbers_are_told() -> None:
    made = embedder(EmbeddingConfig("mean", 600))
    long = ["w1 " * 300, "w2 " * 300, "w3 " * 200]
    assert len(made.embed(long).vectors) == 3 and made.packs == [[300], [300, 200]]  # type: ignore[attr-defined]
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) > 1

    with pytest.raises(ModelError, match=r"^embedding was stopped before all texts were done$"):
        made.embed(long, stopped=stopped)
    assert len(asked) == 2
    made._forward = lambda ids_N, lengths: np.zeros((len(ids_N), 2), np.float32)
    assert made.embed(["w1"]).vectors.tolist() == [[0.0, 0.0]]
    made._forward = lambda ids_N, lengths: np.full((len(ids_N), 2), np.nan, np.float32)
    with (
        np.errstate(all="ignore"),
        pytest.raises(ModelError, match=r"^the model gave numbers that are not finite: its weights"),
    ):
        made.embed(["w1"])
    for place in range(3):  # one text of a pack, and one number of its vector

        def forward(ids_N: Any, lengths: Sequence[int], place: int = place) -> Any:
            hidden = np.stack([ids_N, np.ones_like(ids_N)], 1).astype(np.float32)
            hidden[place, place % 2] = np.nan
            return hidden

        made._forward = forward
        with np.errstate(all="ignore"), pytest.raises(ModelError, match=r"^the model gave numbers that are not finite"):
            made.embed(["w1", "w2", "w3"])
    # of a vector that is almost zero the length is taken as 1e-12
    made._forward = lambda ids_N, lengths: np.array([[3e-13, 4e-13], [3e-11, -4e-11]], np.float32)
    assert made.embed(["w1", "w2"]).vectors == pytest.approx(np.array([[0.3, 0.4], [0.6, -0.8]]))
    for call, said in (
        (lambda: made.embed("w1"), "embed takes a list of texts, not one text: put it in a list"),
        (lambda: made.embed([b"w"]), "a text to embed is bytes \"b'w'\": give a str"),  # type: ignore[list-item]
        (lambda: list(made.embed_batches(["w1"], batch_size=0)), "batch_size is 0: give 1 or more"),
    ):
        with pytest.raises(ConfigError) as found:
            call()
        assert str(found.value) == said


def test_nothing_is_computed_once_it_is_stopped_however_few_the_texts_are() -> None:
    made = embedder(EmbeddingConfig("mean", 600))
    computed: list[int] = []

    class Counted(Sums):
        def forward(self, ids_N: Any, *given: Any) -> Any:
            computed.append(len(ids_N))
            return super().forward(ids_N, *given)

    pair = PairConfig((("A", 0), ("B", 1)), 600, "identity")
    model = RelevanceModel(Counted(architecture()), tokenizer(), pair)
    for texts in (["w1"], ["w1 " * 600], ["w1", "w2"]):
        with pytest.raises(ModelError, match=r"^embedding was stopped before all texts were done$"):
            made.embed(texts, stopped=lambda: True)
        with pytest.raises(ModelError, match=r"^embedding was stopped before all texts were done$"):
            next(made.embed_batches(texts, batch_size=1, stopped=lambda: True))
        with pytest.raises(ModelError, match=r"^reranking was stopped before all texts were scored$"):
            model.score("w3", texts, stopped=lambda: True)
    assert made.packs == [] == computed  # type: ignore[attr-defined]
    assert (
        made.embed([], stopped=lambda: True).num_tokens == () and model.score("w3", [], stopped=lambda: True).size == 0
    )
    answers = [False, True]
    with pytest.raises(ModelError, match="stopped"):
        made.embed(["w1 " * 512, "w2"], stopped=lambda: answers.pop(0))
    assert made.packs == [[512]] and answers == []  # type: ignore[attr-defined]
    made.close(), model.close()


def test_what_an_embedder_and_a_reranker_cannot_be_made_of_is_told() -> None:
    small = "the tokenizer has 40 tokens and the weights 39: the files are from different models"
    kernels = "compiled kernels were asked for: they take BERT encoders whose widths are multiples of 32"
    pair, config = PairConfig((("A", 0), ("B", 1)), 9, "identity"), EmbeddingConfig("mean", 9)
    for make, error, said in (
        (lambda: TextEmbedder(Encoder(architecture(vocab_size=39)), tokenizer(), config), ModelFileError, small),
        (lambda: TextEmbedder(Encoder(architecture()), tokenizer(), config, compiled=True), ConfigError, kernels),
        (lambda: TextEmbedder(Encoder(architecture()), tokenizer(), config, precision="float16"), ConfigError,  # type: ignore[arg-type]
         "precision is 'float16': give 'float32' or 'bfloat16'"),
        (lambda: RelevanceModel(PairClassifier(architecture(vocab_size=39)), tokenizer(), pair), ModelFileError, small),
        (lambda: RelevanceModel(PairClassifier(architecture()), tokenizer(), pair, compiled=True), ConfigError, kernels),
    ):  # fmt: skip
        with pytest.raises(error) as found:
            make()  # type: ignore[no-untyped-call]
        assert str(found.value) == said
    made = TextEmbedder(Encoder(architecture(vocab_size=41)), tokenizer(), config, threads=3)
    assert (made.dimension, made.is_compiled, made._workers) == (8, False, 1)  # torch has threads of its own
    made.close()
    wide = architecture(hidden_size=64, intermediate_size=64)
    threaded = TextEmbedder(Encoder(wide), tokenizer(), config, compiled=True, threads=3)
    assert threaded.is_compiled and threaded._workers == 3
    threaded.close()
    with pytest.raises(ModelFileError, match="holds no tokenizer"):
        load("/nowhere")
    with pytest.raises(
        ModelFileError, match=r"^/nowhere is no folder: a reranker is a folder with config\.json and safetensors$"
    ):
        load_relevance("/nowhere")


class Sums(PairClassifier):
    """A pair's logit is the sum of its ids, those of type 1 ten times, less `less`."""

    less = 0.0

    def forward(self, ids_N: Any, positions_N: Any, attend: Any, types_N: Any, first_P: Any) -> Any:
        ends = [*first_P.tolist()[1:], len(ids_N)]
        weighed = ids_N * (1 + 9 * types_N)
        assert [int(positions_N[begin]) for begin in first_P] == [0] * len(first_P)
        return torch.stack([weighed[begin:end].sum() - self.less for begin, end in zip(first_P, ends, strict=True)])


def test_pairs_are_scored_in_the_order_of_the_texts() -> None:
    parts = ((7, 0), ("A", 0), (8, 1), ("B", 1))
    model = RelevanceModel(Sums(architecture()), tokenizer(), PairConfig(parts, 6, "identity"))
    texts = ["w1", "w2 w3 w4", "", "w5 w6"]
    pairs = model.pairs("w9 w10", texts)
    assert pairs[1] == ([7, 9, 10, 8, 2, 3], [0, 0, 0, 1, 1, 1]) and pairs[2] == ([7, 9, 10, 8], [0, 0, 0, 1])
    base = 7 + 9 + 10 + 80
    assert model.score("w9 w10", texts).tolist() == [base + 10, base + 50, base, base + 110]
    assert model.score("w9", []).shape == (0,) and model.score("w9", []).dtype == np.float64
    sigmoid = Sums(architecture())
    sigmoid.less = 116.5
    shares = RelevanceModel(sigmoid, tokenizer(), PairConfig(parts, 6, "sigmoid")).score("w9 w10", ["w1", "w2"])
    assert shares == pytest.approx([1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(-9.5))])
    sigmoid.less = 1e6
    assert 0 < RelevanceModel(sigmoid, tokenizer(), PairConfig(parts, 6, "sigmoid")).score("w9", ["w1"])[0] < 1e-300
    sigmoid.less = math.nan
    with pytest.raises(
        ModelError, match=r"^the reranker gave numbers that are not finite: its weights may be damaged$"
    ):
        RelevanceModel(sigmoid, tokenizer(), PairConfig(parts, 6, "sigmoid")).score("w9", ["w1"])
    with pytest.raises(ModelError, match=r"^reranking was stopped before all texts were scored$"):
        model.score("w9", texts, stopped=lambda: True)
    for call, said in (
        (lambda: model.score("w1", "w2"), "score takes a list of texts, not one text: put it in a list"),
        (lambda: model.score(3, ["w2"]), "a text to score is int '3': give a str"),  # type: ignore[arg-type]
        (lambda: model.score("w1", [None]), "a text to score is NoneType 'None': give a str"),  # type: ignore[list-item]
    ):
        with pytest.raises(ConfigError) as found:
            call()
        assert str(found.value) == said
    model.close()


def test_a_long_query_and_a_very_long_text_get_half_of_the_limit_each() -> None:
    config = PairConfig(((7, 0), ("A", 0), (8, 0), ("B", 1), (9, 1)), 13, "identity")
    model = RelevanceModel(PairClassifier(architecture()), tokenizer(), config)

    def words(count: int, begin: int = 0) -> tuple[str, list[int]]:
        ids = [begin + at % 10 for at in range(count)]
        return " ".join(f"w{id}" for id in ids), ids

    # of ten tokens for both, the shorter one keeps up to five
    for asked, told, kept in ((12, 2000, (5, 5)), (3, 2000, (3, 7)), (10, 2000, (5, 5)), (2000, 2000, (5, 5)),
                              (2000, 4, (6, 4)), (9, 1, (9, 1)), (10, 1, (9, 1)), (0, 2000, (0, 10))):  # fmt: skip
        (query, first), (text, second) = words(asked, 10), words(told, 20)
        (pair,) = model.pairs(query, [text])
        a, b = first[: kept[0]], second[: kept[1]]
        assert pair == ([7, *a, 8, *b, 9], [0] * (len(a) + 2) + [1] * (len(b) + 1)), (asked, told)
    model.close()
