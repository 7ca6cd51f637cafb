"""What a folder's files say of an embedder or a cross-encoder, each setting and each error as a whole, without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, pre_tokenizers

from firsthand.embed import embedding_config
from firsthand.embed import pair_config as pair_settings
from firsthand.embed.embedding import PACK_TOKENS, encode_start, packs_of, pool
from firsthand.embed.embedding_config import (
    EmbeddingConfig,
    around_texts,
    default_embedding_config,
    max_tokens_of,
    model_folder,
    optional_fields,
    read_embedding_config,
)
from firsthand.embed.pair_config import PairConfig, longest_first, read_pair_config
from firsthand.errors import ModelFileError
from firsthand.tokens.tokenizer import Tokenizer


def tokenizer(size: int = 40, **given: Any) -> Tokenizer:
    """Words w0 to w39."""
    rust = Rust(models.WordPiece({f"w{i}": i for i in range(size)}, unk_token="w0"))
    rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rust.decoder = decoders.WordPiece()
    return Tokenizer(json.loads(rust.to_str()), **given)


def write(folder: Path, **files: Any) -> Path:
    """Write files named with `__` for a slash and without their suffix."""
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def refusal(folder: Path, **files: Any) -> str:
    """The error of a folder with these files, without the folder's name."""
    with pytest.raises(ModelFileError) as found:
        read_embedding_config(write(folder, **files), tokenizer(), 64, default="mean")
    return str(found.value).replace(str(folder), "F")


def module(kind: str, path: str) -> dict[str, str]:
    return {"type": f"sentence_transformers.models.{kind}", "path": path}


TEXT = {"Sequence": {"id": "A", "type_id": 0}}
OTHER = {"Sequence": {"id": "B", "type_id": 1}}
FIRST, LAST = {"SpecialToken": {"id": "F", "type_id": 0}}, {"SpecialToken": {"id": "L", "type_id": 1}}
TOKENS = {"F": {"ids": [5]}, "L": {"ids": [7, 8]}}
TEMPLATE = {"type": "TemplateProcessing", "special_tokens": TOKENS, "single": [FIRST, TEXT, LAST]}


def test_all_settings_of_an_embedder_are_read_from_its_modules(tmp_path: Path) -> None:
    write(
        tmp_path,
        modules=[module("Transformer", "0_Model"), module("Pooling", "1_Pool"), module("Normalize", "2")],
        **{
            "0_Model__tokenizer": {"post_processor": TEMPLATE},
            "0_Model__sentence_bert_config": {"max_seq_length": 20, "do_lower_case": True},
            "1_Pool__config": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "dimension": 3},
            "tokenizer": {"post_processor": None},
            "sentence_bert_config": {"max_seq_length": 9},
        },
    )
    assert model_folder(tmp_path) == tmp_path / "0_Model"
    found = read_embedding_config(tmp_path, tokenizer(), 64, default="mean")
    assert found == EmbeddingConfig("cls", 20, (5,), (7, 8), True) and found.max_text_tokens == 17
    for said, wanted in (
        ({"pooling_mode_mean_tokens": True}, "mean"), ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, "cls"),
        ({"pooling_mode": None, "pooling_mode_mean_tokens": True}, "mean"),
    ):  # fmt: skip
        write(tmp_path, **{"1_Pool__config": said})
        assert read_embedding_config(tmp_path, tokenizer(), 64, default="mean").pooling == wanted


def test_a_bare_folder_has_the_defaults_and_the_tokenizer_s_own_start(tmp_path: Path) -> None:
    bos = tokenizer(bos_id=3, add_bos=True)
    assert model_folder(tmp_path) == tmp_path and around_texts(tmp_path, bos) == ((3,), ())
    assert read_embedding_config(tmp_path, bos, 64, default="lasttoken") == EmbeddingConfig("lasttoken", 64, (3,))
    assert default_embedding_config(bos, 9, pooling="cls") == EmbeddingConfig("cls", 9, (3,), (), False)
    assert default_embedding_config(tokenizer(bos_id=3), 9, pooling="cls").before == ()
    assert default_embedding_config(tokenizer(bos_id=0, add_bos=True), 9, pooling="mean").before == (0,)
    write(tmp_path, modules=[module("Transformer", ""), module("Pooling", "")], config={"pooling_mode": "cls"})
    assert model_folder(tmp_path) == tmp_path
    assert read_embedding_config(tmp_path, bos, 64, default="mean").pooling == "cls"
    write(tmp_path, modules=[module("Normalize", "x")])
    assert read_embedding_config(tmp_path, bos, 64, default="mean").pooling == "mean"


