"""A call as policies see it, single policies, and the fields of labelled values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from firsthand.declaration import Declaration
from firsthand.errors import UnknownName
from firsthand.guard import AttemptView
from firsthand.message import Json, assistant, system, user
from firsthand.safety.plans.labelled import Labelled, carried, carrying, flat
from firsthand.safety.rules.case import (
    CallCase,
    Earlier,
    PolicyBounds,
    _earlier,
    _parted,
    earlier_calls,
    told_to,
    unmarked,
    uses,
)
from firsthand.safety.rules.labels import USER, Label
from firsthand.safety.rules.policies import POLICIES, Ruling, policies_named
from firsthand.safety.rules.witness import Witness, WitnessSource
from firsthand.task import Task
from firsthand.tool import Tool, marked
from firsthand.tool_arguments import as_json_data
from firsthand.trace import Call
from paying_tool import CHAT, PAY, PAYS, made

DEFAULTS = {"folder": "notes", "fee": 7}
"""What the tool takes where a call leaves them out."""


def case(arguments: Json, tool: Tool = PAY, words: Sequence[str] = ("Pay Bob",), **more: Any) -> CallCase:
    return CallCase(tool, arguments, tuple(words), **more)


def read(
    name: str, result: str, declares: Declaration | None = CHAT, failed: bool = False, **arguments: Any
) -> Earlier:
    return Earlier(name, "external", declares, arguments, result, failed)


def test_sources_are_the_users_words_each_trusted_field_of_a_result_that_did_not_fail_and_defaults_of_powers() -> None:
    before = (
        read("chat", '{"id": "7", "by": ["ann", "bob"], "text": "eve"}'), read("chat", '{"id": "8"}', failed=True),
        read("bare", '{"id": "9"}', None), read("plain", '{"id": "9"}', Declaration()), read("chat", '{"id": 5}'),
    )  # fmt: skip
    assert case({}, words=("Pay Bob", "Now"), earlier=before).sources == (
        WitnessSource("user", ("Pay Bob", "Now"), whole=False), WitnessSource("chat: id", ("7",)),
        WitnessSource("chat: by", ("ann", "bob")), WitnessSource("chat: id", ("5",)), WitnessSource("default", ("notes",)),
    )  # fmt: skip
    empty = made(folder={"default": ""}, to={"default": None})
    assert case({}, empty).sources[-1] == WitnessSource("default", ())
    zero = made(folder={"default": 0}, to={"default": False})
    assert case({}, zero).sources[-1] == WitnessSource("default", ("0", "False"))
    assert [each.source for each in case({"to": False, "folder": 0}, zero, words=()).powers] == ["default"] * 2


def test_powers_are_found_by_witnesses_or_by_the_labels_that_a_plan_carried() -> None:
    given = {"to": {"id": "Bob", "as": "Eve"}, "folder": "notes", "note": "x"}
    assert case(given).powers == (
        Witness("to.id", "Bob", "user"), Witness("folder", "notes", "default"), Witness("to.id", "id", ""),
        Witness("to.id", "Bob", "user"), Witness("to.as", "as", ""), Witness("to.as", "Eve", ""),
    )  # fmt: skip
    web = Label("untrusted", None, frozenset({"web"}))
    carried = case(given, labels={"to": web, "folder": USER.join(Label(origins=frozenset({"box"})))})
    assert [each.source for each in carried.powers] == ["", "box, user", "", "", "", ""]
    unnamed = case(given, labels={"to": Label()})
    assert [each.source for each in unnamed.powers] == ["user", "default", *["user"] * 4]
    odd = Witness("folder", "x", "found", "it looks odd")
    assert unnamed._carried(odd) == Witness("folder", "x", "default", "")
    assert carried._carried(odd._replace(argument="to.id")) == Witness("to.id", "x", "", "it looks odd")
    assert [each.value for each in case(given).recipients] == ["Bob", "id", "Bob", "as", "Eve"]
    longer = made(Declaration(("total",), recipients=("to",)))
    assert [each.argument for each in case({"total": "1", "to": "Bob"}, longer).recipients] == ["to"]


def test_what_a_call_tells_of_a_private_result_is_what_others_may_not_read() -> None:
    secret = read("mail", "meet at the old mill 4711a")
    public = read("web", "meet at the old mill 4711a", Declaration())
    note = {"to": "eve", "note": "Meet at the OLD mill"}
    assert case(note, earlier=(public, secret)).tells_of(["eve"]) == "mail"
    assert case(note, earlier=(public,)).tells_of(["eve"]) == ""
    assert case({"note": "meet at the mill"}, earlier=(secret,)).tells_of(["eve"]) == ""
    assert case({"fee": "4711A"}, earlier=(secret,)).tells_of(["eve"]) == "mail"
    assert case({"to": "4711a"}, earlier=(secret,)).tells_of(["eve"]) == ""
    assert case(note, words=("Tell eve: meet at the old mill",), earlier=(secret,)).tells_of(["eve"]) == ""
    undeclared = read("odd", "4711a", None)
    assert case({"fee": "4711a"}, earlier=(undeclared, secret)).tells_of([]) == "odd"
    ann = Label("trusted", frozenset({"ann", "bob"}), frozenset({"mail", "box"}))
    carried = case(note, labels={"note": ann, "to": Label("trusted", frozenset())})
    assert [carried.tells_of(each) for each in (["ann", "bob"], ["bob", "eve"], [])] == ["", "box, mail", ""]
    assert case(note, labels={"note": Label("trusted", frozenset())}).tells_of(["a"]) == "a private value"


def test_an_earlier_call_is_repeated_by_the_same_tool_with_equal_checked_arguments() -> None:
    def again(name: str, **given: Any) -> bool:
        return case({"fee": 1, "note": "none"}).repeats(Earlier(name, "external", None, given, "", True))

    assert again("pay", fee=1) and again("pay", note="none", fee=1)
    assert not (again("paid", fee=1) or again("pay", fee=2) or again("pay", fee=1, wrong=1) or again("pay"))


def test_what_was_read_loses_its_marks_and_takes_effect_and_facts_of_the_tool_that_there_is() -> None:
    text = '<untrusted from="web">\nhi\n</untrusted>'
    assert [unmarked(text, origin) for origin in ("web", "wéb", None)] == ["hi", text, text]
    detail = {"name": "pay", "result": text, "origin": "web", "arguments": {"a": 1}, "is_error": 1}
    assert _earlier(detail, {"pay": PAY}) == Earlier("pay", "external", PAYS, {"a": 1}, "hi", True, DEFAULTS)
    unknown = {"name": "x", "result": 5, "arguments": {}}
    assert _earlier(unknown, {"pay": PAY}) == Earlier("x", "read", None, {}, "5", False)
    assert told_to(case({"to": ["Ann", "BOB"], "folder": "x"})) == told_to(
        read("x", "", PAYS, to=["bob", "ann"])
    ) == {"ann", "bob"}  # fmt: skip
    assert told_to(read("x", "", None, to="a")) == frozenset()


def test_uses_count_what_did_not_fail_and_the_call_itself() -> None:
    before = (
        read("pay", "", PAYS, fee=2, to="Ann"), read("pay", "", PAYS, failed=True, fee=50, to="Eve"),
        Earlier("look", "read", CHAT, {}, "", False), Earlier("memory", "reading", None, {}, "", False),
        Earlier("save", "write", PAYS, {"fee": 1, "to": "ann"}, "", False),
    )  # fmt: skip
    bounds = PolicyBounds(None, 9, 8, 7.5, 6)
    assert uses(case({"fee": 4, "to": ["ANN", "bob"]}, earlier=before, bounds=bounds)) == [
        ("3 calls of pay", 2, 3), ("9 calls", 5, 9), ("8 changes", 3, 8), ("6 recipients", 2, 6),
        ("the 7.5 that may be spent", 7.0, 7.5),
    ]  # fmt: skip
    assert uses(case({"fee": 4}, earlier=before)) == [("3 calls of pay", 2, 3)]
    reads = made(Declaration(), "read", "look")
    assert uses(case({}, reads, earlier=before, bounds=PolicyBounds(None, 0, 0, 0.0, 0))) == [
        ("0 calls", 5, 0), ("0 recipients", 1, 0), ("the 0 that may be spent", 3.0, 0.0),
    ]  # fmt: skip


def test_single_policies_ask_and_deny_by_their_own_fact() -> None:
    def ruled(name: str, *given: Any, **more: Any) -> tuple[str, str] | None:
        found = POLICIES[name](case(*given, **more))
        return None if found is None else (found.action, found.reason)

    plan = [PolicyBounds(frozenset(each)) for each in (("b", "a"), (), ("pay",))]
    outside = [ruled("plan_lock", {}, bounds=each) for each in (*plan, PolicyBounds())]
    assert outside == [
        ("ask", "pay is not in the plan (a, b)"),
        ("ask", "pay is not in the plan (no tool)"),
        None,
        None,
    ]
    assert ruled("declared", {}, made(None)) == ("deny", "pay does not declare its authority, so it is not called")
    assert ruled("declared", {}) is None
    named = {"to": {"id": "Bob"}, "folder": ["a", "b", "c", "d", "e" * 90]}
    alone = "folder = 'a', folder = 'b', folder = 'c', folder = 'd'"
    said = f"{alone} is neither in the user's words nor in a trusted field"
    assert ruled("authority_from_trusted", named) == ("ask", said)
    assert ruled("authority_from_trusted", {"folder": ["zz", "b\u200bob"]}) == (
        "deny", "folder is 'b\\u200bob': it has characters that are not seen",
    )  # fmt: skip
    assert ruled("authority_from_trusted", {"folder": "Bob"}) is None
    secret = (read("mail", "4711a"),)
    others = {"to": ["p", "q", "Bob", "r", "s", "t"], "fee": "4711a"}
    assert ruled("readers_cover_recipients", others, earlier=secret) == (
        "ask", "p, q, r, s would read what mail gave the user alone",
    )  # fmt: skip
    assert ruled("readers_cover_recipients", {**others, "to": ["Bob"]}, earlier=secret) is None
    assert ruled("readers_cover_recipients", others) is None
    session = ("ask", "the session has read what anybody could have written")
    clean = (read("clock", "", Declaration(clean=True)),)
    tells = made(Declaration(recipients=("to",)), "read")
    assert (
        ruled("untrusted_session", {}, tells, earlier=secret)
        == ruled("untrusted_session", {}, earlier=secret)
        == session
    )
    assert ruled("untrusted_session", {}, made(Declaration(), "read"), earlier=secret) is None
    assert ruled("untrusted_session", {}, earlier=clean) is ruled("untrusted_session", {}, tells) is None
    grants = made(Declaration(grants=True))
    permission = ("ask", "pay gives a permission that outlives the task")
    new = [ruled("no_new_permissions", {}, grants, bounds=each) for each in (*plan, PolicyBounds())]
    assert new == [permission, permission, None, permission] and ruled("no_new_permissions", {}) is None
    beyond = ("deny", "pay would go beyond 2 calls")
    before = (read("x", ""), read("y", "", failed=True))
    most = [ruled("budget", {"fee": 1}, earlier=before[:n], bounds=PolicyBounds(calls=2)) for n in (1, 2)]
    assert most == [None, beyond]
    assert ruled("budget", {"fee": "no"}, bounds=PolicyBounds(spend=9)) == (
        "deny", "pay would go beyond the 9 that may be spent",
    )  # fmt: skip
    assert ruled("budget", {"fee": 9}, bounds=PolicyBounds(spend=9)) is None


def test_effects_are_had_once_and_irreversible_ones_are_shown_first() -> None:
    def once(effect: Any, failed: bool = False) -> Ruling | None:
        tool = made(effect=effect)
        return POLICIES["once_only"](
            case({"fee": 1, "note": "none"}, tool, earlier=(read("pay", "", PAYS, failed, fee=1),))
        )

    again = Ruling("deny", reason="pay was called with these arguments before")
    assert [once(each) for each in ("external", "irreversible", "write", "read")] == [again, again, None, None]
    assert once("external", failed=True) is None
    rehearsed = Declaration(dry_run=lambda given: "")
    first = [
        POLICIES["dry_run_first"](case({}, made(declares, effect)))
        for declares, effect in ((rehearsed, "irreversible"), (PAYS, "irreversible"), (rehearsed, "external"))
    ]
    assert first == [
        Ruling("ask", reason="pay cannot be undone"),
        Ruling("deny", reason="pay cannot be undone, and it declares no dry run to show"), None,
    ]  # fmt: skip
    paths = made(Declaration(paths=("folder",)))
    out = ["/etc", "~x", "a/../b", "..", "a\\..\\b", "c:x", "%2e%2e/x", "%252e./x", "a\0", "．．/x"]
    inside = ["a/b", "a..b", "...", "a/~x", "", "a b:c", "-c"]
    ruled = {text: POLICIES["path_inside"](case({"folder": ["ok", text]}, paths)) for text in (*out, *inside)}
    assert [text for text, found in ruled.items() if found is not None] == out
    assert ruled["~x"] == Ruling("deny", reason="'~x' may lead out of the folder")


def test_a_field_or_an_item_takes_the_paths_that_begin_with_it_and_is_trusted_at_their_end() -> None:
    box = Label("untrusted", frozenset({"ann"}), frozenset({"box"}))
    whole = Labelled({"who": {"name": "ann"}, "id": 7, "x": 1}, box, ("who.name", "*.id", "id", "."), "box")
    assert whole.at("who") == Labelled({"name": "ann"}, box, ("name", "id"), "box")
    trusted = Label("trusted", frozenset({"ann"}), frozenset({"box: id"}))
    assert whole.at("id") == Labelled(7, trusted, ("id", "."), "box")
    assert whole.at("x") == Labelled(1, box, ("id",), "box")
    rows = Labelled([whole, 5, ["a"]], box, (".",), "box")
    item = Label("trusted", frozenset({"ann"}), frozenset({"box"}))
    assert rows.items() == [whole.under(box), Labelled(5, item, (".",), "box"), Labelled(["a"], box, (".",), "box")]
    assert whole.under(Label()) is whole and (whole.under(USER).label, whole.under(USER).floor) == (
        box.join(USER),
        USER,
    )
    for call in (lambda: rows.at("x"), lambda: whole.items()):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(KeyError):
        whole.at("no")


def test_labels_are_carried_within_their_block_alone_and_plain_values_are_flat() -> None:
    outer, inner = {"a": USER}, {"b": Label()}
    with carrying(outer):
        with pytest.raises(KeyError), carrying(inner):
            assert carried() is inner
            raise KeyError
        assert carried() is outer
    assert carried() is None
    box, web = Label("untrusted", None, frozenset({"box"})), Label("trusted", frozenset(), frozenset({"web"}))
    nested = Labelled({"a": [Labelled(1, web), 2], "b": Labelled(Labelled("x", box), USER)})
    assert flat(nested) == ({"a": [1, 2], "b": "x"}, box.join(web).join(USER)) and flat([]) == ([], Label())


def test_labels_that_a_plan_carried_count_even_where_it_carried_none() -> None:
    before = (read("chat", "one two three four", CHAT),)
    given = {"to": "Eve", "folder": "x", "note": "one two three four"}
    failed = (read("bare", "four three two one", None), read("chat", "one two three four", CHAT, failed=True))
    assert case(given, earlier=before).tells_of(["Eve"]) == case(given, earlier=failed).tells_of(["Eve"]) == "chat"
    carried = case(given, earlier=before, labels={})
    assert carried.tells_of(["Eve"]) == "" and {each.source for each in carried.powers} == {"default"}
    private = Label("trusted", frozenset({"ann"}))
    for labels, others, source in (
        ({"note": private}, ["Eve"], "a private value"), ({"note": private}, ["ann"], ""), ({"to": private}, ["Eve"], ""),
        ({"note": Label("trusted", frozenset(), frozenset({"b", "a"})), "fee": private}, ["ann"], "a, b"),
    ):  # fmt: skip
        assert case(given, earlier=before, labels=labels).tells_of(others) == source


def test_each_declared_recipient_and_what_lies_within_it_is_one_who_reads() -> None:
    two = made(Declaration(("folder",), recipients=("cc", "to.id")), to={}, folder={"default": 7}, cc={})
    given = {"to": {"id": "Bob", "as": "x"}, "folder": "f", "cc": ["Al", "Eve"], "ccs": "no"}
    found = case(given, two)
    assert [(each.argument, each.value) for each in found.recipients] == [("cc", "Al"), ("cc", "Eve"), ("to.id", "Bob")]
    assert told_to(found) == {"al", "eve", "bob"} and told_to(read("x", "", None)) == frozenset()
    assert found.sources[-1] == WitnessSource("default", ("7",))


def test_nobody_is_asked_about_readers_whom_the_user_or_a_default_names() -> None:
    known = read("chat", '{"id": "Kim", "text": "one two three four"}')
    mail = made(Declaration(recipients=("to",)), to={"default": "Ann"}, note={})
    for to, said in (
        ("Ann", ""), ("Bob", ""), ("Kim", "Kim would read what chat gave the user alone"),
        (["Bob", "Eve", "Kim", "Ann", "C", "D", "E"], "Eve, Kim, C, D would read what chat gave the user alone"),
    ):  # fmt: skip
        found = POLICIES["readers_cover_recipients"](
            case({"to": to, "note": "One two three FOUR"}, mail, earlier=(known,))
        )
        assert found == (Ruling("ask", reason=said) if said else None)
        assert POLICIES["readers_cover_recipients"](case({"to": to, "note": "one two"}, mail, earlier=(known,))) is None


def test_checked_arguments_become_json_data_with_texts_for_what_json_lacks() -> None:
    class Day:
        def __str__(self) -> str:
            return "Monday"

    given = {"a": (1, Day()), "b": Day(), "c": None}
    assert as_json_data(given) == {"a": [1, "Monday"], "b": "Monday", "c": None}
    plain = {"a": "x", "b": 1, "c": 0.5, "d": None, "e": True}
    data = as_json_data(plain)
    assert data == plain and data is not plain


def test_a_document_begins_on_a_line_of_its_own_and_ends_at_its_end() -> None:
    for text, parted in (
        ('a <untrusted from="x">\nb\n</untrusted> c', ("a   c", ['<untrusted from="x">\nb\n</untrusted>'])),
        ('<untrusted from="x">\n\n</untrusted>', (" ", ['<untrusted from="x">\n\n</untrusted>'])),
        ('a <untrusted from="x">\n</untrusted> b', ('a <untrusted from="x">\n</untrusted> b', [])),
        ('a <untrusted from="x"> b\n</untrusted>', ('a <untrusted from="x"> b\n</untrusted>', [])),
        ('<untrusted from="x"', ('<untrusted from="x"', [])), ("", ("", [])),
        ('<untrusted from="x">-<untrusted from="y">\nb\n</untrusted><untrusted from="z">\nc\n</untrusted>',
         ('<untrusted from="x">-  ', ['<untrusted from="y">\nb\n</untrusted>', '<untrusted from="z">\nc\n</untrusted>'])),
    ):  # fmt: skip
        assert _parted(text) == parted, text


def test_what_was_read_before_comes_in_order_documents_answers_then_calls_and_memories() -> None:
    one, two = marked("d1", "a"), marked("d2", "b")
    turns = (user(f"u {one}"), assistant("a1"), system("s"), assistant(""), assistant("a2"))
    task = Task("1", f"p {two}", conversation=turns)

    def call(kind: str, **detail: Any) -> Call:
        return Call(":0", kind, None, 0.0, 0.0, "", detail=detail)

    calls = (
        call("tool", name="pay", arguments={"fee": 1}, result="r1", is_error=True), call("generate", result="no"),
        call("memory", operation="recall", reply=[{"text": "m1"}, {"text": 5}]),
        call("memory", operation="recall", reply=[]),
        call("memory", operation="store", reply=[{"text": "no"}]), call("tool", name="pay", arguments={}),
        call("tool", name="gone", arguments={"x": 2}, result='<untrusted from="">\nr2\n</untrusted>', origin=""),
    )  # fmt: skip
    view = AttemptView(task, "a", None, (), calls, (PAY,), None, None)  # type: ignore[arg-type]
    read_before = [(each.name, each.effect, each.result) for each in earlier_calls(view)]
    assert read_before == [
        ("a document", "reading", two), ("a document", "reading", one), ("an earlier answer", "reading", "a1"),
        ("an earlier answer", "reading", "a2"), ("pay", "external", "r1"), ("memory", "reading", "m1\n5"),
        ("gone", "read", "r2"),
    ]  # fmt: skip
    paid, gone = earlier_calls(view)[4], earlier_calls(view)[6]
    assert paid == Earlier("pay", "external", PAYS, {"fee": 1}, "r1", True, DEFAULTS)
    assert gone == Earlier("gone", "read", None, {"x": 2}, "r2", False)
    assert unmarked("x", None) == "x" and unmarked('<untrusted from="w">\nx\n</untrusted>', "v").startswith(
        "<untrusted"
    )


def test_policies_come_in_the_order_of_their_names_and_any_wrong_name_is_refused() -> None:
    assert policies_named(("once_only", "budget")) == (POLICIES["once_only"], POLICIES["budget"])
    assert policies_named(()) == ()
    for names in (("budget", "budgt"), ("budgt", "budget")):
        with pytest.raises(UnknownName) as raised:
            policies_named(names)
        assert str(raised.value) == "no policy 'budgt'; did you mean 'budget'? `docs/guard.md` shows all"
