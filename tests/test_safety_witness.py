"""Witnesses of values: where they occur as a whole, what could mislead a person, trusted fields, and labels that join."""

import datetime

import pytest

from firsthand.declaration import Declaration
from firsthand.safety.rules.labels import USER, Label, join_all, label_of_result
from firsthand.safety.rules.witness import (
    MAX_LEAVES,
    Witness,
    WitnessSource,
    leaves,
    occurs,
    problem_of,
    texts_at,
    trusted_texts,
    witness,
    witnesses,
)


@pytest.mark.parametrize(
    ("value", "text", "found"),
    [
        ("a.org", "xa.org and a.org", True), ("a.org", "see a.org/ now", True), ("a.org", "see a.org/", False),
        ("a.org", "see a.org:", True), ("a.org", "see a.org.", True), ("a.org", "a.org:80", False),
        ("a.org", "a.org.-", False),
        ("a.org", "a.org.Then it was", True), ("a.org", "a.org.Then", False), ("a.org", "a.org.then it", False),
        ("a.org", "\u200ba.org", False), ("a.org", "a.org\u200b", False), ("a.org", "a.org\nb", True),
        ("a.org", "\ta.org,", True),
        ("a.org", "~a.org", False), ("a.org", "a.org@b", False), ("a.org", "é a.orgé", False), ("a.org", "x:a.org", False),
        ("a.org", "xa.org, a.org, a.orgx a.orgy", True), ("", "a b", False), ("", "", False),
        ("a.org", "https://a.org, b", True),
        ("a.org", "x//a.org", False), ("a.org", "https:/a.org", False), ("a.org", "://xa.org", False), ("a", "", False),
        ("ab ab", "xab ab ab", True), ("ab ab", "xab abx ab", False), ("a.org", f"a.org.T{'h' * 37} x", True),
        ("a.org", f"a.org.T{'h' * 38} x", False),
        ("É", "é", False), ("É", "(É)", True), ("aa", "aaa aa", True), ("b", "a", False),
    ],
)  # fmt: skip
def test_a_value_that_is_a_part_of_a_longer_one_does_not_occur(value, text, found):
    assert occurs(value, text) is found


def test_the_next_sentence_without_a_blank_ends_no_path():
    assert not occurs("a.org", "a.org.Then it was", exact=True) and occurs("a.Org", "see a.Org.", exact=True)
    whole, among = WitnessSource("x", ("Ab", "c d")), WitnessSource("user", ("x", "Ab c", "y"), whole=False)
    assert whole.has("aB") and not whole.has("aB", exact=True) and whole.has("Ab", exact=True) and not whole.has("d")
    assert among.has("C") and not among.has("C", exact=True) and among.has("c", exact=True)


def test_a_value_that_could_mislead_a_person_has_a_problem():
    names = (WitnessSource("x", ("Pay",)),)
    unseen = "it has characters that are not seen"
    assert problem_of("a\u200bb", ()) == problem_of("\ufffc", ()) == problem_of("a\x07", ()) == unseen
    for odd in (
        "\u0301",
        "\u20dd",
        "\ue000",
        "\u0378",
        "\u00ad",
        "\x7f",
    ):  # of each category that is not seen by itself
        assert (
            problem_of(f"a{odd}b", ()) == unseen and not occurs("ann", f"{odd}ann{odd}") and occurs("ann", f"{odd} ann")
        )
    assert problem_of("a\tb\r\n", ()) == problem_of("Раy", ()) == problem_of("Pay", names) == ""
    assert problem_of("Раy", names) == "it looks like 'Pay' and is not" == problem_of("\uff30ay", names)


def test_the_parts_of_a_value_are_keys_texts_numbers_and_what_json_holds():
    value = {
        "k": [" x ", "", "\n", 1, 2.5, True, None],
        "j": '{"a": ["b"]}',
        "s": '"\\"t\\""',
        "w": "{broken",
        "t": ("y",),
    }
    found = list(leaves(value, "p"))
    assert found == [
        ("p.k", "k"), ("p.k", "x"), ("p.k", "1"), ("p.k", "2.5"), ("p.k", "true"), ("p.j", "j"), ("p.j.a", "a"),
        ("p.j.a", "b"),
        ("p.s", "s"), ("p.s", "t"), ("p.w", "w"), ("p.w", "{broken"), ("p.t", "t"), ("p.t", "y"),
    ]  # fmt: skip
    assert ("p.j", '{"a": ["b"]}') in list(leaves(value, "p", unpack=False))
    assert [at for at, _ in leaves({"a" * 90: "x"})] == [f".{'a' * 79}"] * 2
    assert list(leaves({datetime.date(2024, 1, 2): frozenset({"z"})})) == [
        (".2024-01-02", "2024-01-02"),
        (".2024-01-02", "z"),
    ]
    assert list(texts_at({"a": ["[1]", "x"], "b": "y", "c": "z"}, ("c", "a"))) == ["z", "1", "x"]
    assert list(texts_at({"a": "[1]"}, ("a",), unpack=False)) == ["[1]"]
    inner = {"k": ['["q"]', {"n": ('{"r": 1}',)}]}
    assert list(leaves(inner, "p", unpack=False)) == [
        ("p.k", "k"), ("p.k", '["q"]'), ("p.k.n", "n"), ("p.k.n", '{"r": 1}'),
    ]  # fmt: skip
    assert list(leaves(inner, "p"))[1:] == [("p.k", "q"), ("p.k.n", "n"), ("p.k.n.r", "r"), ("p.k.n.r", "1")]
    assert list(leaves(' ["q"]')) == [("", "q")]
    odd = [" \t\r\n\xa0ann\u2003 ", "\x0bbob\x0c", "\u3000"]  # only blanks that a person types are taken off
    assert list(leaves(odd, "to")) == [("to", "\xa0ann\u2003"), ("to", "\x0bbob\x0c"), ("to", "\u3000")]


