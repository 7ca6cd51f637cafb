"""Every field of a model's tokenizer files set to a value of a wrong type: the tokenizer works, or is a ModelFileError."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from firsthand.embed.embedding_config import read_embedding_config
from firsthand.errors import FirsthandError, ModelFileError
from firsthand.tokens.gguf_vocab import adds_bos, description
from firsthand.tokens.pretrained import load
from thorough import THOROUGH, part

VALUES: tuple[Any, ...] = (
    [], {}, None, 5, "x", "", -1, 10**30, 1.5, True, [[]], [None], {"type": []}, {"type": "Sequence"}, [{"type": {}}],
)  # fmt: skip
TEXT = "the hello <|im_end|> world 1234 ▁é東🙂"
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = ["hello world the the", "a tokenizer of few words", "abab ab 12 34"] * 4


@cache
def described(kind: str) -> str:
    """A trained tokenizer.json of that kind."""
    if kind == "byte-level":
        made = RustTokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=300, special_tokens=SPECIALS, show_progress=False, initial_alphabet=alphabet
        )
    elif kind == "sentencepiece":
        made = RustTokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace("  ", " ")])
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=["<unk>", *SPECIALS], show_progress=False)
    else:
        made = RustTokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]", *SPECIALS], show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    begin = made.token_to_id("<|im_start|>")
    made.post_processor = processors.Sequence(
        [
            processors.TemplateProcessing("<|im_start|> $A", special_tokens=[("<|im_start|>", begin)]),
        ]
    )
    return str(made.to_str())


FILES: dict[str, Any] = {
    "tokenizer_config.json": {
        "bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>", "add_bos_token": True,
        "chat_template": [{"name": "default", "template": "{{ messages }}"}],
    },
    "special_tokens_map.json": {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}},
    "generation_config.json": {"eos_token_id": [2, 0]},
}  # fmt: skip


def paths(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a JSON value; of long lists and objects, such as a vocabulary, the first two and the last."""
    yield at
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    for key in keys if len(keys) < 20 else [*keys[:2], keys[-1]]:
        yield from paths(node[key], (*at, key))


def changed(node: Any, at: tuple[Any, ...], value: Any) -> Any:
    """The value with another one, or with `...` none, at a place."""
    if not at:
        return value
    node = copy.deepcopy(node)
    inner = node
    for key in at[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return node


def use(folder: Path) -> None:
    """Encode and decode with the folder's tokenizer, and read what an embedder reads of it."""
    tokenizer = load(folder)
    ids = tokenizer.encode(TEXT) + tokenizer.encode(TEXT, special=True)
    tokenizer.decode(ids)
    for id in range(min(tokenizer.vocab_size, 400)):
        tokenizer.token_bytes(id)
        tokenizer.text_of(id)
    read_embedding_config(folder, tokenizer, 512, default="mean")


def write(folder: Path, kind: str) -> dict[str, Any]:
    contents = {"tokenizer.json": json.loads(described(kind)), **FILES}
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    return contents


def mutate(folder: Path, kind: str, names: tuple[str, ...], values: tuple[Any, ...]) -> int:
    contents, count = write(folder, kind), 0
    use(folder)
    for name in names:
        for at in paths(contents[name]):
            for value in values if at else values[:-1]:
                (folder / name).write_text(json.dumps(changed(contents[name], at, value)))
                count += 1
                try:
                    use(folder)
                except FirsthandError as error:
                    assert len(str(error)) < 1000
                except BaseException as error:
                    raise AssertionError(f"{kind} {name} {at} = {value!r}") from error
        (folder / name).write_text(json.dumps(contents[name]))
    return count


@pytest.mark.slow
def test_the_type_of_a_decoder_that_is_no_text_is_refused(tmp_path: Path) -> None:
    for key in ("decoder", "pre_tokenizer"):
        for value in VALUES:
            contents = write(tmp_path, "byte-level")["tokenizer.json"]
            (tmp_path / "tokenizer.json").write_text(json.dumps(contents | {key: {"type": value}}))
            with pytest.raises(FirsthandError):
                load(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece", "wordpiece"])
def test_wrong_types_in_the_small_files_are_model_file_errors(tmp_path: Path, kind: str) -> None:
    assert mutate(tmp_path, kind, tuple(FILES), ([], {}, "x", 10**30, ...)) > 50


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece", "wordpiece"])
def test_wrong_types_anywhere_are_model_file_errors(tmp_path: Path, kind: str) -> None:
    values = (*part(VALUES, 6), ...)
    assert mutate(tmp_path, kind, ("tokenizer.json", *FILES), values) > (500 if THOROUGH else 75)


@pytest.mark.parametrize("odd", [[], ["qwen2"], 5, None, True, ""])
def test_the_name_of_a_gguf_pretokenizer_may_be_any_value(odd: Any) -> None:
    tokens = {"tokenizer.ggml.tokens": ["a", "b", "ab"], "tokenizer.ggml.merges": ["a b"]}
    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": odd, **tokens}
    adds_bos(metadata)
    with contextlib.suppress(ModelFileError):
        description(metadata, "x.gguf")
