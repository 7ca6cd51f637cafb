"""Cross-encoders against transformers: logits, token types, pair templates, truncation, and their use as rerankers."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer

from embedder_tiny import write_tokenizer
from firsthand.embed.pair_config import longest_first
from firsthand.embed.relevance import load_relevance
from firsthand.errors import ConfigError, ModelError, ModelFileError, UnknownName
from firsthand.providers.local_cross_encoder import LocalCrossEncoder
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.corpus import Corpus
from firsthand.retrieval.retriever import Hit, Query
from firsthand.retrieval.retrievers.cross_encoder import by_cross_encoder, close_cross_encoders
from firsthand.retrieval.retrievers.reranker_names import check_reranker, reranked
from firsthand.retrieval.store.sqlite_index import open_index
from index_tiny import TERMS_ONLY
from reranker_tiny import change, write_reranker

torch.set_num_threads(1)
QUERY = "the red cat"
TEXTS = ["a cat sat on the mat", "", "the dog ran", "log " * 40, "it was red and blue, then it was red"]


@torch.no_grad()
def reference(folder: Path, query: str, texts: list[str], most: int) -> np.ndarray[Any, Any]:
    """The logits of transformers, each pair alone, with the tokenizer's own template and truncation."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(most, strategy="longest_first")
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    model = getattr(transformers, name).from_pretrained(folder).eval()
    logits = []
    for text in texts:
        encoded = tokenizer.encode(query, text)
        given = {"input_ids": torch.tensor([encoded.ids]), "token_type_ids": torch.tensor([encoded.type_ids])}
        logits.append(model(**given).logits.item())
    return np.array(logits)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_reranker(tmp_path_factory.mktemp("bert"))
    return change(folder, "config_sentence_transformers.json", activation_fn="torch.nn.modules.linear.Identity")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Bert", "Roberta", "XLMRoberta"])
def test_logits_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    folder = write_reranker(tmp_path, kind)
    change(folder, "config.json", sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    most = 50 if kind == "Bert" else 49  # RoBERTa's positions begin after its padding
    ours = load_relevance(folder, compiled=False).score(QUERY, TEXTS)
    assert np.ptp(ours) > 0.05
    assert ours == pytest.approx(reference(folder, QUERY, TEXTS, most), abs=1e-5)
    swapped = load_relevance(folder, compiled=False).score(TEXTS[3], [QUERY])
    assert swapped == pytest.approx(reference(folder, TEXTS[3], [QUERY], most), abs=1e-5)


def test_the_compiled_kernels_are_near_and_no_bit_depends_on_the_company(bert: Path) -> None:
    plain, compiled = load_relevance(bert, compiled=False), load_relevance(bert, compiled=True)
    texts = TEXTS * 3
    scores = compiled.score(QUERY, texts)
    assert scores == pytest.approx(plain.score(QUERY, texts), abs=5e-3)
    alone = [compiled.score(QUERY, [text])[0] for text in texts]
    assert scores.tolist() == alone
    assert [kind for _, kind in compiled.config.parts] == [0, 0, 0, 1, 1], "the text is of the second type"


def test_elsewhere_than_on_the_cpu_a_reranker_runs_in_torch(bert: Path) -> None:
    there = load_relevance(str(bert), compiled=True, device="meta", threads=3)
    assert next(there.model.parameters()).device.type == "meta" and not there.is_compiled
    assert there._workers == 1, "torch has threads of its own"
    here = load_relevance(bert, compiled=True, threads=3)
    assert here.is_compiled and here._workers == 3
    assert here.config == there.config


def test_a_reranker_in_the_folder_that_modules_json_names_has_the_files_of_that_folder(
    bert: Path, tmp_path: Path
) -> None:
    shutil.copytree(bert, tmp_path / "0_Encoder")
    change(tmp_path / "0_Encoder", "sentence_bert_config.json", max_seq_length=11)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "x.Transformer", "path": "0_Encoder"}]))
    change(tmp_path, "sentence_bert_config.json", max_seq_length=7)
    change(tmp_path, "config_sentence_transformers.json", activation_fn="torch.nn.modules.activation.Sigmoid")
    found, inside = load_relevance(str(tmp_path), compiled=False), load_relevance(tmp_path / "0_Encoder")
    assert found.config == inside.config and (found.config.max_pair_tokens, found.config.activation) == (8, "identity")
    assert found.score(QUERY, TEXTS) == pytest.approx(reference(tmp_path / "0_Encoder", QUERY, TEXTS, 11), abs=1e-5)