def test_one_token_of_room_for_the_text_is_enough(tmp_path: Path) -> None:
    write(tmp_path, tokenizer={"post_processor": TEMPLATE}, sentence_bert_config={"max_seq_length": 4})
    assert read_embedding_config(tmp_path, tokenizer(), 64, default="mean").max_text_tokens == 1
    assert refusal(tmp_path, sentence_bert_config={"max_seq_length": 3}) == (
        "F allows 3 tokens a text, which leaves no room for the text itself"
    )


def test_the_most_tokens_are_stated_or_the_model_s(tmp_path: Path) -> None:
    none = optional_fields(tmp_path / "nowhere.json")
    assert none.values == {} and none.where == str(tmp_path / "nowhere.json")
    for stated, wanted in ((7, 7), (1, 1), (0, 9), (-1, 9), (10, 9), (True, 9), (1e30, 9), ("7", 9), (None, 9)):
        assert max_tokens_of(write(tmp_path, tokenizer_config={"model_max_length": stated}), none, 9) == wanted
    write(tmp_path, tokenizer_config={"model_max_length": 2}, sentence_bert_config={"max_seq_length": 5})
    assert max_tokens_of(tmp_path, optional_fields(tmp_path / "sentence_bert_config.json"), 9) == 5
    assert max_tokens_of(tmp_path, optional_fields(tmp_path / "sentence_bert_config.json"), 4) == 4


def test_what_an_embedder_s_files_may_not_say_is_told_with_the_place(tmp_path: Path) -> None:
    one = module("Pooling", "a/b")
    assert refusal(tmp_path, modules=[one]) == (
        "F/modules.json puts Pooling at ['a/b']: expected one module, in a folder beside it"
    )
    for path in (".", "..", "a\\b", "\0"):
        assert "expected one module" in refusal(tmp_path, modules=[module("Transformer", path)])
    assert refusal(tmp_path, modules=[module("Pooling", p) for p in "xyz"]) == (
        "F/modules.json puts Pooling at ['x', 'y']: expected one module, in a folder beside it"
    )
    assert refusal(tmp_path, modules=[module("Dense", ""), module("WeightedLayer" + "x" * 90, "")]) == (
        "F/modules.json has a module 'Dense': Transformer, Pooling and Normalize are supported"
    )
    assert refusal(tmp_path, modules=[{"type": "Pooling"}]) == (
        "F/modules.json is no list of modules with a type and a path: 'path'"
    )
    for listed, why in (({"a": 1}, "string indices"), (5, "'int' object is not iterable"), ([5], "'int' object is not"),
                        ("{", "Expecting"), ("[" * 60_000, "it is nested too deep")):  # fmt: skip
        assert refusal(tmp_path, modules=listed).startswith(
            f"F/modules.json is no list of modules with a type and a path: {why}"
        )
    assert refusal(tmp_path, modules=[{"type": 5, "path": ""}]).startswith("F/modules.json has a module '5': ")
    assert f"has a module '{'W' * 80}': " in refusal(tmp_path, modules=[module("W" * 81, "")])
    assert (
        refusal(tmp_path, modules=[module("Pooling", 7)]) == "F/7/config.json cannot be read: No such file or directory"
    )  # type: ignore[arg-type]
    padded = json.dumps([module("Transformer", "")]).ljust(1 << 16)
    assert model_folder(write(tmp_path, modules=padded)) == tmp_path
    for more in (" " * (1 << 16) + "[]", padded + "]"):  # not cut there
        assert refusal(tmp_path, modules=more) == (
            "F/modules.json is no list of modules with a type and a path: it is larger than 65536 bytes"
        )
    write(tmp_path, modules=[module("Pooling", "")])
    names = "expected one of mean, cls, lasttoken"
    assert refusal(tmp_path, config={}) == f"F/config.json asks for no pooling: {names}"
    both = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    assert refusal(tmp_path, config=both) == (
        f"F/config.json asks for ['pooling_mode_cls_token', 'pooling_mode_mean_tokens']: {names}"
    )
    write(tmp_path, config={"pooling_mode_cls_token": None, "pooling_mode_mean_tokens": True})
    assert read_embedding_config(tmp_path, tokenizer(), 64, default="cls").pooling == "mean", "null is absent"
    for key in ("pooling_mode_max_tokens", "pooling_mode_other"):
        assert refusal(tmp_path, config={key: True}) == f"F/config.json asks for [{key!r}]: {names}"


