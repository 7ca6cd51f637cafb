"""`firsthand tokens` shows pieces, counts and costs, counts languages, and trains vocabularies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

from firsthand.cli import main
from firsthand.errors import ConfigError
from firsthand.tokens.fertility import ARTICLE_1, fertility
from firsthand.tokens.pretrained import load
from firsthand.train.vocabulary import train_vocabulary

TEXTS = [text for text in ARTICLE_1.values()] * 2 + ["def f(x):\n    return 12345\n", "  two  blanks\t", "don't WE'LL"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A vocabulary of each kind."""
    found = {}
    for kind in ("bpe", "unigram", "wordpiece"):
        found[kind] = tmp_path_factory.mktemp(kind)
        train_vocabulary(TEXTS, found[kind], kind=kind, vocab_size=600)
    return found


def test_trained_vocabularies_encode_as_the_library_does_and_lose_no_text(folders: dict[str, Path]) -> None:
    for kind, folder in folders.items():
        ours, theirs = load(folder), tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert ours.vocab_size == theirs.get_vocab_size() <= 600, kind
        assert ours.add_bos and ours.bos_id == ours.eos_id == theirs.token_to_id("<|endoftext|>")
        for text in TEXTS:
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids, kind
            if kind == "bpe":
                assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize(
    ("cut", "digits"), [("gpt-2", ["12345"]), ("gpt-4", ["123", "45"]), ("llama-3", ["123", "45"])]
)
def test_the_pre_tokeniser_decides_how_numbers_are_cut(tmp_path: Path, cut: str, digits: list[str]) -> None:
    ours = train_vocabulary(["12345 " * 50 + "123 45 " * 50], tmp_path / "not" / "there", vocab_size=300, cut=cut)
    assert [ours.token_bytes(id).decode() for id in ours.encode("12345")] == digits


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "texts to train a vocabulary on are empty"),
        (["", ""], {"kind": "unigram"}, "texts to train a vocabulary on are empty"),
        (["a"], {"vocab_size": 256}, "vocab_size is 256: bpe needs 257"),
        (["a"], {"kind": "words"}, "expected bpe, unigram or wordpiece"),
        (["a"], {"cut": "gpt-3"}, "cut is 'gpt-3'"),
    ],
)
def test_a_vocabulary_that_cannot_be_trained_is_refused(
    tmp_path: Path, texts: list[str], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train_vocabulary(texts, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_pieces_counts_and_costs_of_two_models_stand_side_by_side(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bpe, unigram = str(folders["bpe"]), str(folders["unigram"])
    assert main(["tokens", "free and equal 東", "--model", f"{bpe},{unigram}", "--price", f"{bpe}=2.5", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["models"]
    ours = load(folders["bpe"])
    assert first["ids"] == ours.encode("free and equal 東") and first["tokens"] == len(first["ids"])
    assert first["cost_usd"] == pytest.approx(first["tokens"] * 2.5e-6) and second["cost_usd"] is None
    assert "".join(first["pieces"]).startswith("free and equal ")
    assert main(["tokens", "free", "--model", bpe]) == 0
    assert "characters per token" in capsys.readouterr().out


def test_languages_are_counted_against_english(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    rows = fertility(load(folders["bpe"]))
    assert rows[0].language == "English" and rows[0].premium == 1
    by_name = {row.language: row for row in rows}
    assert by_name["Chinese"].tokens_per_word is None
    german = by_name["German"]
    assert german.tokens_per_word == german.tokens / len(ARTICLE_1["German"].split())
    assert main(["tokens", "--languages", "--model", str(folders["bpe"])]) == 0
    assert "vs. English" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a text is missing"),
        (["x", "--price", "smollm2=cheap"], "write MODEL=DOLLARS"),
        (["x", "--price", "other=1"], "of one of smollm2"),
        (["."], ". is a folder: give a file"),
        (["--train", "corpus.txt"], "--train and --out belong together"),
        (["--train", "no-such-file.txt", "--out", "o"], "cannot be read"),
    ],
)
def test_wrong_arguments_are_told_in_a_sentence(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tokens", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_command_trains_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus.txt").write_text("the cat sat\n" * 20)
    out = tmp_path / "made"
    assert main(["tokens", "--train", str(tmp_path / "corpus.txt"), "--vocab-size", "262", "--out", str(out)]) == 0
    assert "bpe vocabulary of 262 tokens" in capsys.readouterr().out
    assert load(out).decode(load(out).encode("the cat")) == "the cat"