@pytest.mark.parametrize("most", range(2, 12))
def test_the_longer_one_is_truncated_first_as_in_tokenizers(tmp_path: Path, most: int) -> None:
    write_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_truncation(most, strategy="longest_first")
    for first in range(1, 9):
        for second in range(1, 9):
            encoded = tokenizer.encode(" ".join("a" * first), " ".join("b" * second), add_special_tokens=False)
            kept = tuple(len([1 for token in encoded.tokens if token == letter]) for letter in "ab")
            assert longest_first(first, second, most) == kept


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "activation"),
    [
        ({}, "sigmoid"),
        ({"config.json": {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}}, "identity"),
        ({"config.json": {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}}, "identity"),
        (
            {
                "config.json": {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
                "config_sentence_transformers.json": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
            },
            "sigmoid",
        ),
    ],
)
def test_the_activation_is_that_of_sentence_transformers(
    tmp_path: Path, files: dict[str, Any], activation: str
) -> None:
    folder = write_reranker(tmp_path)
    for name, values in files.items():
        change(folder, name, **values)
    model = load_relevance(folder, compiled=False)
    logits = reference(folder, QUERY, TEXTS, 50)
    expected = logits if activation == "identity" else 1 / (1 + np.exp(-logits))
    assert model.config.activation == activation and model.score(QUERY, TEXTS) == pytest.approx(expected, abs=1e-5)


def test_max_seq_length_truncates_and_templates_of_bert_and_roberta_are_read(tmp_path: Path) -> None:
    folder = change(write_reranker(tmp_path), "sentence_bert_config.json", max_seq_length=11)
    change(folder, "config_sentence_transformers.json", activation_fn="Identity")
    assert load_relevance(folder).score(QUERY, TEXTS) == pytest.approx(reference(folder, QUERY, TEXTS, 11), abs=5e-3)
    change(
        folder, "tokenizer.json", post_processor={"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]}
    )
    assert load_relevance(folder).pairs("a", ["b"])[0][1] == [0, 0, 0, 1, 1]
    other = {"type": "RobertaProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3], "trim_offsets": True}
    change(folder, "tokenizer.json", post_processor={"type": "Sequence", "processors": [other, {"type": "ByteLevel"}]})
    ids, types = load_relevance(folder).pairs("a", ["b"])[0]
    assert [ids[0], ids[2], ids[3], ids[5]] == [2, 3, 3, 3] and types == [0] * 6


def test_a_text_of_a_hundred_thousand_characters_and_control_tokens_is_scored(bert: Path) -> None:
    model = load_relevance(bert, compiled=False)
    long = "red cat " * 12_500
    scores = model.score(long, [long, "[SEP] [CLS]", ""])
    assert np.isfinite(scores).all() and all(len(ids) <= 50 for ids, _ in model.pairs(long, [long, ""]))
    (ids, _), *_ = model.pairs("x", ["[SEP] [CLS]"])
    assert [ids.count(2), ids.count(3)] == [1, 2], "no text forges a control token"
    assert model.score(QUERY, []).shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: change(folder, "config.json", model_type="gpt2"), "model_type is 'gpt2'"),
        (lambda folder: change(folder, "tokenizer.json", post_processor=None), "expected a template for pairs"),
        (
            lambda folder: change(
                folder,
                "config.json",
                sentence_transformers={"activation_fn": "torch.nn.modules.activation.Tanh"},
            ),
            "activation_fn is 'Tanh'",
        ),
        (lambda folder: change(folder, "sentence_bert_config.json", max_seq_length=4), "no room for query and text"),
        (lambda folder: write_reranker(folder, num_labels=3), "a head of 3 classes: expected 1"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
    ],
)
def test_what_is_no_reranker_is_a_sentence(tmp_path: Path, spoil: Any, message: str) -> None:
    folder = write_reranker(tmp_path)
    spoil(folder)
    with pytest.raises(ModelFileError, match=message):
        load_relevance(folder)


