"""Grammars that an engine has compiled: kept by text, kind and forcing, invalid ones too, and compiled once each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest

from byte_tokens import IDS, made
from firsthand.engine.decoding import constraint
from firsthand.engine.decoding.constraint import CompiledGrammar, Grammars, ids_of
from firsthand.errors import ConfigError
from firsthand.grammar import Grammar, choice, regex
from firsthand.tokens import llguidance_grammar
from firsthand.tokens.isolated_grammar import IsolatedMatcher

AB, A, B = 256, IDS["a"], IDS["b"]


@pytest.mark.parametrize("first", [True, False])
def test_a_grammar_with_forcing_and_one_without_are_kept_apart_in_either_order(first: bool) -> None:
    grammars, grammar = Grammars(made()), choice(["ab"])
    assert grammars.find(grammar) is None is grammars.find(grammar, forcing=False)
    one = grammars.compile(grammar, forcing=first)
    assert grammars.find(grammar, forcing=first) is one and grammars.find(grammar, forcing=not first) is None
    other = grammars.compile(grammar, forcing=not first)
    forced, free = (one, other) if first else (other, one)
    assert (forced.forcing, forced.forced, free.forcing, free.forced) == (True, (AB,), False, ())
    assert ids_of(free.guide().allowed).tolist() == [A, AB], "each spelling"
    assert (forced.grammar, forced.vocab_size, free.grammar, free.vocab_size) == (grammar, 264, grammar, 264)
    for forcing, held in ((True, forced), (False, free)):
        assert grammars.find(grammar, forcing=forcing) is held is grammars.compile(choice(["ab"]), forcing=forcing)
    assert grammars.find(grammar) is forced is grammars.compile(grammar), "forcing unless it is said"
    assert grammars.num_bytes >= one.num_bytes + other.num_bytes


def test_grammars_of_another_text_or_kind_are_others_and_each_tokenizer_has_its_own() -> None:
    grammars, others = Grammars(made()), Grammars(made())
    word, longer, same = regex("ab"), regex("abb"), choice(["ab"])
    found = [grammars.compile(each) for each in (word, longer, same)]
    assert [each.grammar for each in found] == [word, longer, same] and len({id(each) for each in found}) == 3
    assert found[1].forced[-1] == B and others.find(word) is None and others.compile(word) is not found[0]
    guides = [found[0].guide() for _ in range(2)]
    guides[0].advance(guides[0].forced[0])
    assert len(guides[1].forced) == len(guides[0].forced) + 1, "each answer has its own place"


def test_an_invalid_grammar_is_refused_again_without_a_second_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    grammars, wrong, asked = Grammars(made()), regex("a{2}"), list[bool]()

    def refuses(grammar: Grammar, vocab: object, *, forcing: bool) -> None:
        asked.append(forcing)
        raise ConfigError(f"no {grammar.source} with forcing {forcing}")

    monkeypatch.setattr(constraint, "is_cheap", lambda grammar: True)
    monkeypatch.setattr(constraint.grammar_compiler, "read", refuses)
    for forcing in (False, True):
        for _ in range(2):
            with pytest.raises(ConfigError) as error:
                grammars.compile(wrong, forcing=forcing)
            assert str(error.value) == f"no a{{2}} with forcing {forcing}"
            with pytest.raises(ConfigError, match=rf"^no a\{{2\}} with forcing {forcing}$"):
                grammars.find(wrong, forcing=forcing)
        if not forcing:
            assert grammars.find(wrong) is None, "with forcing it was not tried"
    assert asked == [False, True]


def test_a_grammar_whose_process_failed_is_refused_and_one_whose_process_was_lost_is_compiled_again() -> None:
    for forcing in (True, False):
        for is_lost in (True, False):
            grammars, grammar = Grammars(made()), regex("a+")
            ended: Any = SimpleNamespace(matchers=WeakSet(), dropped=[], failure="", is_lost=False, num_bytes=9)
            held = CompiledGrammar(grammar, 264, IsolatedMatcher(ended, 0, ["", False, False]), (), None, forcing)
            grammars._cache.put((grammar, forcing), held)
            assert grammars.find(grammar, forcing=forcing) is held and held.num_bytes == 4 * 2 + 9
            ended.failure, ended.is_lost = "it takes too long", is_lost
            if is_lost:
                assert grammars.find(grammar, forcing=forcing) is None
                found = grammars.compile(grammar, forcing=forcing)
                assert found is not held and grammars.find(grammar, forcing=forcing) is found
            else:
                for _ in range(2):
                    with pytest.raises(ConfigError, match=r"^it takes too long$"):
                        grammars.find(grammar, forcing=forcing)
            assert grammars.find(grammar, forcing=not forcing) is None, "the other one did not fail"


def test_a_grammar_that_is_not_cheap_is_compiled_in_a_process_with_all_that_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    grammars, grammar = Grammars(made()), choice(["ab"])

    def compiled(given: Grammar, **options: Any) -> Any:
        asked.append((given, options))
        return llguidance_grammar.matcher_of(given, grammars._vocabulary(), forcing=options["forcing"])

    grammars._processes = SimpleNamespace(compile=compiled)  # type: ignore[assignment]
    monkeypatch.setattr(constraint, "is_cheap", lambda each: each != grammar)
    grammars.compile(choice(["b"]), owner="me")
    assert asked == []
    free = grammars.compile(grammar, forcing=False, owner="me")
    forced = grammars.compile(grammar)
    assert asked == [
        (grammar, {"forcing": False, "owner": "me", "free": grammars._free}),
        (grammar, {"forcing": True, "owner": "", "free": grammars._free}),
    ]
    assert (free.forced, forced.forced) == ((), (AB,)) and grammars.compile(grammar, owner="you") is forced
    asked.clear()
    grown = grammars.compile(choice(["a"]))
    grown.growth.is_spoiled = True
    grammars.compile(choice(["a"]), owner="you")
    assert asked == [(choice(["a"]), {"forcing": True, "owner": "you", "free": grammars._free})], "it outgrew this one"