def test_what_a_post_processor_may_not_say_is_told_with_the_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(processor: Any) -> str:
        return refusal(tmp_path, tokenizer={"post_processor": processor}).removeprefix("F/tokenizer.json: ")

    def template(*pieces: Any, ids: Any = 5) -> str:
        return said({**TEMPLATE, "single": list(pieces), "special_tokens": {"F": {"ids": ids}}})

    assert said({"type": "Odd"}) == "its post_processor is {'type': 'Odd'}: expected a template or BERT's own"
    assert template(FIRST) == "the template of its post_processor has 0 texts: expected 1"
    assert template(TEXT, FIRST, OTHER) == "the template of its post_processor has 2 texts: expected 1"
    assert template(TEXT, LAST) == f"the template of its post_processor has {LAST}"
    assert template(TEXT, {"x": "y" * 99}) == "the template of its post_processor has " + str({"x": "y" * 99})[:80]
    for wrong in (40, -1, "5", True, None):
        assert template(TEXT, FIRST, ids=[wrong, 3]) == (
            f"its post_processor adds {[wrong, 3]}: expected at most 16 ids of the vocabulary"
        )
    for most in (7, 8, 9, 10):
        ids = {"F": {"ids": [0] * 7}, "L": {"ids": [1] * most}}
        write(tmp_path, tokenizer={"post_processor": {**TEMPLATE, "special_tokens": ids}})
        if most < 10:
            assert around_texts(tmp_path, tokenizer()) == ((0,) * 7, (1,) * most)
        else:
            with pytest.raises(ModelFileError, match="expected at most 16 ids of the vocabulary"):
                around_texts(tmp_path, tokenizer())
    with monkeypatch.context() as patched:
        patched.setattr(embedding_config, "MAX_TOKENIZER_BYTES", 20)
        assert refusal(tmp_path) == "F/tokenizer.json is larger than 20 bytes, too large for a configuration"
    steps = [{"type": "ByteLevel"}] * 15
    write(tmp_path, tokenizer={"post_processor": {"type": "Sequence", "processors": [*steps, TEMPLATE]}})
    assert around_texts(tmp_path, tokenizer()) == ((5,), (7, 8))
    inner, outer = (
        {"type": "BertProcessing", "cls": ["C", 2], "sep": ["S", 3]},
        {**TEMPLATE, "single": [FIRST, TEXT, LAST]},
    )
    write(tmp_path, tokenizer={"post_processor": {"type": "Sequence", "processors": [inner, outer]}})
    assert around_texts(tmp_path, tokenizer()) == ((5, 2), (3, 7, 8)), "each step stands around those before it"
    assert "expected a template or BERT's own" in said({"type": "Sequence", "processors": [*steps, None, TEMPLATE]})
    write(tmp_path, tokenizer={"post_processor": {**TEMPLATE, "special_tokens": {"F": {"ids": 39}, "L": {"ids": [0]}}}})
    assert around_texts(tmp_path, tokenizer()) == ((39,), (0,))


# -- pairs --

PAIR = {"type": "TemplateProcessing", "special_tokens": TOKENS, "pair": [FIRST, TEXT, LAST, OTHER, LAST]}


