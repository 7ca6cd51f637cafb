"""The Tokenizer: text to token ids and back. User text can never forge a special token.

The `tokenizers` library (Rust) does the merging. This file adds special tokens and end-of-turn ids, the exact bytes of
each token, and encoding of text in which only some parts may name special tokens. Files are read in `pretrained.py`;
chat templates are in `templates/chat_template.py`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import tokenizers

from firsthand.errors import ModelFileError, PromptTooLong
from firsthand.message import Json, canonical
from firsthand.tokens import space_prefix
from firsthand.tokens.charsmap import read_table, replacer
from firsthand.tokens.plain_encoder import can_forge, without_special
from firsthand.tokens.protected_tokens import expect_one_name, is_unknown_text, with_byte_pieces, with_ends
from firsthand.tokens.text_growth import (
    MAX_ADDED_TOKENS,
    MAX_TOKENS,
    check_added,
    check_growth,
    check_model,
    expect_count,
)
from firsthand.tokens.token_bytes import byte_reader, strips_leading_space

END_OF_TURN = frozenset({
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>",
    "<|return|>", "<|call|>", "<｜end▁of▁sentence｜>", "<|eot|>", "<|turn_end|>",
})  # fmt: skip
CHANNEL_TOKENS = frozenset({"<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"})
"""The tokens of Harmony, the format of gpt-oss. `<|end|>` ends a message of a turn, `<|return|>` and `<|call|>` the turn."""
CONTROL = END_OF_TURN | {"<s>", "</s>", "<bos>", "<eos>", "<pad>", "<unk>", "<start_of_turn>", "[INST]", "[/INST]"}
CALL_MARKERS = frozenset({"[TOOL_CALLS]", "<|python_tag|>", "<tool_call>", "</tool_call>", "[ARGS]", "[CALL_ID]"})
"""Special tokens that `decode` always keeps: the tool-call parser reads them."""
_MAX_TEXTS, _SHORT, _LONG = 256, 256, 16_384
"""So many texts are kept with their ids, if they have more than 256 characters and at most 16,384: system prompts come again
with every chat."""
_SHARED = 2048
"""The Rust library holds Python's lock while it encodes one text, so longer ones are given to it as a batch."""
_PIECE, _PIECE_SLACK = 8192, 16
"""Characters that are counted at a time, and how many tokens more a text may have for being cut there."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_Place = Literal["start", "behind_token", "inside"]
"""Of a text: at the beginning, behind an added token, or behind other text. Each vocabulary puts its space before the first
word, if it has one, at the first place alone, or at the first two."""


class TextRun(NamedTuple):
    """A piece of text; only in a trusted one does the text of a special token become that token."""

    text: str
    trusted: bool


class AddedToken(NamedTuple):
    """A token found in text before merging; `lstrip` and `rstrip` strip the whitespace beside it."""

    id: int
    content: str
    special: bool
    lstrip: bool
    rstrip: bool


class Tokenizer:
    """Encodes text to ids and back.

    `description` is the content of a tokenizer.json; `table`, in base64, is that of a SentencePiece normaliser, applied
    first. ModelFileError if one of them is invalid.
    """

    bos_id: int | None
    """The token that begins a text, if there is one."""
    eos_id: int | None
    """The end token that the model's files name first."""
    eos_ids: frozenset[int]
    """All ids that end a turn or a text."""
    closing_ids: frozenset[int]
    """Those, and Harmony's `<|end|>`, which a chat template writes behind a turn but which does not end an answer."""
    has_channels: bool
    """True if the vocabulary has the tokens of Harmony."""
    add_bos: bool
    """True if a plain prompt begins with `bos_id`. Chat templates write it themselves."""
    special_ids: frozenset[int]
    """The special tokens: no untrusted text is ever encoded to one of them, but to that for unknown text."""
    chat_template: str | None
    """The model's chat template (Jinja), if there is one."""
    tool_template: str | None
    """Its template `tool_use` for conversations with tools, if it has one beside the other."""
    recommended: dict[str, float]
    """Sampling settings that the model's files recommend, by the fields of a Sampling."""
    fingerprint: str
    """Hash of all that decides encoding and decoding."""
    vocab_size: int
    """One more than the largest token id."""

    def __init__(
        self,
        description: Json,
        *,
        bos_id: int | None = None,
        eos_ids: Iterable[int] = (),
        add_bos: bool = False,
        chat_template: str | None = None,
        tool_template: str | None = None,
        recommended: Mapping[str, float] | None = None,
        table: str = "",
        source: str = "tokenizer",
    ) -> None:
        eos_ids = list(eos_ids)
        description = with_ends(with_byte_pieces(description, (bos_id, *eos_ids)), (bos_id, *eos_ids))
        self._table = table
        self._normalise = replacer(read_table(base64.b64decode(table), source)) if table else None
        self._added = {token.content: token for token in _added_tokens(description, source)}
        prepared = _prepare(description, self._added.values())
        self._rust = _build(prepared, source)
        special = [token.content for token in self._added.values() if token.special and token.content]
        self.special_ids = frozenset(token.id for token in self._added.values() if token.special)
        plain = without_special(prepared, special) if can_forge(prepared, special, self._rust) else None
        self._plain = self._rust if plain is None else _build(plain, source)
        self._encoders = _by_place(self._plain, plain or prepared, source)
        self._read_bytes = byte_reader(prepared, source)
        self._strips_space = strips_leading_space(prepared.get("decoder"))
        self._added_text = {token.id: token.content for token in self._added.values()}
        self._spaced = space_prefix.spaced_tokens(prepared)
        for token in self._added.values():
            if self._rust.token_to_id(token.content) != token.id:
                raise ModelFileError(
                    f"{source}: {token.content!r} is listed as id {token.id}, but the vocabulary "
                    f"gives {self._rust.token_to_id(token.content)}: the file contradicts itself"
                )
        expect_one_name(prepared, self.special_ids, source)
        self.vocab_size = 1 + max(self._rust.get_vocab(with_added_tokens=True).values(), default=-1)
        expect_count(self.vocab_size, MAX_TOKENS, "places for ids", source)  # masks and tables have one for each
        self.bos_id = _checked(bos_id, self.vocab_size, "bos", source)
        named = [end for id in eos_ids if (end := _checked(id, self.vocab_size, "eos", source)) is not None]
        ends = {token.id for token in self._added.values() if token.content in END_OF_TURN}
        self.has_channels = self._added.keys() >= CHANNEL_TOKENS
        inner = {self._added["<|end|>"].id} if self.has_channels else set()
        named = [id for id in named if id not in inner]
        self.eos_id = named[0] if named else None
        self.eos_ids = frozenset(ends.union(named) - inner)
        self.closing_ids = self.eos_ids | inner
        self.add_bos = add_bos and bos_id is not None
        self._protected = self._no_text(prepared["model"])
        self.chat_template, self.tool_template = chat_template, tool_template
        self.recommended = dict(recommended or {})
        self._hidden = self.special_ids - {self._added[name].id for name in CALL_MARKERS & self._added.keys()}
        self._special = {token.content: token for token in self._added.values() if token.special and token.content}
        self._special_pattern = _special_finder(self._special, source)
        self._bytes: dict[int, bytes] = {}
        self._remembered = lru_cache(_MAX_TEXTS)(self._encode_plain)
        self.fingerprint = hashlib.sha256(
            canonical([prepared, self.bos_id, sorted(self.eos_ids), self.add_bos, *([table] if table else [])]).encode(
                "utf-8", "surrogatepass"
            )
        ).hexdigest()

    def encode(
        self, text: str, *, special: bool = False, continuing: bool = False, most: int | None = None
    ) -> list[int]:
        """Returns the ids of a text, without BOS.

        With `special`, text such as `<|im_end|>` becomes that special token; without, it is encoded as plain text.
        `continuing` and `most` are those of `encode_runs`.
        """
        return self.encode_runs([TextRun(text, special)], continuing=continuing, most=most)

    def encode_prompt(self, text: str, *, most: int | None = None) -> list[int]:
        """Returns the ids of a plain text as the model is asked with it: after BOS where `add_bos` says so.

        Texts of chat templates write BOS themselves and are encoded by `ChatTemplate`.
        """
        start = self.start_id if self.add_bos else None
        return [*([] if start is None else [start]), *self.encode(text, most=most)]

    @property
    def start_id(self) -> int | None:
        """The token that a text begins with: BOS, or the end of text of a model without one; None if it has neither."""
        return self.bos_id if self.bos_id is not None else self.eos_id

    def token_id(self, text: str) -> int | None:
        """Returns the id of the added token that is spelled so, such as `<|im_end|>`; None if there is none."""
        added = self._added.get(text)
        return None if added is None else added.id

    def reads_ids_of(self, other: Tokenizer) -> bool:
        """True if every token of another tokenizer has the same id here, so that a model of this one reads its ids.

        Beginnings, ends and chat templates may differ, as those of a base model and of one that was tuned from it do.
        """
        if self.fingerprint == other.fingerprint:
            return True
        own, theirs = (each._rust.get_vocab(with_added_tokens=True) for each in (self, other))
        return bool(theirs.items() <= own.items())

    def check_length(self, text: str, most: int) -> None:
        """Raise PromptTooLong if a text has more than `most` tokens, without encoding much more than so many.

        Only texts of more than four bytes a token are looked at: encoding any other costs no more than a full context.
        """
        if len(text) <= most or len(text.encode("utf-8", "surrogatepass")) <= 4 * most:
            return
        count = 0
        for start in range(0, len(text), _PIECE):
            count += len(self._encode_plain(text[start : start + _PIECE], "inside")) - _PIECE_SLACK
            if count > most:
                raise PromptTooLong(
                    f"the prompt has {len(text)} characters and more than {most} tokens, the model's context: shorten it"
                )

    def encode_runs(
        self, runs: Sequence[TextRun], *, continuing: bool = False, after: Sequence[int] = (), most: int | None = None
    ) -> list[int]:
        """Returns the ids of the joined text of `runs`, in which only trusted runs may name special tokens.

        With `most`, raises PromptTooLong for a text that clearly has more tokens, before all of it is encoded.

        Text between two special tokens is encoded as one, whatever runs it came from, so the ids equal `encode` of the
        joined text unless an untrusted run names a special token. `continuing`: the text continues other text, so no
        space is put before it. `after`: it follows these tokens, and begins as behind the last of them in a whole text.
        """
        ids: list[int] = []
        waiting: list[str] = []
        previous = self._added.get(self._added_text.get(after[-1], "")) if after else None
        place: _Place = "behind_token" if previous else "inside" if after or continuing else "start"

        def flush(following: AddedToken | None) -> None:
            text = "".join(waiting)
            waiting.clear()
            text = text.lstrip() if previous is not None and previous.rstrip else text
            text = text.rstrip() if following is not None and following.lstrip else text
            if text:
                if most is not None:
                    self.check_length(text, most)
                remembered = _SHORT < len(text) <= _LONG
                if most is not None and len(ids) > most:
                    raise PromptTooLong(f"the prompt has more than {most} tokens, the model's context: shorten it")
                ids.extend((self._remembered if remembered else self._encode_plain)(text, place))

        for text, trusted in runs:
            start = 0
            for at, token in self.find_special(text) if trusted else ():
                waiting.append(text[start:at])
                flush(token)
                ids.append(token.id)
                previous, start, place = token, at + len(token.content), "behind_token"
            waiting.append(text[start:])
        flush(None)
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = True, continuing: bool = False) -> str:
        """Returns the text of ids; invalid UTF-8 becomes U+FFFD.

        `skip_special` leaves out special tokens, except tool-call markers. A space that the vocabulary puts before the
        first word is removed, unless the text is `continuing` another.
        """
        text = b"".join(self.visible_bytes(id, skip_special) for id in ids).decode("utf-8", "replace")
        return text[1:] if self._strips_space and not continuing and text.startswith(" ") else text

    def token_bytes(self, id: int) -> bytes:
        """Returns the exact bytes of a token; empty for an id without one, such as a padded row of the embedding."""
        known = self._bytes.get(id)
        if known is None:
            known = self._bytes[id] = self._bytes_of(id) if 0 <= id < self.vocab_size else b""
        return known

    def visible_bytes(self, id: int, skip_special: bool = True) -> bytes:
        """Returns the bytes of a token in `decode`."""
        return b"" if skip_special and id in self._hidden else self.token_bytes(id)

    def has_control(self, ids: Iterable[int], *, calls: bool = False) -> bool:
        """Returns whether ids hold a special token or one without bytes; with `calls`, tool-call markers are none."""
        special = self._hidden if calls else self.special_ids
        return any(id in special or not self.token_bytes(id) for id in ids)

    @property
    def hidden_ids(self) -> frozenset[int]:
        """The special tokens that `decode` leaves out."""
        return self._hidden

    @property
    def strips_leading_space(self) -> bool:
        """True if `decode` removes one space from the start of a text."""
        return self._strips_space

    def id_of(self, content: str) -> int | None:
        """Returns the id of a token by its text, or None."""
        found = self._rust.token_to_id(content)
        return None if found is None else int(found)

    def settings(self) -> Json:
        """The arguments that build this tokenizer again in another process; the chat template is left out."""
        ends = [id for id in (self.eos_id, *sorted(self.eos_ids)) if id is not None]
        return {
            "description": json.loads(self._rust.to_str()),
            "bos_id": self.bos_id,
            "eos_ids": list(dict.fromkeys(ends)),
            "add_bos": self.add_bos,
            **({"table": self._table} if self._table else {}),
        }

    def text_of(self, id: int | None) -> str:
        """Returns a token's text as the vocabulary writes it; empty for None."""
        return "" if id is None else self._added_text.get(id) or self._rust.id_to_token(id) or ""

    def find_special(self, text: str) -> Iterable[tuple[int, AddedToken]]:
        """Yields the special tokens in `text`, leftmost first and the longest at each place, as the Rust library finds
        them."""
        if self._special_pattern is not None:
            for match in self._special_pattern.finditer(text):
                yield match.start(), self._special[match[0]]

    def _bytes_of(self, id: int) -> bytes:
        added = self._added_text.get(id)
        if added is not None:
            return (f" {added}" if id in self._spaced else added).encode("utf-8", "replace")
        token = self._rust.id_to_token(id)
        return b"" if token is None else self._read_bytes(token)

    def _no_text(self, model: Json) -> frozenset[int]:
        """The ids that no encoded text may have: all special ones but that for unknown text, unless it ends one."""
        name = model.get("unk_token")
        unknown = self._rust.token_to_id(name) if isinstance(name, str) else model.get("unk_id")
        is_only_unknown = unknown not in (self.eos_ids | {self.bos_id}) and is_unknown_text(self.text_of(unknown))
        return self.special_ids - ({unknown} if is_only_unknown else set())

    def _encode_plain(self, text: str, place: _Place) -> array[int]:
        ids = self._encode_unchecked(text, place)
        if self._protected.isdisjoint(ids):
            return ids
        kept = (id for id in ids if id not in self._protected)  # as unknown text is left out where it has no token
        return array("i", kept)

    def _encode_unchecked(self, text: str, place: _Place) -> array[int]:
        if not text.isascii() and _SURROGATE.search(
            text
        ):  # half a surrogate pair, which JSON allows and UTF-8 does not
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if self._normalise is not None:
            text = self._normalise(text)
        rust = self._encoders[place]
        try:
            if len(text) > _SHARED:
                (encoded,) = rust.encode_batch_fast([text], add_special_tokens=False)
                return array("i", encoded.ids)
            return array("i", rust.encode(text, add_special_tokens=False).ids)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # a Rust panic is not an Exception
            raise ModelFileError(f"the tokenizer could not encode a text of {len(text)} characters: {error}") from error


