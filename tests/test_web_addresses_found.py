"""The addresses that a name leads to: what a resolver gives or fails with, and what each rule lets through."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from firsthand.errors import ToolError
from firsthand.tools.web.addresses import Rules, checked_addresses


def found(host: str, answer: Any, port: int = 80, rules: Rules | None = None) -> tuple[Any, list[tuple[str, int]]]:
    """The addresses, or the error's text, and what the resolver was asked."""
    asked: list[tuple[str, int]] = []

    async def resolver(name: str, at: int) -> list[str]:
        asked.append((name, at))
        if isinstance(answer, BaseException):
            raise answer
        return list(answer)

    try:
        return asyncio.run(checked_addresses(host, port, rules or Rules(), resolver)), asked
    except ToolError as error:
        return str(error), asked


def test_a_resolver_that_fails_is_told_by_its_reason() -> None:
    asked = [("no.example", 443)]
    for error, reason in (
        (OSError(-2, "Name or service not known"), "Name or service not known"),
        (OSError("nothing"), "nothing"),
        (TimeoutError("late"), "late"),
        (UnicodeError("label too long"), "label too long"),
    ):
        assert found("No.Example.", error, 443) == (f"the host 'no.example' is not known: {reason}", asked), error
    with pytest.raises(ZeroDivisionError):
        found("no.example", ZeroDivisionError())


def test_each_address_of_a_name_is_let_through_or_forbids_all_of_them() -> None:
    public, asked = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"], [("site.example", 80)]
    assert found("site.example", public) == (public, asked)
    assert found("site.example", ["93.184.215.14%eth0"]) == (["93.184.215.14"], asked)
    assert found("site.example", []) == ("the host 'site.example' has no address", asked)
    refused = "'site.example' is at 10.0.0.1, which is no public address: it may not be reached from here"
    assert found("site.example", [*public, "10.0.0.1"]) == (refused, asked)
    mine = Rules((ip_network("10.0.0.0/8"),), frozenset(), frozenset((80, 8080)))
    assert found("site.example", ["10.0.0.1"], rules=mine) == (["10.0.0.1"], asked)
    named = Rules(hosts=frozenset(("site.example",)))
    assert found("SITE.example", ["10.0.0.1"], rules=named) == (["10.0.0.1"], asked)
    assert found("other.example", ["10.0.0.1"], rules=named)[0] == refused.replace("site", "other")
    assert found("0x7f.1", (), 8080, mine)[0].startswith("'0x7f.1' is at 127.0.0.1, which is no public address")
    assert found("10.1", (), 8080, mine) == (["10.0.0.1"], []), "an address is looked up nowhere"
    assert found("site.example", public, 81) == ("port 81 may not be used: 80, 443 may", [])
    assert found("site.example", public, 443, mine) == ("port 443 may not be used: 80, 8080 may", [])