def test_an_embedder_is_no_reranker(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path)
    transformers.BertModel(transformers.BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                           intermediate_size=32, vocab_size=80)).save_pretrained(folder)  # fmt: skip
    with pytest.raises(ModelFileError, match=r"has no classifier\.weight: a reranker is an encoder with a head"):
        load_relevance(folder)
    with pytest.raises(ModelFileError, match="is no folder"):
        load_relevance(folder / "config.json")


# -- as a reranker --


def hit(text: str, n: int) -> Hit:
    return Hit(Chunk(f"d{n}", 0, len(text), text), 1 / n)


async def _found(query: Query, k: int) -> list[Hit]:
    return [hit(text, n) for n, text in enumerate(TEXTS, 1)][:k]


def test_hits_are_in_the_order_of_the_cross_encoder(bert: Path) -> None:
    corpus = Corpus(open_index(":memory:", TERMS_ONLY))
    scores = load_relevance(bert).score(QUERY, TEXTS)
    order = np.argsort(-scores, kind="stable")
    try:
        for pool, k in ((5, 5), (5, 2), (3, 3)):
            search = reranked(_found, f"cross_encoder:{bert}", corpus, None, pool=pool)
            hits = asyncio.run(search(Query(QUERY), k))
            kept = [f"d{place + 1}" for place in order if place < pool][:k]
            assert [each.chunk.document for each in hits] == kept
            expected = [float(scores[int(each.chunk.document[1:]) - 1]) for each in hits]
            assert [each.score for each in hits] == pytest.approx(expected, rel=1e-5), (
                "products of other sizes round otherwise"
            )
            assert hits[0].trail[-1].retriever == "rerank"
    finally:
        close_cross_encoders()
    assert asyncio.run(LocalCrossEncoder(bert).score(QUERY, [])) == []


def test_a_name_that_is_no_reranker_is_refused(bert: Path, tmp_path: Path) -> None:
    for name in ("", "logprob", "listwise", f"cross_encoder:{bert}", "cross_encoder:hf:org/name"):
        check_reranker(name)
    for name in ("cross_encoder", "cross_encoder:", "bm25", "logprob:x"):
        with pytest.raises(ConfigError, match="sentences, logprob, listwise or cross_encoder:MODEL was expected"):
            check_reranker(name)
    with pytest.raises(UnknownName, match="no file or folder"):
        check_reranker(f"cross_encoder:{tmp_path / 'missing'}")
    corpus = Corpus(open_index(":memory:", TERMS_ONLY))
    with pytest.raises(ConfigError, match="asks a model, and there is none"):
        reranked(_found, "listwise", corpus, None)


def test_weights_that_are_not_finite_and_a_stop_are_errors(tmp_path: Path, bert: Path) -> None:
    with pytest.raises(ModelError, match="stopped"):
        load_relevance(bert).score(QUERY, TEXTS, stopped=lambda: True)
    with pytest.raises(ConfigError, match="put it in a list"):
        load_relevance(bert).score(QUERY, "one text")  # type: ignore[arg-type]
    model = load_relevance(bert, compiled=False)
    with torch.no_grad():
        model.model.out.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        model.score(QUERY, TEXTS)
    with pytest.raises(ConfigError, match="give a str"):
        asyncio.run(by_cross_encoder(LocalCrossEncoder(bert))("q", [3]))  # type: ignore[list-item]


@pytest.mark.parametrize("damage", ["nan", "inf", "-inf"])
def test_one_score_that_is_not_finite_among_good_ones_is_an_error(bert: Path, damage: str) -> None:
    model = load_relevance(bert, compiled=False)
    dog = set(model.pairs(QUERY, ["dog"])[0][0]) - set(model.pairs(QUERY, [""])[0][0])
    (row,) = dog
    with torch.no_grad():
        model.model.encoder.words.weight[row].fill_(float(damage))
    good = ["a cat sat on the mat", "", "it was red"]
    assert np.isfinite(model.score(QUERY, good)).all()
    for texts in (["dog"], ["dog", *good], [*good, "the dog ran"], [good[0], "dog", good[1]]):
        with pytest.raises(ModelError) as refused:
            model.score(QUERY, texts)
        assert str(refused.value) == "the reranker gave numbers that are not finite: its weights may be damaged"
    assert model.score(QUERY, []).shape == (0,)
    model.close()
