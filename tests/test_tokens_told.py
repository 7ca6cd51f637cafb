"""Errors of tokenizers and of the server of grammars: what is raised, and what is said."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from byte_tokens import END, TOKENIZER, ids, made
from firsthand.errors import ConfigError, ModelFileError, TransientError
from firsthand.tokens import isolated_grammar, pretrained, spm
from firsthand.tokens.compile_slots import CompileSlots, HeldSlot
from firsthand.tokens.isolated_grammar import GrammarProcesses, _Server
from firsthand.tokens.llguidance_grammar import Vocabulary
from firsthand.tokens.pretrained import _folder_template, _read, load
from firsthand.tokens.text_growth import _longest
from firsthand.tokens.token_bytes import byte_reader, strips_leading_space
from firsthand.tokens.tokenizer import Tokenizer, _build, _special_finder


class Rust:
    """A tokenizer of the library that fails, or tells how it was asked."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.asked = error, list[Any]()

    def encode(self, text: str, *, add_special_tokens: bool) -> Any:
        self.asked.append(("one", len(text), add_special_tokens))
        if self.error is not None:
            raise self.error
        return type("Encoded", (), {"ids": [7, 8]})

    def encode_batch_fast(self, texts: list[str], *, add_special_tokens: bool) -> Any:
        self.asked.append(("batch", *map(len, texts), add_special_tokens))
        return [self.encode(texts[0], add_special_tokens=add_special_tokens)]


def test_a_text_that_the_library_cannot_encode_is_told_by_its_length() -> None:
    one = made()
    one._encoders = dict.fromkeys(one._encoders, Rust(ValueError("a panic")))
    with pytest.raises(ModelFileError) as error:
        one.encode("abc")
    assert str(error.value) == "the tokenizer could not encode a text of 3 characters: a panic"
    for passed in (KeyboardInterrupt(), SystemExit(3), MemoryError("m")):
        one._encoders = dict.fromkeys(one._encoders, Rust(passed))
        with pytest.raises(type(passed)):
            one.encode("abc")
    start, behind = Rust(), Rust()
    one._encoders = {"start": start, "behind_token": behind, "inside": behind}
    assert one.encode("x" * 2048) == [7, 8] and one.encode(f"x{END}y", special=True) == [7, 8, 258, 7, 8]
    assert one.encode("x" * 2049) == [7, 8]
    assert start.asked == [("one", 2048, False), ("one", 1, False), ("batch", 2049, False), ("one", 2049, False)]
    assert behind.asked == [("one", 1, False)], "what follows a token continues the text"
    one._normalise = lambda text: text * 2
    assert one._encode_plain("é\ud83d\ude42\ud800", "behind_token").tolist() == [7, 8]
    assert behind.asked[1] == ("one", 6, False), "a pair is one character, and half a pair another"


def test_a_vocabulary_may_be_empty() -> None:
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    one = Tokenizer({"model": {"vocab": {}, "merges": []}, "decoder": decoder})
    assert (one.vocab_size, one.encode("a"), one.decode([]), one.token_bytes(0)) == (0, [], "", b"")
    assert (one.eos_id, one.eos_ids, one.special_ids, one.text_of(0)) == (None, frozenset(), frozenset(), "")


def test_a_model_of_another_kind_or_a_broken_one_is_refused() -> None:
    for model, kind in (({"type": "WordLevel"}, "'WordLevel'"), (None, "None"), ([], "None")):
        with pytest.raises(ModelFileError) as error:
            _build({"model": model}, "s")
        assert str(error.value) == (
            f"s: the tokenizer's model is of type {kind}; BPE, Unigram and WordPiece are supported"
        )
    with pytest.raises(ModelFileError, match=r"^s: the tokenizer cannot be built: "):
        _build({"model": {"vocab": {"a": 0}, "merges": [["a", "z"]]}}, "s")
    assert _build({"model": {"vocab": {"a": 0}, "merges": []}}, "s").encode_special_tokens is True, (
        "BPE if none is named"
    )
    assert _special_finder([], "s") is None and _special_finder(["b", "a"], "s").pattern == "(?:a|b)"  # type: ignore[union-attr]
    assert (_longest("abc", "s"), _longest("*", "s"), _longest("BAAAAAAAAABhYgBhYmMAYQ==", "s")) == (1, 0, 3)


