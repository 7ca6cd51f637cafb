"""Tests that a short private result is known where it is sent on whole, and that other short words are not."""

import asyncio
from typing import Any

import pytest

from firsthand import Agent, Task, catalog
from firsthand.context import Context
from firsthand.declaration import Declaration
from firsthand.loop.private_texts import copies, runs
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tool import tool


@tool(effect="external", declares=Declaration(authority=("to",), recipients=("to",)))
def send_mail(to: str, body: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


@tool(effect="read", declares=Declaration(trusts=(".",)))
def address() -> str:
    """An address."""
    return "eve@home.org"


def sends(result: str, body: str, question: str = "Write to the address.") -> bool:
    """True if the mail was sent after a private tool gave the result."""

    @tool(effect="read", declares=Declaration(readers="user"))
    def secret() -> str:
        """A secret."""
        return result

    async def pattern(task: Task, ctx: Context) -> str:
        await ctx.call(ToolCall("1", "address", {}))
        await ctx.call(ToolCall("2", "secret", {}))
        return (await ctx.call(ToolCall("3", "send_mail", {"to": "eve@home.org", "body": body}))).content

    tools: tuple[Any, ...] = (send_mail, address, secret)
    agent = Agent("c", Scripted([]), pattern, tools=tools, guard=catalog.guards(["policy"]))
    return str(asyncio.run(rollout(agent, Task("1", question))).answer).startswith("sent")


@pytest.mark.parametrize(
    ("result", "body"),
    [
        ("swordfish", "It is swordfish."),
        ("4711", "PIN: 4711"),
        ("Correct horse", "correct, HORSE"),
        ("open sesame now", "say open sesame now"),
        ('{"text": "swordfish"}', "swordfish"),
        ('{"a": [{"pin": 4711}]}', "4711"),
        ("开门密码", "请用开门密码"),
        ("1234.50", "it is 1234.50"),
        ('{"balance": 1234.50}', "it is 1234.50"),
        ("รหัสลับคือ", "ส่งรหัสลับคือให้เขา"),
    ],
)
def test_a_short_private_result_is_not_sent_whole(result: str, body: str) -> None:
    assert not sends(result, body)
    assert sends(result, body, f"Write {body} to the address."), "the user said it"


@pytest.mark.parametrize(
    ("result", "body"),
    [
        ("ok", "it is ok"),
        ("true", "that is true"),
        ("Anna", "Annabel came"),
        ("4711", "47112"),
        ("open sesame now", "open sesame"),
        ('{"a": "Lunch", "b": "Friday"}', "Lunch on Friday, or Friday"),
        ("one two three four", "one two three"),
    ],
)
def test_other_words_are_sent(result: str, body: str) -> None:
    assert sends(result, body)


@pytest.mark.parametrize(
    ("result", "text", "said", "copied"),
    [
        ('{"pin": "4711"}', "the pin is 4711", "", True),
        ('{"pin": "471"}', "the pin is 471", "", False),
        ('{"pin": "471"}', "PIN 471", "", True),
        ('["swordfish"]', "Swordfish!", "", True),
        ("Ann@Home.org", "to ann@home.org", "", True),
        ("swordfish", "it is swordfish", "swordfish?", False),
        ("7", "7 apples", "", True),
        ("A+", "this is a test", "", False),
        ("A+", "you got A+, fine", "", True),
        ("$5", "in 5 days", "", False),
        ("$5", "US$5 each", "", True),
        ("$5", "for $50", "", False),
        ("No", "no, not yet", "", False),
        ("7", "17 apples", "", False),
        ("true", "that is true", "", False),
        ("one two three", "one, two and three", "", False),
        ("口座", "私の口座です", "", True),
        ("รหัส", "คือรหัสลับ", "", True),
        ("รหัสลับคือ", "ส่งรหัสลับคือให้เขา", "", True),
        ("รหัสลับคือ", "ส่งรหัสลับคือให้เขา", "รหัสลับคือ", False),
        ("PIN รหัส", "the pin รหัส.", "", True),
        ("🦊🐻", "a 🦊🐻 here", "", True),
        ("🦊🐻", "a 🐻🦊 here", "", False),
        ('""', "anything", "", False),
        ("  ", "a  b", "", False),
    ],
)
def test_peers_and_memories_know_the_same_copies_of_a_short_text(
    result: str, text: str, said: str, copied: bool
) -> None:
    assert (copies(text, [result], [said] if said else []) is not None) is copied


@pytest.mark.parametrize("sent", ["余额12元，账户名王小明", "余额 12 元，账户名王小明", "余额12 元 账户名王小明"])
def test_blanks_beside_numbers_between_chinese_characters_make_no_difference(sent: str) -> None:
    assert copies(sent, ["余额 12 元，账户名王小明在北京"]) is not None
    assert copies(sent, ["余额12元，账户名王小明在北京"]) is not None
    assert copies(sent, ["余额 13 元，账户名李小明在北京"]) is None


def test_a_code_in_groups_is_known_without_what_stands_between_them() -> None:
    mail = "Please pay to DE89 3704 0044 0532 0130 00, thanks."
    for text in (
        "DE89370400440532013000",
        "to de89-3704-0044-0532-0130-00.",
        "DE89 3704 0044 0532 013000",
        "DE8937040044 0532013000",
    ):
        assert copies(text, [mail]) == mail, text
    card = "card 4111111111111111 of Ann"
    for text in (
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111.1111.1111.1111",
        "4111\u00a01111\u00a01111\u00a01111",
    ):
        assert copies(text, [card]) == card, text
    assert copies("DE89370400440532013000", [mail], ["my IBAN is DE89 3704 0044 0532 0130 00"]) is None
    for text in ("DE89370400440532013001", "89370400440", "DE89 3704, 0044 is a number", "370400440532"):
        found = copies(text, ["a 37 04 00 44 05 b", "DE89 3704  0044 0532"] if text.startswith("3704") else [mail])
        assert found is None, text
    assert copies("371200550612", ["rooms 37, 12 00 55: 06 12"]) is None, "other signs end a code"
    assert copies("123456789012", ["1234 5678 9012"]) and copies("12345678901", ["1234 5678 901"]) is None, (
        "of 12 characters"
    )
    assert copies("123456789012", ["1234/5678/9012"]) is None, "a date or a path has no groups"
    assert copies("1234ab567890", ["1234 ab 567890"]) is None, "nor have words"
    long = "1234 " * 9
    assert copies("1234" * 8, [long]) and copies("1234" * 9, [long]) is None, "of at most 34"


def test_a_long_table_of_numbers_is_read_in_linear_time() -> None:
    assert (
        len(runs("1 " * 40_000)) < 100 and len(runs(" ".join(map(str, range(50_000))))) < 1_000_000
    )  # .3 s; each with all would take minutes
