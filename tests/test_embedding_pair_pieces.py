"""The post-processor of a pair piece by piece: special tokens whose entry is none, steps, and processors of odd shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Rust
from tokenizers import decoders, models, pre_tokenizers

from firsthand.embed.pair_config import PairConfig, read_pair_config
from firsthand.errors import ModelFileError
from firsthand.tokens.tokenizer import Tokenizer

ONE, TWO = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
MARK = {"SpecialToken": {"id": "F", "type_id": 1}}
BERT = {"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]}


def read(folder: Path, processor: Any) -> PairConfig:
    """The config of a folder with this post-processor and 40 words."""
    rust = Rust(models.WordPiece({f"w{i}": i for i in range(40)}, unk_token="w0"))
    rust.pre_tokenizer, rust.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text(json.dumps({"post_processor": processor}))
    return read_pair_config(folder, Tokenizer(json.loads(rust.to_str())), 30, 2)


def template(*pieces: Any, **tokens: Any) -> dict[str, Any]:
    return {"type": "TemplateProcessing", "pair": list(pieces), "special_tokens": tokens}


def said(folder: Path, processor: Any) -> str:
    with pytest.raises(ModelFileError) as found:
        read(folder, processor)
    return str(found.value).removeprefix(f"{folder}/tokenizer.json: ")


@pytest.mark.parametrize(
    "entry", [[1], [], None, 5, "ids", True, {}, {"ids": None}, {"ids": 5}, {"ids": "5"}, {"ids": {}}, {"ids": [1, None]},
              {"ids": [1.0]}, {"ids": [True]}, {"ids": [[1]]}, {"id": [1]}],
)  # fmt: skip
def test_a_special_token_has_an_object_with_a_list_of_ids(tmp_path: Path, entry: Any) -> None:
    told = f"the template of its post_processor has {str(MARK)[:80]}"
    assert said(tmp_path, template(ONE, MARK, TWO, F=entry)) == told
    assert read(tmp_path, template(ONE, TWO, F=entry)).parts == (("A", 0), ("B", 1)), "one that is not used may be odd"


def test_a_special_token_is_as_many_parts_as_it_has_ids(tmp_path: Path) -> None:
    for ids, parts in (([], ()), ([0], ((0, 1),)), ([39, 0, 39], ((39, 1), (0, 1), (39, 1)))):
        found = read(tmp_path, template(ONE, MARK, TWO, F={"ids": ids}))
        assert found == PairConfig((("A", 0), *parts, ("B", 1)), 30, "sigmoid")
        assert found.max_pair_tokens == 30 - len(ids)
    odd = (
        MARK, {"SpecialToken": {"id": "F"}}, {"SpecialToken": {"id": 5, "type_id": 0}},
        {"Sequence": {"id": "C", "type_id": 0}},
        {"Sequence": {"id": "A"}}, {"Sequence": {"id": "A", "type_id": "0"}}, {"Other": {"id": "A", "type_id": 0}}, {},
        {"SpecialToken": {"id": "F", "type_id": None}}, "A", None, ["A", 0],
    )  # fmt: skip
    for piece in odd:
        assert said(tmp_path, template(ONE, TWO, piece)) == f"the template of its post_processor has {str(piece)[:80]}"


def test_of_the_steps_of_a_processor_one_makes_pairs_and_sixteen_are_the_most(tmp_path: Path) -> None:
    def steps(*given: Any) -> dict[str, Any]:
        return {"type": "Sequence", "processors": list(given)}

    parts = ((2, 0), ("A", 0), (3, 0), ("B", 1), (3, 1))
    byte: dict[str, Any] = {"type": "ByteLevel"}
    for given in ([BERT], [BERT, *[byte] * 15], [*[byte] * 15, BERT], [byte, BERT, None, "x"]):
        assert read(tmp_path, steps(*given)).parts == parts
    many = steps(BERT, *[byte] * 16)
    assert said(tmp_path, many) == f"its post_processor is {str(many)[:80]}: expected a template for pairs"
    for given, count in (([], 0), ([byte], 0), ([steps(BERT)], 0), ([BERT, template(ONE, TWO)], 2), ([BERT] * 16, 16)):
        assert said(tmp_path, steps(*given)) == f"its post_processor has {count} templates: expected 1"
    for odd in (
        None, [], "x", {}, {"type": "BertProcessing"}, {**BERT, "cls": ["[CLS]"]}, {**BERT, "sep": ["[SEP]", "3"]},
        {**BERT, "sep": 3}, {"type": "RobertaProcessing", "cls": ["C", 1]}, {"type": "Sequence"}, {"pair": [ONE, TWO]},
        {"type": "TemplateProcessing", "pair": {}, "special_tokens": {}}, {"type": "TemplateProcessing", "pair": [ONE, TWO]},
        {"type": "TemplateProcessing", "pair": [ONE, TWO], "special_tokens": []},
    ):  # fmt: skip
        assert said(tmp_path, odd) == f"its post_processor is {str(odd)[:80]}: expected a template for pairs"
    for pieces in ((), (ONE,), (TWO,), (TWO, ONE), (ONE, ONE, TWO), (ONE, TWO, TWO)):
        told = "the template of its post_processor does not have the texts A and B, in order"
        assert said(tmp_path, template(*pieces)) == told
