"""SentencePiece's space before a text's first word: text that continues other text gets none."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers

from firsthand.engine.decoding.constraint import Grammars, Guide
from firsthand.grammar import choice, json_schema, regex
from firsthand.message import Json, Message, Sampled, Text, assistant, user
from firsthand.providers.local_completions import encode_pair
from firsthand.providers.request_preparation import bad_sequences
from firsthand.retrieval.reflection.token_reflections import raw_prompt
from firsthand.tokens import spm
from firsthand.tokens.llguidance_grammar import Vocabulary
from firsthand.tokens.space_prefix import behind_token, inside, spaced_tokens
from firsthand.tokens.templates.chat_template import ChatTemplate
from firsthand.tokens.templates.template_sandbox import SandboxedTemplate
from firsthand.tokens.tokenizer import TextRun, Tokenizer
from firsthand.train.conversations import Conversation, encode_conversation
from firsthand.train.reflected_texts import ReflectedText, encode_reflected

ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
BARE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
METASPACE = {"type": "Metaspace", "replacement": "▁", "split": False}


def pieces() -> spm.Pieces:
    words = ["es", "yes", "▁yes", "no", "▁no", "▁<", '{"', '▁{"', "▁[", "us", "user"]
    letters = sorted(set('▁yesnour<>|{}[]:",at0123456789-T'))
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, *letters]
    kinds = [spm.UNKNOWN, spm.CONTROL, spm.CONTROL, *[spm.BYTE] * 256, *[spm.NORMAL] * (len(words) + len(letters))]
    return spm.Pieces(texts, [-float(place) for place in range(len(texts))], kinds, True)


def described(scheme: str) -> Json:
    content = spm.description(pieces(), "s")
    if scheme == "prepend":
        return content
    old = {"add_prefix_space": True} if scheme == "old" else {"prepend_scheme": scheme}
    return content | {"normalizer": None, "pre_tokenizer": METASPACE | old}


def made(scheme: str = "prepend") -> Tokenizer:
    return Tokenizer(described(scheme), bos_id=1, eos_ids=[2], add_bos=True)


def names(tokenizer: Tokenizer, ids: Any) -> list[str]:
    return [tokenizer.text_of(id) for id in ids]


SCHEMES = ("prepend", "always", "old", "first", "never")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_that_continues_other_text_gets_no_space(scheme: str) -> None:
    one = made(scheme)

    def encoded(*runs: str, **options: Any) -> list[str]:
        return names(one, one.encode_runs([TextRun(text, True) for text in runs], **options))

    at_start = ["yes"] if scheme == "never" else ["▁yes"]
    behind = ["yes"] if scheme in ("never", "first") else ["▁yes"]
    assert encoded("yes") == at_start
    assert encoded("yes", continuing=True) == encoded("yes", after=one.encode("no")) == ["yes"]
    assert encoded("</s>yes") == ["</s>", *behind], "as the library has it"
    assert encoded("</s>yes", continuing=True) == ["</s>", *behind]
    assert encoded("yes", after=[2]) == encoded("yes", after=[*one.encode("no"), 1]) == behind
    assert encoded(" yes", continuing=True) == ["▁yes"]
    assert one.decode(one.encode(" no"), continuing=True).endswith(" no")


@pytest.mark.parametrize("template", [ZEPHYR, BARE, ZEPHYR.replace("|>\\n{% endif", "|></s>{% endif")])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scored_continuation_of_a_chat_is_encoded_as_in_the_whole(template: str, scheme: str) -> None:
    one = made(scheme)
    loaded: Any = SimpleNamespace(tokenizer=one, sources=None, chat=ChatTemplate(one, template))
    for text in ("yes", " yes"):
        prompt, ids = encode_pair(loaded, [user("no")], text)
        whole = SandboxedTemplate(template).render({"messages": [{"role": "user", "content": "no"}],
                                                    "add_generation_prompt": True}) + text  # fmt: skip
        assert names(one, [*prompt, *ids]) == names(one, one.encode(whole, special=True))
    _, ids = encode_pair(loaded, [user("no")], "</s>")
    assert 2 not in ids, "no special token is named by a continuation"


def test_text_behind_a_token_that_strips_is_stripped_in_a_later_part_too() -> None:
    content = described("prepend")
    content["added_tokens"] = [each | {"rstrip": each["content"] == "</s>"} for each in content["added_tokens"]]
    one = Tokenizer(content, eos_ids=[2])
    whole = one.encode_runs([TextRun("yes</s>\n no", True)])
    assert one.encode_runs([TextRun("\n no", True)], after=whole[:2]) == whole[2:] == [one.id_of("▁no")]


def test_a_byte_level_vocabulary_puts_no_space_before_what_continues_a_text() -> None:
    content = {
        "model": {"type": "BPE", "vocab": {"a": 0, "Ġ": 1, "Ġa": 2}, "merges": [["Ġ", "a"]]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    }  # fmt: skip
    end = described("never")["added_tokens"][2] | {"id": 3}
    one = Tokenizer(content | {"added_tokens": [end]})
    assert (one.encode("a"), one.encode_runs([TextRun("a", False)], continuing=True)) == ([2], [0])
    assert one.encode("</s>a", special=True) == [3, 2], "as the library has it"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_bad_word_is_banned_with_and_without_the_space(scheme: str) -> None:
    one = made(scheme)
    banned = [names(one, ids) for ids in bad_sequences(one, ["yes"])]
    assert ["yes"] in banned and ["▁yes"] in banned


@pytest.mark.parametrize("scheme", SCHEMES)
def test_forced_text_is_written_as_the_grammar_says(scheme: str) -> None:
    one = made(scheme)
    grammars = Grammars(one)
    whole = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"],
             "additionalProperties": False}  # fmt: skip
    assert names(one, grammars.compile(json_schema(whole)).forced)[:2] == ['{"', "yes"]
    assert grammars.compile(json_schema({"type": "object"})).allowed is not None
    assert grammars.compile(regex(r"[0-9]{4}-[0-9]{2}")).allowed is not None
    guide = Guide(grammars.compile(choice(["yes", "no"])))
    guide.advance(one.id_of("y") or 0)
    assert names(one, guide.forced) == ["es"]


def test_a_text_that_the_tokenizer_would_change_is_forced_to_the_byte() -> None:
    content = described("never") | {"normalizer": {"type": "Lowercase"}}
    content["added_tokens"].append(content["added_tokens"][1] | {"id": 302, "content": "<tool_call>"})
    one = Tokenizer(content, bos_id=1, eos_ids=[2])
    vocab = Vocabulary(one)
    assert names(one, vocab("T")) == ["T"] and names(one, vocab("Tyes")) == ["T", "yes"]
    assert names(one, vocab("</s>yes")) == ["<", "<0x2F>", "s", ">", "yes"], "no special token is named by a text"
    assert (
        302 not in vocab("T<tool_call>")
        and b"".join(vocab.tokens[id] for id in vocab("T<tool_call>")) == b"T<tool_call>"
    )
    assert names(one, vocab(b"yes\xff")) == ["yes", "<0xFF>"], "half a character"
    assert vocab("") == []
    del vocab._by_bytes[b"T"]
    del vocab._by_bytes[b"o"]
    assert names(one, vocab("noTs")) == ["no"] and names(one, vocab("Tno")) == [], (
        "they end before what begins no token"
    )


@pytest.mark.parametrize(
    ("template", "answer", "end", "whole"),
    [
        (ZEPHYR, "no", [2], "<|user|>\nyes</s>\n<|assistant|>\nno</s>\n<|user|>\nyes</s>\n<|assistant|>\n"),
        (BARE, " no", [], "[user] yes\n[assistant] no\n[user] yes\n[assistant]"),
    ],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_template_behind_an_answer_is_encoded_as_in_the_whole(
    template: str, answer: str, end: list[int], whole: str, scheme: str
) -> None:
    one = made(scheme)
    chat = ChatTemplate(one, template)
    prompt = chat.encode([user("yes")])
    ids = (*one.encode_runs([TextRun(answer, False)], after=prompt), *end)
    said = Message("assistant", (Text("no"),), Sampled(ids, (0.0,) * len(ids)))
    assert names(one, chat.encode([user("yes"), said, user("yes")])) == names(one, one.encode(whole, special=True))


@pytest.mark.parametrize("scheme", ["prepend", "always", "first"])
def test_the_encoders_of_all_places_share_a_model_and_have_every_added_token(scheme: str) -> None:
    content = described(scheme)
    token = content["added_tokens"][1]
    content["added_tokens"] += [token | {"id": 302, "content": "<far>"}, token | {"id": 303, "content": "<near>"}]
    content["added_tokens"].append(token | {"id": 304, "content": "yesno", "special": False})
    one = Tokenizer(content, bos_id=1, eos_ids=[2])
    whole = json.loads(one._plain.to_str())
    for place, changed in (("behind_token", behind_token(whole)), ("inside", inside(whole))):
        encoder = one._encoders[place]  # type: ignore[index]
        assert json.loads(encoder.to_str()) == changed
        assert encoder.get_vocab() == one._plain.get_vocab()
        rebuilt = tokenizers.Tokenizer.from_str(json.dumps(changed))
        rebuilt.encode_special_tokens = True
        for text in ("yes", " yesno yes", "<far>no<near>", "é\n yes"):
            assert encoder.encode(text).ids == rebuilt.encode(text).ids
    assert one.encode("yesno", continuing=True) == [304]


def test_what_stands_behind_a_reflection_token_is_encoded_as_in_the_whole() -> None:
    content = described("prepend")
    content["added_tokens"].append(content["added_tokens"][1] | {"id": 302, "content": "[Relevant]"})
    one = Tokenizer(content, bos_id=1, eos_ids=[2], add_bos=True)
    stream = encode_reflected(ReflectedText("line 1", "no", "yes[Relevant]yes"), one)
    prompt = raw_prompt("no", "")
    assert stream.ids.tolist() == [1, *one.encode(f"{prompt}yes[Relevant]yes", special=True), 2]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_trained_answer_is_encoded_as_in_the_whole(scheme: str) -> None:
    one = made(scheme)
    row = Conversation(messages=[user("yes"), assistant("no")], trained=[False, True], source="line 1")
    bare = encode_conversation(row, one, ChatTemplate(one, BARE))
    assert bare.ids.tolist() == [*one.encode("[user] yes\n[assistant] no"), 2]

    def texts(prompt: str, text: str) -> list[int]:
        text_row = Conversation(messages=[], trained=[], source="line 1", prompt=prompt, text=text)
        found: list[int] = encode_conversation(text_row, one, ChatTemplate(one, BARE)).ids.tolist()
        return found

    assert texts("", "yes") == [1, *one.encode("yes"), 2], "as a document"
    assert texts("no", " yes") == [1, *one.encode("no yes"), 2]


@pytest.mark.parametrize("kind", ["normalized", "raw"])
def test_an_added_word_that_is_normalised_holds_the_space_before_it(kind: str) -> None:
    content = described("prepend")
    id = 1 + max(content["model"]["vocab"].values())
    word = {"id": id, "content": "nose", "single_word": False, "lstrip": False, "rstrip": False}
    content["added_tokens"].append(word | {"normalized": kind != "raw", "special": False})
    one = Tokenizer(content, bos_id=1, eos_ids=[2], add_bos=True)
    library = tokenizers.Tokenizer.from_str(json.dumps(content))
    for text in ("no nose yes", "nose", "nose nose no", "</s>nose", "no</s> nose"):
        ids = library.encode(text, add_special_tokens=False).ids
        assert one.encode_runs([TextRun(text, True)]) == ids
        assert one.decode(ids, skip_special=False) == library.decode(ids, skip_special_tokens=False)
    continued = one.encode_runs([TextRun("no nose", True)], continuing=True)
    assert one.decode(continued, continuing=True) == "no nose" and id in continued
    assert one.token_bytes(id) == (b" nose" if kind == "normalized" else b"nose")
    behind = one.encode_runs([TextRun("nose", True)], continuing=True)
    assert (id in behind) == (kind != "normalized"), "a word without a space before it is not that token"
    assert spaced_tokens(content) == ({id} if kind == "normalized" else set())
    assert spaced_tokens(content | {"normalizer": {"type": "Prepend", "prepend": "#"}}) == set(), "no space, but a sign"
    content["added_tokens"][-1] |= {"special": True}
    assert Tokenizer(content, bos_id=1, eos_ids=[2]).token_bytes(id) == b"nose", "special tokens are found as written"