def test_bytes_of_a_vocabulary_are_read_by_its_decoder_or_else_by_its_pre_tokenizer() -> None:
    level, fallback, piece = {"type": "ByteLevel"}, {"type": "ByteFallback"}, {"type": "WordPiece"}

    def read(decoder: Any, cutter: Any = None) -> Any:
        found = byte_reader({"decoder": decoder, "pre_tokenizer": cutter}, "s")
        return [found(text) for text in ("Ġa", "▁a", "<0x41>", "##a", "<0x4>")]

    plain = ["Ġa".encode(), b" a", b"A", b"##a", b"<0x4>"]
    assert read(level)[0] == read(None, level)[0] == b" a"
    many = {"type": "Sequence", "decoders": [fallback, {"type": "Fuse"}]}
    assert read(many) == read({"type": "Metaspace"}, level) == read({"type": "Replace"}) == plain
    assert read(piece) == [" Ġa".encode(), " ▁a".encode(), b" <0x41>", b"a", b" <0x4>"]
    assert read({"type": "Sequence", "decoders": [piece, level]})[0] == b" a"
    for decoder, shown in ((None, "[]"), ({"type": "CTC"}, "['CTC']")):
        with pytest.raises(ModelFileError) as error:
            read(decoder)
        told = "is not supported; byte-level, SentencePiece and WordPiece vocabularies are read"
        assert str(error.value) == f"s: the decoder {shown} {told}"
    with pytest.raises(ModelFileError, match=r"^s: a step of the pretokenizers is of the type 3: a name was expected$"):
        read(level, {"type": 3})
    strip = {"type": "Strip", "content": " ", "start": 1}
    strips = [
        (strip, True), ({**strip, "start": 0}, False), ({**strip, "content": "x"}, False), (piece, True), (None, False),
        ({"type": "Metaspace"}, True), ({"type": "Metaspace", "prepend_scheme": "never"}, False),
        ({"type": "Metaspace", "add_prefix_space": False}, False), ({"type": "Metaspace", "prepend_scheme": "first"}, True),
        ({"type": "Sequence", "decoders": [level, {**strip, "start": 0}, strip]}, True),
        ({"type": "Sequence", "decoders": [{"type": "Metaspace", "prepend_scheme": "never"}, strip]}, False),
        ({"type": "Sequence", "decoders": {}}, False),
    ]  # fmt: skip
    assert [strips_leading_space(decoder) for decoder, _ in strips] == [strips for _, strips in strips]


def test_files_of_a_folder_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFileError) as error:
        _read(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} holds no tokenizer.json and no tokenizer.model: copy the model's tokenizer files there, or save them "
        "with transformers' AutoTokenizer.save_pretrained"
    )
    with pytest.raises(
        ModelFileError, match=rf"^{tmp_path / 'x'} holds no tokenizer: give a folder with tokenizer\.json"
    ):
        load(tmp_path / "x")
    model = tmp_path / "tokenizer.model"
    model.write_bytes(b"")
    for read in (_read, load):
        with pytest.raises(
            ModelFileError, match=rf"^{model} holds no pieces: it is no SentencePiece model, or cut short$"
        ):
            read(tmp_path)
    monkeypatch.setattr(spm, "_MAX_FILE_BYTES", 3)
    model.write_bytes(b"\x0a\x00\x00\x00")
    with pytest.raises(ModelFileError, match=rf"^{model} is larger than 3 bytes, the most of a SentencePiece model$"):
        spm.read_model(model)
    model.write_bytes(b"\x0a\x00\x00")
    with pytest.raises(ModelFileError, match=rf"^{model}: a piece has no text in UTF-8$"):
        spm.read_model(model)
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match=rf"^{tmp_path} cannot be read: Is a directory$"):
        spm.read_model(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"a": 1}')
    monkeypatch.setattr(pretrained, "_MAX_TOKENIZER_BYTES", 8)
    assert _read(tmp_path) == ({"a": 1}, ""), "tokenizer.json comes first, up to its own largest size"
    monkeypatch.setattr(pretrained, "_MAX_TOKENIZER_BYTES", 7)
    with pytest.raises(ModelFileError, match=r"tokenizer\.json is larger than 7 bytes"):
        _read(tmp_path)
    template = tmp_path / "chat_template.jinja"
    template.write_bytes(b"\xff")
    with pytest.raises(ModelFileError, match=rf"^{template} cannot be read as UTF-8 text: "):
        _folder_template(tmp_path, {"chat_template": "c"})
    template.write_text("é")
    assert _folder_template(tmp_path, {"chat_template": "c"}) == "é"
    template.unlink()
    assert _folder_template(tmp_path, {"chat_template": "c"}) == "c" and _folder_template(tmp_path, {}) is None


def test_the_vocabulary_of_grammars_counts_marks_of_calls_as_text() -> None:
    vocab = Vocabulary(TOKENIZER)
    assert (vocab.bos_token_id, vocab.eos_token_id, len(vocab.tokens)) == (262, 263, 264)
    assert vocab.special_token_ids == [257, 258, 260, 262, 263], "not the mark of a call, 259"
    assert vocab.tokens[256:260] == [b"ab", b"<|im_start|>", END.encode(), b"<tool_call>"]
    assert vocab("ab") == vocab(b"ab") == [256] and vocab(END) == ids(END), "no special token is named by a text"
    assert [vocab.tokens[id] for id in vocab(b"\xff")] == [b"\xff"], "half a character as it is"
    odd = made(bos_id=None, eos_ids=(258,))
    assert (Vocabulary(odd).bos_token_id, Vocabulary(odd).eos_token_id) == (None, 258)