def _checked(id: int | None, vocab_size: int, name: str, source: str) -> int | None:
    if id is not None and not (type(id) is int and 0 <= id < vocab_size):
        raise ModelFileError(f"{source}: the {name} token id is {id!r}, outside the vocabulary of {vocab_size} tokens")
    return id


def _added_tokens(description: Json, source: str) -> list[AddedToken]:
    entries = description.get("added_tokens") or []
    if not isinstance(entries, list):
        raise ModelFileError(f"{source}: added_tokens should be a list")
    expect_count(len(entries), MAX_ADDED_TOKENS, "added tokens", source)
    tokens = []
    for entry in entries:
        if not (isinstance(entry, dict) and isinstance(entry.get("content"), str) and type(entry.get("id")) is int):
            raise ModelFileError(f"{source}: an added token needs a text and a whole-number id, but is {entry!r:.200}")
        content = entry["content"]
        is_control = content in CONTROL or (content.startswith(("<|", "<｜")) and content.endswith(("|>", "｜>")))
        tokens.append(
            AddedToken(
                entry["id"],
                content,
                bool(entry.get("special")) or is_control,
                bool(entry.get("lstrip")),
                bool(entry.get("rstrip")),
            )
        )
    check_added([token.content for token in tokens], source)
    return tokens


