"""GBNF is followed as llama.cpp does: by characters, with all escapes, under any names."""

from __future__ import annotations

import re
from itertools import product
from random import Random

import pytest

from firsthand.errors import ConfigError
from firsthand.grammar import gbnf
from firsthand.tokens.gbnf import MAX_DEPTH, lark_of_gbnf
from firsthand.tokens.grammar_checks import accepts


@pytest.mark.parametrize(
    ("grammar", "fits", "wrong"),
    [
        ('root ::= a "x"\na ::= [a-z]+', ("abx", "xx"), ("ab", "x")),
        ('root ::= "a" "bc" | "ab" "d"', ("abc", "abd"), ("ab", "abcd")),
        ('root ::= ("a" | "aa") "ab"', ("aab", "aaab"), ("ab",)),
        (r'root ::= "\u00e9\x41\U0001F600"', ("éA😀",), ("eA😀",)),
        (r"root ::= [\u00e0-\u00ff]", ("é",), ("\u0100", "\u00df")),
        (r'root ::= "\"\\\n\t\r" [\[\]\x2d]', ('"\\\n\t\r]', '"\\\n\t\r-'), ('"\\\n\t\rx',)),
        ('root ::= start\nstart ::= "s"', ("s",), ("start",)),
        ('root ::= Ab ab a-b a_b\nAb ::= "1"\nab ::= "2"\na-b ::= "3"\na_b ::= "4"', ("1234",), ("1122", "2134")),
        ('root ::= . "x"', ("\nx", "😀x"), ("x",)),
        ("root ::= [^x]", ("\n", "y"), ("x", "")),
        ("root ::= [a-]+ [--a]", ("a-5", "--"), ("b5", "a!")),
        ("root ::= [a&&b~^/]+", ("a&b~^/",), ("c",)),
        ('root ::= "a" |', ("a", ""), ("b",)),
        ('root ::= ( | "b")  # an "end"\r\n', ("", "b"), ("bb",)),
        ('root::=a\na::="1"|\n"2"', ("1", "2"), ("12",)),
        ('root ::= (\n"a"\n|\n"b"\n)*\n', ("abba", ""), ("c",)),
        ('root ::= "a"{2} "b"{1,} "c"{0,2}', ("aab", "aabbcc"), ("ab", "aabccc", "aaab")),
        ('root ::= x\nx ::= "(" x ")" | ""', ("(())", ""), ("(()",)),
        ('root ::= "a/b" [/]', ("a/b/",), ("a/b",)),
        ('root ::= "\x7f\u2028"', ("\x7f\u2028",), ("\x7f",)),
    ],
)
def test_a_text_fits_in_any_way_that_the_rules_allow(
    grammar: str, fits: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    assert [accepts(gbnf(grammar), text) for text in fits] == [True] * len(fits)
    assert [accepts(gbnf(grammar), text) for text in wrong] == [False] * len(wrong)


def expression(random: Random, depth: int, rules: list[tuple[str, str]]) -> tuple[str, str]:
    """A random expression as GBNF and as a regular expression; some become rules."""
    kind = random.choice(("text", "text", "class", "sequence", "either", "times") if depth else ("text", "class"))
    if kind in ("text", "class"):
        text = random.choice(("a", "b", "ab", "ba", "aab")) if kind == "text" else random.choice(("[ab]", "[^a]"))
        made = (f'"{text}"', text) if kind == "text" else (text, text)
    elif kind == "times":
        inner, times = expression(random, depth - 1, rules), random.choice(("*", "+", "?", "{1,2}", "{2}"))
        made = f"({inner[0]}){times}", f"(?:{inner[1]}){times}"
    else:
        parts = [expression(random, depth - 1, rules) for _ in range(2)]
        between = " " if kind == "sequence" else " | "
        made = f"({between.join(p for p, _ in parts)})", f"(?:{between.strip().join(p for _, p in parts)})"
    if random.random() < 0.3:
        rules.append((f"Rule-{len(rules)}", made[0]))
        return rules[-1][0], made[1]
    return made


def test_random_grammars_accept_what_the_same_regular_expressions_match() -> None:
    random, texts = Random(5), ["".join(each) for n in range(5) for each in product("ab", repeat=n)]
    for _ in range(40):
        rules: list[tuple[str, str]] = []
        written, regex = expression(random, 3, rules)
        source = gbnf("\n".join([f"root ::= {written}", *(f"{name} ::= {body}" for name, body in rules)]))
        found = {text for text in texts if accepts(source, text)}
        assert found == {text for text in texts if re.fullmatch(regex, text)}, source.source


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        ('a ::= "b"', "it has no rule `root`"),
        ('root ::= "a"\nroot ::= "b"', "line 2: the rule 'root' is there twice"),
        ('root ::= "a"\n\n  | "b"', r"line 3: '\|' is not expected there"),
        ("root ::= nothing", "line 1: there is no rule 'nothing'"),
        ('root ::= "a', "line 1: '\"a' is not understood"),
        ("root ::= [a", r"line 1: '\[a' is not understood"),
        (r'root ::= "\d"', "is no escape"),
        (r'root ::= "\ud83d"', "is no character"),
        (r'root ::= "\ud800"', "is no character"),
        (r'root ::= "\U00110000"', "is no character"),
        ("root ::= [z-a]", "goes down"),
        ("root ::= [^]", "allows no character"),
        ("root ::= *", r"'\*' is not expected there"),
        ('root ::= "a"**', r"'\*' is not expected there"),
        ('root ::= "a"{3,2}', "is no number of times"),
        ('root ::= "a"{9999999999}', "is no number of times"),
        ('root ::= "a" )', r"'\)' is not expected there"),
        ('root ::= ("a"', "a bracket is not closed"),
        ('root ::= "a" b ::= "c"', "'b' is not expected there"),
        ('root ::= ::= "a"', "'::=' is not expected there"),
        ('"a" root ::= "b"', "is not expected there"),
        ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, f"more than {MAX_DEPTH} brackets"),
    ],
)
def test_what_is_no_gbnf_is_refused_with_its_line(grammar: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"the gbnf grammar cannot be used: .*{said}"):
        lark_of_gbnf(grammar)


def test_a_large_grammar_is_translated_in_time_that_grows_with_it() -> None:
    rules = "\n".join(f'r{n} ::= "text {n}" [a-z]* | ({n * "("}{n * ")"})' for n in range(100))
    assert lark_of_gbnf(f"root ::= r0\n{rules}").count("\n") == 103
    lark_of_gbnf('root ::= "' + "a" * 200_000 + '" # ' + "#" * 200_000)
    with pytest.raises(ConfigError, match="is not understood"):
        lark_of_gbnf('root ::= "' + "\\" * 200_001)
