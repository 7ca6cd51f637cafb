"""What is streamed equals what is decoded at once, and stop strings are found wherever tokens cut them."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpu_time import at_most_cpu_s
from firsthand.tokens.incremental_decoding import IncrementalDetokenizer, StopString, StopStrings
from firsthand.tokens.token_bytes import byte_level_bytes, character_of_byte
from firsthand.tokens.tokenizer import Tokenizer


def byte_tokenizer() -> Tokenizer:
    """One token for each byte, a few longer ones, and two control tokens."""
    letters = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = [chr(byte) for byte in letters] + [chr(256 + index) for index in range(256 - len(letters))]
    merges = [["a", "b"], ["ab", "c"], ["c", "a"], ["Ġ", "a"], ["Ã", "©"]]
    tokens = [*characters, *["".join(merge) for merge in merges]]
    specials = ["<|im_start|>", "<|im_end|>"]
    return Tokenizer(
        {
            "added_tokens": [
                {
                    "id": len(tokens) + index,
                    "content": text,
                    "special": True,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                }
                for index, text in enumerate(specials)
            ],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "vocab": {text: id for id, text in enumerate(tokens)}, "merges": merges},
        }
    )


def spaced_tokenizer() -> Tokenizer:
    """A SentencePiece kind of vocabulary, with byte fallback and a space before the first word."""
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "c", "▁a"]
    return Tokenizer(
        {
            "added_tokens": [
                {
                    "id": 0,
                    "content": "<unk>",
                    "special": True,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                }
            ],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Prepend", "prepend": "▁"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                ],
            },
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                ],
            },
            "model": {
                "type": "BPE",
                "unk_token": "<unk>",
                "byte_fallback": True,
                "vocab": {text: id for id, text in enumerate(tokens)},
                "merges": [["▁", "a"]],
            },
        }
    )


TOKENIZERS = [byte_tokenizer(), spaced_tokenizer()]
IDS = st.lists(st.integers(0, 263), max_size=30)
TEXTS = st.text("abc é東🙂", max_size=25)
STOPS = st.lists(st.text("abc é東", min_size=1, max_size=4), max_size=4)


def naive_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The text before the stop string that is complete first, by trying every prefix."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


def test_every_byte_has_its_token() -> None:
    tokenizer = byte_tokenizer()
    assert sorted(tokenizer.token_bytes(id)[0] for id in range(256)) == list(range(256))
    assert byte_level_bytes("Ġa") == b" a"


def test_bytes_that_are_no_printable_letters_are_written_from_u0100_on() -> None:
    written = "".join(map(chr, [
        *range(0x100, 0x121), *range(0x21, 0x7F), *range(0x121, 0x143), *range(0xA1, 0xAD), 0x143, *range(0xAE, 0x100),
    ]))  # fmt: skip
    assert "".join(character_of_byte()) == written and len(written) == 256
    assert byte_level_bytes(written) == bytes(range(256)) and byte_level_bytes("") == b""
    for other in ("\xad", "\x7f", "\xa0", " ", "\u0144", "Ġ ", "aŃ\u0144"):
        assert byte_level_bytes(other) == other.encode(), "one letter that is none of them: the text's own bytes"
    assert byte_level_bytes("Ń\ud800") == b"\xc5\x83?"


def test_every_token_is_one_byte() -> None:
    tokenizer = byte_tokenizer()
    assert tokenizer.token_bytes(10**6) == tokenizer.token_bytes(-1) == b""


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TOKENIZERS), IDS, st.booleans())
def test_streamed_pieces_join_to_the_whole_decode(tokenizer: Tokenizer, ids: list[int], skip: bool) -> None:
    decoder = IncrementalDetokenizer(tokenizer, skip_special=skip)
    pieces = [decoder.feed(id) for id in ids] + [decoder.finish()]
    assert "".join(pieces) == tokenizer.decode(ids, skip_special=skip)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TOKENIZERS), TEXTS)
def test_half_a_character_is_never_shown(tokenizer: Tokenizer, text: str) -> None:
    decoder = IncrementalDetokenizer(tokenizer)
    shown = ""
    for id in tokenizer.encode(text):
        shown += decoder.feed(id)
        assert text.startswith(shown)
    assert shown + decoder.finish() == text


def test_an_answer_that_goes_on_after_a_prompt_keeps_its_space() -> None:
    tokenizer = spaced_tokenizer()
    space_a = tokenizer.id_of("▁a")
    assert space_a is not None
    assert IncrementalDetokenizer(tokenizer).feed(space_a) == "a"
    assert IncrementalDetokenizer(tokenizer, continuing=True).feed(space_a) == " a"


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.sampled_from(TOKENIZERS), IDS | TEXTS, STOPS)
def test_stop_strings_cut_where_the_naive_search_cuts(
    tokenizer: Tokenizer, source: list[int] | str, stops: list[str]
) -> None:
    ids = tokenizer.encode(source) if isinstance(source, str) else source
    expected, stop = naive_stop(tokenizer.decode(ids), stops)
    watch = StopStrings(tokenizer, stops)
    shown = ""
    for id in ids:
        found = watch.feed(id)
        shown += watch.take()
        assert expected.startswith(shown)
        if found:
            break
    else:
        watch.finish()
        shown += watch.take()
    assert (shown, watch.stopped) == (expected, stop)


def test_of_two_stop_strings_that_end_together_the_longer_one_is_cut() -> None:
    tokenizer = byte_tokenizer()
    watch = StopStrings(tokenizer, ["c", "bc"])
    assert [watch.feed(tokenizer.encode(character)[0]) for character in "xbc"] == [False, False, True]
    assert (watch.take(), watch.stopped) == ("x", "bc")


def test_text_that_could_become_a_stop_string_is_held_back() -> None:
    tokenizer = byte_tokenizer()
    watch = StopStrings(tokenizer, ["aab"])
    shown = []
    for character in "xaaac":
        assert not watch.feed(tokenizer.encode(character)[0])
        shown.append(watch.take())
    assert shown == ["x", "", "", "a", "aac"]


def test_control_tokens_are_not_shown_and_call_markers_are() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("a<|im_end|>b", special=True)
    assert tokenizer.decode(ids) == "ab"
    assert tokenizer.decode(ids, skip_special=False) == "a<|im_end|>b"


@pytest.mark.parametrize("stop", ["a" * 50_000, "ab" * 25_000])
def test_long_stop_strings_and_answers_take_linear_time(stop: str) -> None:
    tokenizer = byte_tokenizer()
    a, b = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    watch = StopStrings(tokenizer, [stop])
    with at_most_cpu_s(5):
        for step in range(40_000):
            watch.feed(a if step % 3 else b)
            watch.take()


def test_a_stop_string_knows_the_longest_beginning_that_each_of_its_own_ends_with() -> None:
    assert StopString.of("aabaaac").shorter == (0, 1, 0, 1, 2, 2, 0) and StopString.of("").shorter == ()
    assert StopString.of("abacabad").shorter == (0, 0, 1, 0, 1, 2, 3, 0)
    strings = ["".join(letters) for size in range(1, 8) for letters in product("ab", repeat=size)]
    strings += ["".join(letters) for letters in product("abc", repeat=5)]
    for string in strings:
        begun = [string[:end] for end in range(1, len(string) + 1)]
        assert StopString.of(string).shorter == tuple(
            max(size for size in range(len(text)) if text.endswith(string[:size])) for text in begun
        ), string


def test_a_stop_string_that_repeats_its_beginning_is_found_where_it_stands_and_nowhere_else() -> None:
    tokenizer = byte_tokenizer()
    letters = {letter: tokenizer.encode(letter)[0] for letter in "abcd"}
    for stop in ("aabaaacd", "aabaab", "abacabad", "aaab"):
        for text in (
            f"aabaaab{stop}",
            f"aabaaa{stop}c",
            f"{stop[:-1]}{stop}",
            f"aabaaaad{stop}",
            stop[:-1] * 2,
            f"b{stop}",
        ):
            watch, shown = StopStrings(tokenizer, [stop]), ""
            for letter in text:
                found = watch.feed(letters[letter])
                shown += watch.take()
                if found:
                    break
            watch.finish()
            assert (shown + watch.take(), watch.stopped) == naive_stop(text, [stop]), (stop, text)