def test_a_list_in_one_text_needs_a_witness_for_each_item():
    sources = (WitnessSource("names", ("ann", "bob", "x")), WitnessSource("more", ("cid", "Ann")))
    assert witness("to", "bob", sources) == Witness("to", "bob", "names")
    assert witness("to", "ann; bob,cid, ANN", sources) == Witness("to", "ann; bob,cid, ANN", "names, more")
    assert witness("to", "ann, eve", sources).source == witness("to", "ann, x", sources).source == ""
    assert witness("to", "ann, ", sources).source == witness("to", "ANN, bob", sources, exact=True).source == ""
    assert witness("to", "b\u043eb", sources) == Witness("to", "b\u043eb", "", "it looks like 'bob' and is not")


def test_an_argument_with_more_than_the_most_parts_has_no_witness():
    sources = (WitnessSource("names", ("ann",)),)
    fits = witnesses({"to": ["ann"] * MAX_LEAVES, "x": "ann"}, ("to",), sources)
    assert fits == (Witness("to", "ann", "names"),) * 256
    more = witnesses({"to": ["ann"] * 255, "cc": ["Ann", "eve"]}, ("to", "cc"), sources, exact=("to",))
    assert more[255:] == (Witness("cc", "Ann", "names"), Witness("cc", "", "", "it has more than 256 parts"))


def test_every_part_of_an_argument_that_must_match_exactly_does_so():
    sources = (WitnessSource("names", ("ann", "who", "x")),)
    given = {"to": {"who": ["Ann", "ann", " ann\t"], "X": 1}, "cc": {"WHO": "ANN", "x": "\xa0ann"}}
    assert witnesses(given, ("cc", "to", "bcc"), sources, exact=("to",)) == (
        Witness("cc.WHO", "WHO", "names"), Witness("cc.WHO", "ANN", "names"),
        Witness("cc.x", "x", "names"), Witness("cc.x", "\xa0ann", ""),
        Witness("to.who", "who", "names"), Witness("to.who", "Ann", ""), Witness("to.who", "ann", "names"),
        Witness("to.who", "ann", "names"), Witness("to.X", "X", ""), Witness("to.X", "1", ""),
    )  # fmt: skip


def test_trusted_texts_are_the_fields_of_json_or_the_lines_of_a_list():
    body = '[{"id": 1, "who": {"name": "a"}}, {"id": "[2]", "text": ""}]'
    assert trusted_texts(body, ("id", "text", "who.name", "none")) == (("id", ("1", "[2]")), ("who.name", ("a",)))
    assert trusted_texts(body, ()) == () == trusted_texts("a\nb", ("id",))
    lines = " to: ann \n\nbob\nat: x: y\nbob\nc:d"
    assert trusted_texts(lines, ("id", ".")) == ((".", ("to: ann", "ann", "bob", "at: x: y", "x: y", "c:d")),)
    deep = "[" * 100_000  # JSON that cannot be read is a text
    assert trusted_texts(deep, (".", "id")) == ((".", (deep,)),) and trusted_texts(deep, ("id",)) == ()
    assert list(leaves(deep, "p")) == [("p", deep)]
    assert trusted_texts('["p", "q"]', (".",)) == ((".", ("p", "q")),)


def test_labels_join_to_less_trust_fewer_readers_and_all_origins():
    a = Label("trusted", frozenset({"x", "y"}), frozenset({"b"}))
    b = Label("untrusted", frozenset({"y", "z"}), frozenset({"a"}))
    joined = Label("untrusted", frozenset({"y"}), frozenset({"a", "b"}))
    assert a.join(b) == b.join(a) == join_all([a, b]) == joined and join_all([]) == Label()
    assert a.join(Label()) == Label().join(a) == a and Label().join(Label("untrusted")).readers is None
    nobody = Label("trusted", frozenset())
    assert a.join(nobody).readers == nobody.join(a).readers == frozenset() == nobody.join(Label()).readers
    assert nobody.to_json()["readers"] == [] and nobody.may_be_read_by([]) and not nobody.may_be_read_by(["x"])
    assert joined.to_json() == {"integrity": "untrusted", "readers": ["y"], "origins": ["a", "b"]}
    assert USER.to_json() == {"integrity": "trusted", "readers": "public", "origins": ["user"]}
    assert (
        a.may_be_read_by(["x"])
        and a.may_be_read_by([])
        and not a.may_be_read_by(["x", "z"])
        and USER.may_be_read_by("q")
    )
    origin = frozenset({"t"})
    assert (
        label_of_result("t", None)
        == label_of_result("t", Declaration(readers="user"))
        == Label("untrusted", frozenset(), origin)
    )
    assert label_of_result("t", Declaration()) == Label("untrusted", None, origin)
    assert label_of_result("t", Declaration(clean=True)) == Label("trusted", None, origin)