SERVER = """
import os, struct, sys, socket
control = socket.socket(fileno=int(sys.argv[1]))
head = control.recv(8)
size, extra = struct.unpack("<II", head)
text = control.recv(size)
open({path!r}, "w").write(repr((text.decode(), sys.argv[2][:1], extra, os.environ["MALLOC_ARENA_MAX"])))
answer = {answer!r}
control.sendall(struct.pack("<II", len(answer), 0) + answer if answer else b"")
control.recv(1) if {waits} else None
"""


def test_a_server_that_does_not_start_may_be_tried_again_and_one_that_refuses_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "asked"

    def program(answer: bytes, waits: bool = False) -> None:
        monkeypatch.setattr(isolated_grammar, "_PROGRAM", SERVER.format(path=str(path), answer=answer, waits=waits))

    program(b"")
    with pytest.raises(TransientError) as error:
        _Server(None)
    assert str(error.value) == "the process that compiles grammars did not start (): try again"
    assert path.read_text() == repr(('{"tokenizer": null}', "[", 0, "1"))
    program(json.dumps({"problem": "no end"}).encode())
    with pytest.raises(ConfigError, match=r"^no end$"):
        GrammarProcesses({"bos_id": 3})._start({}, "w", "o", lambda: False)
    assert path.read_text().startswith("""('{"tokenizer": {"bos_id": 3}}'""")
    program(json.dumps({"problem": ""}).encode(), waits=True)
    server = _Server({"a": 1})
    assert not server.is_gone and server._control.gettimeout() == 120.0 and list(server.left) == []
    server._control.close()
    assert server._process.wait(10) == 0, "it ends with its socket"


def test_a_free_slot_is_for_the_first_of_those_who_hold_fewest() -> None:
    slots = CompileSlots(4)
    slots._running[:] = [HeldSlot("a"), HeldSlot("b"), HeldSlot("b")]
    waiting = [HeldSlot(owner) for owner in ("b", "a", "a", "c", "d")]
    for count, first in ((1, 0), (2, 1), (3, 1), (4, 3), (5, 3)):
        slots._waiting[:] = waiting[:count]
        assert slots._next() is waiting[first]
    slots._running[:] = [HeldSlot("b")] * 3
    slots._waiting[:] = waiting[:1]
    assert slots._next() is None, "one owner leaves a slot to others"
    slots._waiting[:] = waiting[:2]
    assert slots._next() is waiting[1]
    slots._running.append(HeldSlot("a"))
    assert slots._next() is None and slots._num(slots._running, "b") == 3
    ended: list[str] = []

    def held(owner: str, age_s: float) -> HeldSlot:
        slot = HeldSlot(owner, began=time.monotonic() - age_s)
        slot.end = lambda: ended.append(f"{owner} {age_s}")
        return slot

    slots._running[:] = [held("b", 1.0), held("c", 5.0), held("b", 4.0), held("b", 6.0)]
    slots._end_slow("b")
    slots._end_slow("b")
    assert ended == ["b 4.0"], "who holds all that one may has to end one of its own, and once"
    slots._end_slow("a")
    assert ended == ["b 4.0", "c 5.0"]


def test_slots_wait_no_longer_than_they_were_told_and_wake_when_one_comes_free() -> None:
    slots = CompileSlots(2, quick_s=0.0)
    assert (slots._most, CompileSlots(4)._most, CompileSlots(1)._most, CompileSlots(4)._quick_s) == (1, 3, 1, 3.0)
    ended = threading.Event()
    with slots.taken("a", "g", 1) as first:
        first.end = ended.set
        assert first.began <= time.monotonic() and slots._waiting == [] and slots._running == [first]
        began = time.monotonic()
        with pytest.raises(TransientError, match=r"^g waited 0\.05 s for others"), slots.taken("a", "g", 0.05):
            pass
        assert 0.04 < time.monotonic() - began < 5 and first.is_ended and ended.is_set(), "it was slow, and in the way"
        assert slots._waiting == [] and slots._running == [first]
        with pytest.raises(ValueError, match="inside"), slots.taken("b", "g", 0):
            raise ValueError("inside")
        assert slots._running == [first], "a slot is given back however its work ends"
    held = HeldSlot("x")
    assert (held.began, held.end, held.is_ended) == (0.0, None, False) and slots._running == []
    got: list[str] = []

    def wait() -> None:
        with slots.taken("a", "g", 5):
            got.append("a")

    with slots.taken("a", "g", 0):
        thread = threading.Thread(target=wait)
        thread.start()
        while not slots._waiting:
            time.sleep(0.001)
        assert got == []
    thread.join(5)
    assert got == ["a"]
