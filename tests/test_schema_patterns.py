"""A `pattern` of a JSON schema allows the texts that it matches, as JSON writes them, and no others."""

from __future__ import annotations

import json
import re
from functools import cache
from random import Random

import pytest

from firsthand.errors import ConfigError
from firsthand.grammar import json_schema
from firsthand.tokens.grammar_checks import accepts
from firsthand.tokens.llguidance_grammar import byte_vocabulary, lark_json, matcher_of
from firsthand.tokens.schema_patterns import followed_pattern, followed_schema

CHARACTERS = ('"', "\\", "\n", "\t", "/", "a", "b", "\x01", "\x1f", " ", "]", "[", "^", "-", "é", "\u2028", "😀")


@cache
def matcher(source: str):
    return matcher_of(json_schema(json.loads(source)), byte_vocabulary())


def allows(schema: dict, text: str) -> bool:
    """True if the masks of a local model let a text through."""
    reader, raw = matcher(json.dumps(schema)).deep_copy(), text.encode()
    return reader.try_consume_tokens(list(raw)) == len(raw) and reader.is_accepting()


@pytest.mark.parametrize(
    "pattern",
    [r'^[^"]*$', r"^[^\\]*$", r"""^[^'"]{1,20}$""", r'^[^"\\]*$', r'^(?:[^"]|"")*$', r'^[^"\n]+$', r'^[^<>"&]*$',
     r'^[\x00-!]*$', r"^[]^a-]*$", r'^[^]"]*$', r'^(?P<q[>[^"])*$', r'^\[[^"]\]$', r'^[^"]\\[^\\]$', r'^[^"\]]\]?$',
     r'^][^"]]$', r"^[^a]$", r"^.*$", r"^[\s\S]$"],
)  # fmt: skip
def test_a_pattern_allows_the_characters_that_it_matches(pattern: str) -> None:
    schema = {"type": "string", "pattern": pattern}
    matches = re.compile(pattern.replace("q[", "q").removesuffix("$") + r"\Z", re.ASCII)
    for value in [*CHARACTERS, "a", 'x" onload="y', '""', "[a]", '["]', "]a]", ']"]', "a\\b", "a\\\\", "a]", ""]:
        text = json.dumps(value, ensure_ascii=False)
        assert allows(schema, text) == bool(matches.search(value)), (value, pattern)


def test_random_classes_allow_the_characters_that_they_have() -> None:
    random = Random(1)
    parts = ('"', r"\\", r"\n", "/", "a", r"\x00-\x1f", r"\x00-!", r"\x00", r"\s", r"\W", r"\]", r"\[", "é", "#-~")
    for _ in range(150):
        inside = "".join(random.sample(parts, random.randint(1, 4)))
        pattern = f"^a?[{random.choice(('', '^'))}{inside}]+$"
        matches = re.compile(pattern.removesuffix("$") + r"\Z", re.ASCII)
        for value in [each for each in CHARACTERS if each != "\u2028"]:  # a blank for Python
            text = json.dumps(value, ensure_ascii=False)
            try:
                assert allows({"type": "string", "pattern": pattern}, text) == bool(matches.search(value)), (
                    pattern,
                    value,
                )
            except ConfigError as error:
                assert "Regex is empty" in str(error), pattern


@pytest.mark.parametrize("category", [r"\P{P}", r"\p{Cc}", r"[^\p{P}]", r"\PP", r"[\pC]"])
def test_a_category_of_characters_allows_no_quotes_that_it_does_not_have(category: str) -> None:
    schema = {"type": "string", "pattern": f"^{category}$"}
    assert not allows(schema, r'"\""') and not allows(schema, r'"\\"')
    assert allows(schema, r'"\n"') and allows(schema, '"a"') == ("P" in category)


@pytest.mark.parametrize("nul", [r"\x00", r"\u0000", r"\U00000000", r"\x{0}", r"\u{0000}", "\0"])
def test_the_character_zero_brings_no_other_back(nul: str) -> None:
    schema = {"type": "string", "pattern": f'^(?:[^"]|{nul})*$'}
    assert allows(schema, '"a"') and not allows(schema, r'"\""') and not allows(schema, r'"\u0000"')
    assert followed_pattern(r"\x01\u0001[a]\d") == r"\x01\u0001[[a]--\x00]\d"


def test_names_of_properties_tools_and_checks_follow_patterns_too() -> None:
    names = {"type": "object", "patternProperties": {'^[^"]*$': {"type": "integer"}}, "additionalProperties": False}
    assert allows(names, '{"a": 1}') and not allows(names, r'{"a\"": 1}')
    quoted = json_schema({"properties": {"pattern": {"type": "string", "pattern": '^[^"]*$'}}})
    assert accepts(quoted, '{"pattern": "a"}') and not accepts(quoted, r'{"pattern": "a\"b"}')
    assert r'"[[^\"]--\\x00]"' in lark_json({"type": "string", "pattern": '[^"]'})


def test_only_patterns_are_written_anew() -> None:
    one = {"pattern": "[a]"}
    values = {"const": one, "enum": [one], "default": one, "examples": [one], "example": one}
    schema = values | {
        "properties": {"pattern": {"allOf": [{"pattern": "[a]"}]}, "const": {"pattern": "[a]"}},
        "$defs": {"[a]": {}},
        "definitions": {"const": one},
        "dependentSchemas": {"enum": one},
    }
    made = json.loads(followed_schema(json.dumps(schema)))
    assert {key: made[key] for key in values} == values and made["$defs"] == {"[a]": {}}
    for keyword, name in (("properties", "const"), ("definitions", "const"), ("dependentSchemas", "enum")):
        assert made[keyword][name] == {"pattern": r"[[a]--\x00]"}
    assert made["properties"]["pattern"] == {"allOf": [{"pattern": r"[[a]--\x00]"}]}
    assert followed_schema('{"type":  "string"}') == '{"type":  "string"}'
    for odd in ('{"items": false, "pattern": 3}', '{"properties": 3, "patternProperties": ["[a]"]}'):
        assert followed_schema(odd) == odd


def test_a_class_within_a_class_is_part_of_it() -> None:
    assert followed_pattern('[[^"]--[b]]x[c]') == r'[[[^"]--[b]]--\x00]x[[c]--\x00]'
    schema = {"type": "string", "pattern": '^[[^"]--[b]]$'}
    assert allows(schema, '"a"') and not allows(schema, r'"\""') and not allows(schema, '"b"')