def _prepare(description: Json, added: Iterable[AddedToken]) -> Json:
    """Returns the description with our special tokens, without truncation, padding and post-processing, and
    without the dropout of training, with which a text has other ids each time.
    """
    special = {token.content for token in added if token.special}
    entries = [entry | {"special": entry["content"] in special} for entry in description.get("added_tokens") or []]
    changed: Json = {"added_tokens": entries} | dict.fromkeys(("truncation", "padding", "post_processor"))
    model = description.get("model")
    if isinstance(model, dict) and model.get("dropout"):
        changed["model"] = model | {"dropout": None}
    return description | changed


def _special_finder(words: Iterable[str], source: str) -> re.Pattern[str] | None:
    """Returns an expression for the longest special token at a place; None if there are none."""
    try:
        return re.compile(pattern) if (pattern := _any_of(list(words))) else None
    except (RecursionError, re.error, OverflowError):
        raise ModelFileError(f"{source}: too many special tokens begin with each other to be told apart") from None


def _any_of(words: list[str]) -> str:
    """Returns an expression for the longest of the words at a place: a tree of letters, so that each is read once."""
    start = os.path.commonprefix(words)  # noqa: RUF071 (letters are compared, as they should be)
    rests: dict[str, list[str]] = {}
    for word in words:
        if len(word) > len(start):
            rests.setdefault(word[len(start)], []).append(word[len(start) :])
    more = "|".join(_any_of(rests[letter]) for letter in sorted(rests))
    return re.escape(start) + (f"(?:{more}){'?' * (start in words)}" if more else "")


