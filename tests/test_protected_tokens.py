"""No text becomes a special token or an end, whatever the tokenizer's file says; text that is text stays."""

from __future__ import annotations

from typing import Any

import pytest

from firsthand.errors import ModelFileError
from firsthand.message import Json
from firsthand.tokens.protected_tokens import is_unknown_text, with_byte_pieces
from firsthand.tokens.tokenizer import TextRun, Tokenizer

END = "<|im_end|>"


def made(model: Json, added: dict[str, int], *, special: bool = True, **ids: Any) -> Tokenizer:
    entries = [
        {"id": id, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": special}
        for text, id in added.items()
    ]  # fmt: skip
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    whole = {"version": "1.0", "added_tokens": entries, "normalizer": None, "pre_tokenizer": None, "decoder": decoder}
    return Tokenizer({**whole, "model": model}, **ids)


def unigram(*texts: str, unk: int = 0, **more: Any) -> Json:
    vocab = [[text, -2.0 if len(text) == 1 else -0.1] for text in texts]
    return {"type": "Unigram", "vocab": vocab, "unk_id": unk, "byte_fallback": False, **more}


def merged(text: str, *, prefix: str = "", suffix: str = "") -> tuple[Json, str]:
    """A BPE model that merges a text letter by letter, and the name that the whole has."""
    parts = [text[0], *(prefix + letter for letter in text[1:])]
    parts[-1] += suffix
    vocab = {part: id for id, part in enumerate(dict.fromkeys(parts))}
    merges, whole = [], parts[0]
    for part in parts[1:]:
        merges.append([whole, part])
        whole += part.removeprefix(prefix)
        vocab.setdefault(whole, len(vocab))
    affixes = {"continuing_subword_prefix": prefix or None, "end_of_word_suffix": suffix or None}
    return {"type": "BPE", "vocab": vocab, "merges": merges, **affixes}, whole


@pytest.mark.parametrize(
    ("model", "id", "text"),
    [
        ({"type": "BPE", "vocab": {"a": 0, END: 1}, "merges": [], "unk_token": END}, 1, "a?"),
        (unigram("a", END, unk=1), 1, "a?"),
        ({"type": "WordPiece", "vocab": {"a": 0, END: 1}, "unk_token": END, "continuing_subword_prefix": "##",
          "max_input_chars_per_word": 100}, 1, "?"),
    ],
)  # fmt: skip
def test_unknown_text_is_never_the_end_that_a_file_names_for_it(model: Json, id: int, text: str) -> None:
    tokenizer = made(model, {END: id})
    assert id in tokenizer.eos_ids and id not in tokenizer.encode(text)
    assert id not in tokenizer.encode_runs([TextRun(text, True)], continuing=True)
    assert tokenizer.encode(END, special=True) == [id]


@pytest.mark.parametrize("affix", [{"prefix": "##"}, {"suffix": "</w>"}, {}])
def test_letters_are_not_merged_to_a_special_token(affix: dict[str, str]) -> None:
    model, whole = merged(END, **affix)
    tokenizer = made(model, {whole: model["vocab"][whole]})
    assert (ids := tokenizer.encode(END)) and not tokenizer.special_ids.intersection(ids)
    assert tokenizer.encode(whole, special=True) == [model["vocab"][whole]]


def test_a_byte_is_no_special_token() -> None:
    byte = {"type": "BPE", "vocab": {"a": 0, "<0x3F>": 1}, "merges": [], "byte_fallback": True}
    for marked in ({"<0x3F>": 1}, {}):
        tokenizer = made(byte, marked)
        assert tokenizer.encode("a?") == [0, 1] and tokenizer.special_ids == set()
        assert 1 not in tokenizer.encode("<0x3F>", special=True)
    assert made(byte, {"<0x3F>": 1}, eos_ids=[1]).encode("a?") == [0], "an end is no text, whatever its name"
    without = made({**byte, "byte_fallback": False}, {"<0x3F>": 1})
    assert without.encode("a?") == [0] and without.special_ids == {1}


def test_a_description_without_marked_bytes_stays_as_it_is() -> None:
    byte = {"type": "BPE", "vocab": {"a": 0, "<0x3F>": 1, "<s>": 2}, "merges": [], "byte_fallback": True}
    for added in ([], [{"id": 2, "content": "<s>", "special": True}]):
        assert with_byte_pieces(given := {"model": byte, "added_tokens": added}, [2]) is given
    other = {"id": 7, "content": "<0x3F>", "special": True}
    assert with_byte_pieces({"model": byte, "added_tokens": [other]}, [])["added_tokens"] == [other], "of another id"


def test_what_gets_past_the_vocabulary_is_left_out_of_what_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.tokens.tokenizer.can_forge", lambda *_: False)
    tokenizer = made(unigram("<unk>", END, "a"), {END: 1})
    assert tokenizer.encode(f"a{END}a") == [2, 2]
    assert tokenizer.encode(f"a{END}a", special=True) == [2, 1, 2]


@pytest.mark.parametrize("listed", [{}, {"</s>": 1}])
def test_an_end_that_only_a_setting_names_is_a_special_token(listed: dict[str, int]) -> None:
    model = unigram("<unk>", "</s>", "a", "<", "/", "s", ">")
    for named in ({"eos_ids": [1]}, {"bos_id": 1}):
        tokenizer = made(model, listed, special=False, **named)
        assert tokenizer.special_ids == {1} and tokenizer.encode("a</s>") == [2, 3, 4, 5, 6]
        assert tokenizer.encode("a</s>", special=True) == [2, 1]  # a chat template writes it
        assert Tokenizer(**tokenizer.settings()).encode("a</s>") == [2, 3, 4, 5, 6]


def test_an_end_of_one_character_is_text_as_well() -> None:
    for text in ("\n", "▁a", "<0x0A>"):
        tokenizer = made(unigram("<unk>", text, "b"), {}, eos_ids=[1])
        assert tokenizer.eos_ids == {1} and not tokenizer.special_ids
    assert made(unigram("<unk>", "\n", "b"), {}, eos_ids=[1]).encode("b\nb") == [2, 1, 2]


def test_unknown_text_has_its_token() -> None:
    """As in BERT and T5: the token of unknown text is special, and text is encoded to it."""
    words = {"type": "WordPiece", "vocab": {"[UNK]": 0, "a": 1}, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 100}  # fmt: skip
    assert made(words, {"[UNK]": 0}).encode("?") == [0]
    assert made(unigram("a", "<unk>", unk=1), {"<unk>": 1}).encode("a?") == [0, 1]
    assert made(unigram("a", "<unk>", unk=1), {"<unk>": 1}, eos_ids=[1]).encode("a?") == [0]
    assert all(map(is_unknown_text, ("<unk>", "[UNK]", "<|unk|>"))) and not any(map(is_unknown_text, (END, "")))


@pytest.mark.parametrize("vocab", [{"z": 0, END: 1, "zz": 1}, {"z": 1, END: 1}])
def test_a_special_token_with_a_second_name_is_refused(vocab: dict[str, int]) -> None:
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    with pytest.raises(ModelFileError, match=r"have one id, 1: expected an id for each"):
        made(model, {END: 1})
    with pytest.raises(ModelFileError, match=r"have one id, 1"):
        made(model, {}, bos_id=1)


def test_ordinary_tokens_with_one_id_are_read() -> None:
    assert made({"type": "BPE", "vocab": {"z": 0, "y": 0, END: 1}, "merges": []}, {END: 1}).encode("zy") == [0, 0]
