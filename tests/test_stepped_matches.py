"""A text is searched in steps with the matches of a whole search."""

from __future__ import annotations

import random
import re

import pytest

from firsthand.ingest import login_texts, secret_statements, secret_texts, stepped_matches

PARTS = (
    "the river runs ", "password=a1b2c3d4 ", 'api_key: "0123456789" ', "cookie: a=b; c=d\n", "--token abc12345 ", "\n",
    "'password', 'hunter22x' ", "<secret>abcdefgh</secret>", "curl -u ada:lovelace1 ", "docker login -p hunter22 ",
    "create user ada identified by 'hunter22';", "ada:hunter22@tcp(host)", 'password="', "x" * 300,
)  # fmt: skip


def test_steps_find_what_a_whole_search_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("STEP", 3000), ("REACH", 6000), ("_NEAR", 2000)):
        monkeypatch.setattr(stepped_matches, name, value)
    drawn = random.Random(5)
    text = "".join(drawn.choices(PARTS, k=700)) + "\npassword='" + "y" * 30_000 + "' \npassword=a1b2c3d4"
    for module in (secret_texts, login_texts, secret_statements):
        for expression, _ in module._RULES:
            expected = [match.regs for match in expression.finditer(text)]
            assert [match.regs for match in stepped_matches.stepped_matches(expression, text)] == expected


def test_a_match_at_the_end_of_a_step_is_whole_and_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("STEP", 10), ("REACH", 8), ("_NEAR", 2)):
        monkeypatch.setattr(stepped_matches, name, value)
    for expression in (re.compile("ab+"), re.compile("a(?=(b+))"), re.compile("ab{3}"), re.compile("(?<=b)a")):
        for before in range(45):
            for length in (1, 2, 3, 6, 7, 8, 9, 30):
                text = "." * before + "a" + "b" * length + "a" + "." * 30
                expected = [match.regs for match in expression.finditer(text)]
                assert [match.regs for match in stepped_matches.stepped_matches(expression, text)] == expected, text
