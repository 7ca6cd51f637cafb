"""The embedding config in a model folder: special tokens around a text, maximum length, pooling.

Reads what sentence-transformers writes (modules.json, the pooling's config.json, sentence_bert_config.json) and the
post-processor of tokenizer.json. Not included: dense layers after the pooling, max pooling, and prompts (prepend them
yourself).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from firsthand.errors import ModelFileError
from firsthand.formats.embedder_modules import MODULES, read_modules
from firsthand.formats.fields import Fields
from firsthand.formats.model_files import read_json
from firsthand.tokens.tokenizer import Tokenizer

Pooling = Literal["mean", "cls", "lasttoken"]
POOLINGS: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "lasttoken"}
_OLD_POOLINGS: dict[str, Pooling | None] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": None,
    "pooling_mode_mean_sqrt_len_tokens": None,
    "pooling_mode_weightedmean_tokens": None,
}
MAX_TOKENIZER_BYTES = 1 << 27


@dataclass(frozen=True)
class EmbeddingConfig:
    """Pooling of a text's tokens into one vector."""

    pooling: Pooling
    """The mean of all hidden states, or the first token's, or the last token's."""
    max_tokens: int
    """Longer texts are truncated to this many tokens, `before` and `after` included."""
    before: tuple[int, ...] = ()
    """Ids put before each text, such as [CLS]."""
    after: tuple[int, ...] = ()
    """Ids put after each text, such as [SEP]."""
    lower: bool = False
    """True if texts are lower-cased before the tokenizer."""

    @property
    def max_text_tokens(self) -> int:
        """Tokens left for the text itself."""
        return self.max_tokens - len(self.before) - len(self.after)


def model_folder(folder: Path) -> Path:
    """Returns the folder with weights and tokenizer: this one, or the one that its modules.json names."""
    return _module_folder(folder, "Transformer", _modules(folder)) or folder


def states_embedding(folder: Path) -> bool:
    """True if a folder has the modules.json of sentence-transformers, so that it is an embedder."""
    return (folder / MODULES).is_file()


def read_embedding_config(folder: Path, tokenizer: Tokenizer, most: int, *, default: Pooling) -> EmbeddingConfig:
    """Returns the config that a folder's files describe.

    `most` is the most tokens the model takes, `default` the pooling if the files name none. Raises ModelFileError for a
    setting that is not supported.
    """
    modules = _modules(folder)
    inside = _module_folder(folder, "Transformer", modules) or folder
    pooled = _module_folder(folder, "Pooling", modules)
    pooling = (
        default if pooled is None else _pooling(Fields(read_json(pooled / "config.json"), str(pooled / "config.json")))
    )
    settings = optional_fields(inside / "sentence_bert_config.json")
    before, after = around_texts(inside, tokenizer)
    config = EmbeddingConfig(
        pooling, max_tokens_of(inside, settings, most), before, after, settings.flag("do_lower_case", False)
    )
    if config.max_text_tokens < 1:
        raise ModelFileError(
            f"{inside} allows {config.max_tokens} tokens a text, which leaves no room for the text itself"
        )
    return config