def _build(description: Json, source: str) -> Any:
    model = description.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else None
    if kind not in ("BPE", "Unigram", "WordPiece"):
        raise ModelFileError(
            f"{source}: the tokenizer's model is of type {kind!r}; BPE, Unigram and WordPiece are supported"
        )
    check_growth(description, source)
    check_model(description, source)
    try:
        rust = tokenizers.Tokenizer.from_str(json.dumps(description))
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic is not an Exception
        raise ModelFileError(f"{source}: the tokenizer cannot be built: {error}") from error
    rust.encode_special_tokens = True
    return rust


def _by_place(plain: Any, description: Json, source: str) -> dict[_Place, Any]:
    """Returns the library's tokenizer for each place of a text; one serves several where they are encoded alike."""
    behind, inside = space_prefix.behind_token(description), space_prefix.inside(description)
    encoder = plain if behind is description else _sharing(plain, behind)
    if inside == behind:
        return {"start": plain, "behind_token": encoder, "inside": encoder}
    return {"start": plain, "behind_token": encoder, "inside": _sharing(plain, inside)}


def _sharing(rust: Any, description: Json) -> Any:
    """Returns a tokenizer of other steps with the model of `rust`: building one of 32,000 tokens again takes a second."""
    added = {token["content"]: token["id"] for token in description.get("added_tokens", [])}
    model = {"type": "WordLevel", "vocab": added, "unk_token": ""}  # gives the added tokens their ids
    other = tokenizers.Tokenizer.from_str(json.dumps(description | {"model": model}))
    other.model = rust.model
    other.encode_special_tokens = True
    return other