def pair_config(folder: Path, processor: Any, num_types: int = 2, most: int = 30, **files: Any) -> PairConfig:
    files = {"config": {}, "tokenizer": {"post_processor": processor}, **files}
    return read_pair_config(write(folder, **files), tokenizer(), most, num_types)


def test_a_pair_has_its_special_tokens_and_types_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = pair_config(tmp_path, PAIR)
    parts = ((5, 0), ("A", 0), (7, 1), (8, 1), ("B", 1), (7, 1), (8, 1))
    assert found == PairConfig(parts, 30, "sigmoid") and found.max_pair_tokens == 25
    assert found.ids([1, 2], [3]) == ([5, 1, 2, 7, 8, 3, 7, 8], [0, 0, 0, 1, 1, 1, 1, 1])
    assert found.ids([], []) == ([5, 7, 8, 7, 8], [0, 1, 1, 1, 1])
    ids, types = found.ids(range(20), range(20, 40))
    assert ids == [5, *range(12), 7, 8, *range(20, 33), 7, 8] and types == [0] * 13 + [1] * 17
    assert pair_config(tmp_path, PAIR, 1).parts == tuple((part, 0) for part, _ in parts)
    bert = {"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]}
    assert pair_config(tmp_path, bert).parts == ((2, 0), ("A", 0), (3, 0), ("B", 1), (3, 1))
    steps = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, {**bert, "type": "RobertaProcessing"}]}
    roberta = ((2, 0), ("A", 0), (3, 0), (3, 0), ("B", 0), (3, 0))
    assert pair_config(tmp_path, steps).parts == roberta
    zero = pair_config(
        tmp_path, {"type": "Sequence", "processors": [None, "x", {**bert, "cls": ["C", 0], "sep": ["S", 39]}]}
    )
    assert zero.parts == ((0, 0), ("A", 0), (39, 0), ("B", 1), (39, 1))
    for wrong in (-1, 40):
        with pytest.raises(
            ModelFileError, match=rf"its post_processor adds \[2, {wrong}, {wrong}\]: expected at most 16"
        ):
            pair_config(tmp_path, {**bert, "sep": ["S", wrong]})
    with monkeypatch.context() as patched:
        patched.setattr(pair_settings, "MAX_TOKENIZER_BYTES", 20)
        with pytest.raises(ModelFileError, match=r"tokenizer\.json is larger than 20 bytes"):
            pair_config(tmp_path, bert)
    limit = pair_config(tmp_path, bert, sentence_bert_config={"max_seq_length": 5})
    assert (limit.max_tokens, limit.max_pair_tokens) == (5, 2)


def test_the_longer_text_is_cut_first() -> None:
    for given, wanted in {
        (3, 2, 5): (3, 2), (3, 2, 4): (2, 2), (2, 3, 4): (2, 2), (1, 9, 6): (1, 5), (9, 1, 6): (5, 1),
        (9, 9, 7): (3, 4), (9, 8, 7): (4, 3), (8, 9, 7): (3, 4), (9, 3, 7): (4, 3), (9, 4, 7): (4, 3), (0, 9, 2): (0, 2),
    }.items():  # fmt: skip
        assert longest_first(*given) == wanted, given


