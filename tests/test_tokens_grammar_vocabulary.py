"""The vocabulary of grammars: its end tokens, why there is none, what is forced at once; a server whose asker is gone."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

import llguidance
import pytest

from byte_tokens import IDS, description, made
from firsthand.errors import ConfigError
from firsthand.grammar import choice, regex
from firsthand.tokens import grammar_process, llguidance_grammar
from firsthand.tokens.llguidance_grammar import Vocabulary, byte_vocabulary, matcher_of, vocabulary
from firsthand.tokens.tokenizer import Tokenizer
from forked_process import forked

ENDS = [258, 263]
BARE = {**description(vocab={"a": 0, "b": 1}, merges=[]), "added_tokens": []}
"""Two letters, and no token that could be an end."""


def allowed(matcher: Any) -> list[int]:
    """The tokens that may come next."""
    mask = matcher.compute_bitmask()
    return [id for id in range(8 * len(mask)) if mask[id // 8] >> id % 8 & 1]


def test_an_answer_under_a_grammar_may_end_with_any_of_the_models_end_tokens() -> None:
    vocab = vocabulary(made())
    a, b = IDS["a"], IDS["b"]
    matcher = matcher_of(choice(["a", "ab"]), vocab)
    assert allowed(matcher) == [a, 256], "the letter, and the token for both"
    assert matcher.consume_token(a) and allowed(matcher) == sorted([b, *ENDS])
    for end in ENDS:
        ended = matcher.deep_copy()
        assert ended.consume_token(end) and ended.is_stopped() and ended.is_accepting()
    assert matcher.consume_token(b) and allowed(matcher) == ENDS and matcher.is_accepting()
    one = matcher_of(choice(["a"]), vocabulary(made(eos_ids=(258,))))
    assert one.consume_token(a) and allowed(one) == [258]


def test_llguidance_is_given_all_tokens_and_its_refusal_is_one_of_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def taken(vocab: Any, **options: Any) -> str:
        given.append((vocab.tokens, options))
        if len(given) > 1:
            raise ValueError("odd tokens")
        return "its view"

    monkeypatch.setattr(llguidance, "LLTokenizer", taken)
    tokenizer = made()
    assert vocabulary(tokenizer) == "its view"
    assert given == [(Vocabulary(tokenizer).tokens, {"n_vocab": 264, "eos_token": ENDS})]
    with pytest.raises(ConfigError) as error:
        vocabulary(tokenizer)
    assert str(error.value) == "grammars do not work with this model's tokenizer: odd tokens"
    with pytest.raises(
        ConfigError, match=r"^the model has no end-of-sequence token, so a grammar cannot end an answer$"
    ):
        vocabulary(Tokenizer(BARE))
    assert len(given) == 2, "one without an end is refused first"


def test_a_grammar_may_force_as_many_tokens_as_fit_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llguidance_grammar, "MAX_FORCED", 3)
    assert matcher_of(choice(["abc"]), byte_vocabulary()).compute_ff_tokens() == [97, 98, 99]
    with pytest.raises(ConfigError) as error:
        matcher_of(choice(["abcd"]), byte_vocabulary())
    assert str(error.value) == (
        "the choice grammar forces its first 4 tokens, more than fit a context: make it shorter"
    )
    assert matcher_of(choice(["abcd"]), byte_vocabulary(), forcing=False).compute_ff_tokens() == []
    assert matcher_of(choice(["abcd", "abcx"]), byte_vocabulary()).compute_ff_tokens() == [97, 98, 99]
    assert matcher_of(regex("(x|y)abcd"), byte_vocabulary()).compute_ff_tokens() == []


def test_a_process_without_llguidance_or_with_a_tokenizer_that_has_no_end_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = {"description": description(), "eos_ids": ENDS}
    found, problem = grammar_process._vocabulary(whole)
    assert (found.vocab_size, problem) == (264, "")
    no_end = "the model has no end-of-sequence token, so a grammar cannot end an answer"
    assert grammar_process._vocabulary({"description": BARE}) == (None, no_end)
    beyond = grammar_process._vocabulary({"description": description(), "eos_ids": [264]})
    assert beyond == (None, "tokenizer: the eos token id is 264, outside the vocabulary of 264 tokens")
    byte_vocabulary.cache_clear()
    monkeypatch.setitem(sys.modules, "llguidance", None)
    halted = "import of llguidance halted; None in sys.modules"
    assert grammar_process._vocabulary(None) == grammar_process._vocabulary(whole) == (None, halted)
    monkeypatch.undo()
    assert grammar_process._vocabulary(None)[1] == "" and byte_vocabulary() is byte_vocabulary()


@pytest.mark.slow
def test_a_server_whose_asker_is_gone_ends_without_a_word_wherever_it_was() -> None:
    def served(before: Callable[[socket.socket], None], tokenizer: Any = None) -> tuple[int, str, str]:
        ours, theirs = socket.socketpair()

        def server() -> None:
            ours.close()
            grammar_process.serve(theirs.detach())

        before(ours)
        ours.close()
        ended = forked(server)
        theirs.close()
        return ended

    head = b"\x13\0\0\0\0\0\0\0"
    for said in (b"", head[:3], head, head + b'{"tokenizer": ', head + b'{"tokenizer": null}'):
        assert served(lambda ours, said=said: ours.sendall(said)) == (0, "", ""), said