def default_embedding_config(tokenizer: Tokenizer, most: int, *, pooling: Pooling) -> EmbeddingConfig:
    """Returns the config of a model whose files describe none: BOS before a text if the tokenizer adds one."""
    before = (tokenizer.bos_id,) if tokenizer.add_bos and tokenizer.bos_id is not None else ()
    return EmbeddingConfig(pooling, most, before)


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Returns the kind and path of each module in modules.json; none if there is no such file."""
    found = read_modules(folder)
    unknown = [kind[:80] for kind, _ in found if kind not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise ModelFileError(
            f"{folder / MODULES} has a module {unknown[0]!r}: Transformer, Pooling and Normalize are supported"
        )
    return found


def _module_folder(folder: Path, wanted: str, modules: list[tuple[str, str]]) -> Path | None:
    paths = [path for kind, path in modules if kind == wanted]
    if not paths:
        return None
    if len(paths) > 1 or paths[0] in (".", "..") or set(paths[0]) & set("/\\\0"):
        raise ModelFileError(
            f"{folder / MODULES} puts {wanted} at {paths[:2]!r:.200}: expected one module, in a folder beside it"
        )
    return folder / paths[0]


def _pooling(config: Fields) -> Pooling:
    """Returns the one pooling in a config.json, in the old form (one flag each) or the new one (a name)."""
    if config.has("pooling_mode"):
        chosen: Pooling = config.choice("pooling_mode", POOLINGS)
        return chosen
    named = [key for key in config.values if key.startswith("pooling_mode_") and config.flag(key, False)]
    if len(named) != 1 or _OLD_POOLINGS.get(named[0]) is None:
        raise ModelFileError(f"{config.where} asks for {named or 'no pooling'}: expected one of {', '.join(POOLINGS)}")
    found = _OLD_POOLINGS[named[0]]
    assert found is not None
    return found


def max_tokens_of(folder: Path, settings: Fields, most: int) -> int:
    """The most tokens of a text that a folder's files allow; `most` is the most that the model takes."""
    if settings.has("max_seq_length"):
        return min(settings.integer("max_seq_length"), most)
    stated = optional_fields(folder / "tokenizer_config.json").values.get(
        "model_max_length"
    )  # absent, or 1e30 for "no limit"
    return min(stated, most) if type(stated) is int and stated > 0 else most


def around_texts(folder: Path, tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the ids that tokenizer.json's post-processor puts before and after a text."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return default_embedding_config(tokenizer, 1, pooling="mean").before, ()
    before, after = _from_processor(read_json(path, max_bytes=MAX_TOKENIZER_BYTES).get("post_processor"), path)
    wrong = [each for each in (*before, *after) if not (type(each) is int and 0 <= each < tokenizer.vocab_size)]
    if wrong or len(before) + len(after) > 16:
        raise ModelFileError(
            f"{path}: its post_processor adds {str([*before, *after])[:80]}: expected at most 16 ids of the vocabulary"
        )
    return before, after


def _from_processor(processor: Any, path: Path) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    match processor:
        case {"type": "TemplateProcessing", "single": list(pieces), "special_tokens": dict(tokens)}:
            return _from_template(pieces, tokens, path)
        case {"type": "BertProcessing" | "RobertaProcessing", "cls": [_, first], "sep": [_, last]}:
            return (first,), (last,)
        case {"type": "Sequence", "processors": list(steps)} if len(steps) <= 16:
            found = [_from_processor(step, path) for step in steps]
            outward = (
                each for before, _ in reversed(found) for each in before
            )  # each step stands around those before it
            return tuple(outward), tuple(each for _, after in found for each in after)
        case None | {"type": "ByteLevel"}:
            return (), ()
    raise ModelFileError(f"{path}: its post_processor is {str(processor)[:80]}: expected a template or BERT's own")


def _from_template(pieces: list[Any], tokens: Mapping[str, Any], path: Path) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    sides: list[list[Any]] = [[]]
    for piece in pieces:
        match piece:
            case {"Sequence": _}:
                sides.append([])
            case {"SpecialToken": {"id": str(name)}} if isinstance(tokens.get(name), dict):
                ids = tokens[name].get("ids")
                sides[-1] += ids if isinstance(ids, list) else [ids]
            case _:
                raise ModelFileError(f"{path}: the template of its post_processor has {str(piece)[:80]}")
    if len(sides) != 2:
        raise ModelFileError(f"{path}: the template of its post_processor has {len(sides) - 1} texts: expected 1")
    return tuple(sides[0]), tuple(sides[1])


def optional_fields(path: Path) -> Fields:
    """The fields of a JSON file; none if there is no such file."""
    return Fields(read_json(path) if path.is_file() else {}, str(path))