def test_what_a_pair_s_files_may_not_say_is_told(tmp_path: Path) -> None:
    def said(processor: Any = PAIR, num_types: int = 2, **files: Any) -> str:
        with pytest.raises(ModelFileError) as found:
            pair_config(tmp_path, processor, num_types, **files)
        return str(found.value).replace(str(tmp_path), "F").removeprefix("F/tokenizer.json: ")

    def template(*pieces: Any, **changes: Any) -> str:
        return said({**PAIR, "pair": list(pieces), **changes})

    assert said(sentence_bert_config={"max_seq_length": 6}) == (
        "F allows 6 tokens a pair, which leaves no room for query and text"
    )
    (tmp_path / "sentence_bert_config.json").unlink()
    assert (
        template(OTHER, TEXT)
        == template(TEXT)
        == ("the template of its post_processor does not have the texts A and B, in order")
    )
    assert template(TEXT, OTHER, {"SpecialToken": {"id": "Z", "type_id": 0}}).startswith(
        "the template of its post_proc"
    )
    for ids in (5, [True], ["5"]):
        assert template(TEXT, OTHER, FIRST, special_tokens={"F": {"ids": ids}}).endswith(f"has {FIRST}")
    assert template(TEXT, OTHER, FIRST, special_tokens={"F": {"ids": [40]}}) == (
        "its post_processor adds [40]: expected at most 16 ids of the vocabulary"
    )
    assert "adds" in template(TEXT, OTHER, *[FIRST] * 17)
    assert len(pair_config(tmp_path, {**PAIR, "pair": [TEXT, OTHER, *[FIRST] * 16]}).parts) == 18
    wrong = {"Sequence": {"id": "B", "type_id": 2}}
    assert said({**PAIR, "pair": [TEXT, wrong]}, 3) == (
        "its post_processor has token types other than 0 and 1: the model has 3"
    )
    assert said({"type": "ByteLevel"}) == "its post_processor is {'type': 'ByteLevel'}: expected a template for pairs"
    for count in (0, 2):
        assert said({"type": "Sequence", "processors": [PAIR] * count}) == (
            f"its post_processor has {count} templates: expected 1"
        )
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"has no tokenizer\.json, whose template"):
        read_pair_config(tmp_path, tokenizer(), 30, 2)


def test_the_activation_is_the_newest_file_s(tmp_path: Path) -> None:
    bert = {"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]}
    old = {"sbert_ce_default_activation_function": "torch.nn.Identity"}
    assert pair_config(tmp_path, bert, config=old).activation == "identity"
    middle = {**old, "sentence_transformers": {"activation_fn": "torch.nn.Sigmoid"}}
    assert pair_config(tmp_path, bert, config=middle).activation == "sigmoid"
    new = {"activation_fn": "Identity"}
    assert pair_config(tmp_path, bert, config=middle, config_sentence_transformers=new).activation == "identity"
    with pytest.raises(ModelFileError) as found:
        pair_config(tmp_path, bert, config_sentence_transformers={"activation_fn": "torch.nn.Tanh"})
    place = tmp_path / "config_sentence_transformers.json"
    assert str(found.value) == f"{place}: activation_fn is 'Tanh': expected one of Identity, Sigmoid"


# -- packs and pooling --


def test_packs_hold_a_share_of_the_tokens_and_never_split_a_text() -> None:
    assert PACK_TOKENS == 512 and packs_of([], 3) == []
    assert packs_of([600, 512, 300, 212, 1], 1) == [1, 1, 2, 1]
    assert packs_of([40, 24, 24, 16, 16, 1], 4) == [2, 4]  # 121 over 4 is less than 64
    assert packs_of([40, 24, 1, 63], 2) == [2, 2]  # 128 over 2 is 64
    assert packs_of([100, 100, 1], 2) == [1, 2]  # 201 over 2 is 101, rounded up


def test_a_text_s_vector_is_pooled_as_named() -> None:
    hidden = np.array([[1, 2], [3, 7], [8, 0]], np.float32)
    assert pool(hidden, "mean").tolist() == [4, 3] and pool(hidden, "mean").dtype == np.float32
    assert pool(hidden, "cls").tolist() == [1, 2] and pool(hidden, "lasttoken").tolist() == [8, 0]


def test_only_the_start_of_a_long_text_is_encoded() -> None:
    words = tokenizer()
    short = encode_start(words, "w1 w2 w3", 1)
    assert short == [1, 2, 3]  # at most 16 characters a token: whole
    text = " ".join(["w1"] * 30)
    assert encode_start(words, text, 2) == [1] * 11  # to the first space from character 32 on
    assert encode_start(words, "w" * 40 + " w2 w3 w4", 2) == [0, 2, 3, 4]  # two tokens are not more than two
    assert encode_start(words, "w1 " + "x" * 90, 2) == [1, 0]
    # the first space from 32 on is at 40, which gives one token; the first from 4 * 40 on is at 160, after 40 words more
    assert encode_start(words, "w" * 40 + " w2" * 100, 2) == [0] + [2] * 40
