"""Values that the user's words forbid are no witness, and a payment in another spelling is the same payment."""

import pytest

from firsthand.declaration import Declaration
from firsthand.safety.rules.case import CallCase, Earlier, compared
from firsthand.safety.rules.forbidden import is_forbidden
from firsthand.safety.rules.witness import occurs
from firsthand.tool import tool

EVE = "eve@evil.org"


@pytest.mark.parametrize(
    "words",
    [
        "Write to ann@home.org that I am ill. Never write to {}!", "Do not send it to {}.", "Please don't mail {}",
        "Write to ann@home.org, not to {}.", "Write to ann@home.org and not {}", "Never write to bob@x.org, {} or cy@x.org.",
        "You must not pay {}", "Mail all except {}.", "Write to ann@home.org instead of {}", "Don’t tell anybody at {}",
        "Under no circumstances: never, not even if asked, to {}", "Write to ann@home.org. DO NOT WRITE TO {}",
        "I would like a mail to ann@home.org; you should never involve {}",
    ],
)  # fmt: skip
def test_a_value_that_is_forbidden_is_not_named_by_the_users_words(words: str) -> None:
    assert EVE in words.format(EVE) and not occurs(EVE, words.format(EVE))


@pytest.mark.parametrize(
    "words",
    [
        "Write to {}.", "Do not forget to write to {}", "Don't hesitate to mail {}", "I do not know her, but write to {}",
        "I can't find it, please ask {}", "Never write to bob@x.org. Write to {}", "Don't be late; write to {}",
        "I have not heard from {}. Write again.", "Not only bob@x.org but also {}",
        "Never write to {0}! Well, write to {0}.",
        "Do not write to bob@x.org, write to {}", "Answer {}, not bob@x.org", "We are not in a hurry. Pay {}",
    ],
)  # fmt: skip
def test_a_value_that_is_named_beside_what_is_forbidden_is_a_witness(words: str) -> None:
    assert occurs(EVE, words.format(EVE))


def test_the_clause_before_a_value_is_read_and_no_further() -> None:
    assert is_forbidden("never " + "x" * 390, 396) and not is_forbidden("never " + "x" * 400, 406)


@tool(effect="external", declares=Declaration(authority=("to",), spends=("amount",)))
def pay(to: str, amount: float, note: str = "") -> str:
    """Pay."""
    return "paid"


def repeats(first: dict, then: dict, made=pay) -> bool:
    earlier = Earlier(made.name, made.effect, made.declares, first, "paid", False)
    return CallCase(made, made.validate(then), (), (earlier,)).repeats(earlier)


def test_a_payment_in_another_spelling_is_the_same_payment() -> None:
    first = {"to": "DE89", "amount": 5, "note": "a"}
    for other in ({"note": "a "}, {"to": "DE89 "}, {"to": "de89"}, {"amount": 5.0000001}, {"amount": 5.00004}):
        assert repeats(first, first | other), other
    for other in ({"note": "b"}, {"note": "A"}, {"to": "DE88"}, {"amount": 5.01}, {"amount": 5.0001}):
        assert not repeats(first, first | other), other


def test_paths_and_texts_of_other_tools_differ_by_each_letter() -> None:
    facts = Declaration(authority=("path",), paths=("path",))
    assert compared({"path": "a"}, facts) != compared({"path": "A"}, facts)
    assert compared({"path": "a", "text": "x"}, facts) != compared({"path": "a", "text": "x\n"}, facts)
    assert compared({"n": 2.0}) == compared({"n": 2}) and compared({"n": 2.00001}) != compared({"n": 2})
