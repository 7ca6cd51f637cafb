"""Which fact of a memory holds, is found and is kept: after many versions, withdrawals, and names in two encodings."""

import asyncio
import unicodedata
from pathlib import Path

import pytest

from firsthand.memories.keeping.item_age import oldest_first, replaced_of, standing
from firsthand.memories.keeping.item_file import ItemFile, KeepingBounds
from firsthand.memories.keeping.item_vectors import CANDIDATES, ItemVectors
from firsthand.memories.keeping.kept_item import unstored
from firsthand.memories.keeping.stored_memory import KeepingPolicy
from firsthand.memories.procedural import procedural
from firsthand.memories.semantic import SemanticMemory, _key_in, _sentence, fact_key, facts_in, semantic
from firsthand.memory import MemoryItem

FAR = "2999-01-01"


class Letters:
    """Vectors of the counts of letters: texts of equal letters are equally near."""

    fingerprint = "letters"

    async def embed(self, texts):
        return [[1.0 + text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]


def fact(subject, attribute, value, withdrawn=False, **more):
    named = {"subject": subject, "attribute": attribute, "value": value, "withdrawn": withdrawn}
    return MemoryItem.of(_sentence(named), named | more)


def homes(*values, **more):
    """Facts of Ann's home in the order of writing; -VALUE withdraws it, - alone whatever holds."""
    return [
        fact("Ann", "home", value.removeprefix("-"), value.startswith("-"), n=n, **more)
        for n, value in enumerate(values)
    ]


def write(memory, items):
    async def all_of_them():
        for each in items:
            await memory.write(each)

    asyncio.run(all_of_them())


def found(memory, query, k=5, **how):
    return [each.text for each in asyncio.run(memory.search(query, k, **how))]


def held(memory, **how):
    return [
        each.provenance["value"]
        for each in asyncio.run(memory.search("home of Ann", 9, where={"subject": "Ann"}, **how))
    ]


@pytest.fixture(params=["process", "file"])
def place(request, tmp_path):
    return "" if request.param == "process" else str(tmp_path / "m.db")


def meaning(place):
    made = semantic(place)
    made.vectors = ItemVectors(Letters())
    return made


def test_a_search_by_meaning_finds_what_holds_however_many_versions_were_replaced(place) -> None:
    memory = meaning(place)
    write(memory, [fact("order 7", "status", f"step {n:03}") for n in range(2 * CANDIDATES + 1)])
    write(memory, [fact("dog", "fur", "brown")])
    assert found(memory, "status of order 7", 1) == [f"The status of order 7 is step {2 * CANDIDATES}."]
    assert len(found(memory, "status of order 7")) == 2


def test_a_search_by_meaning_passes_over_hidden_texts_and_those_outside_of_a_filter(place) -> None:
    memory = meaning(place)
    said = [(f"the home of Ann? {n:03}", {"n": n}) for n in range(CANDIDATES + 1)]
    write(memory, [MemoryItem.of(text, {"hidden": True, **more}) for text, more in said])
    write(memory, [MemoryItem.of(f"{text} then", {"kind": "other", **more}) for text, more in said])
    write(memory, [fact("Ann", "home", "Oslo", kind="mine")])
    assert found(memory, "the home of Ann?", where={"kind": "mine"}) == ["The home of Ann is Oslo."]
    assert found(memory, "abode", where={"kind": "mine"}) == ["The home of Ann is Oslo."], "by its meaning alone"
    shown = found(memory, "abode", 9 * CANDIDATES)
    assert len(shown) == CANDIDATES and all(text.endswith((" then", " Oslo.")) for text in shown), "no hidden one"
    assert len(found(memory, "the home of Ann?", 2 * CANDIDATES)) > CANDIDATES


def test_history_by_meaning_shows_replaced_facts_too(place) -> None:
    memory = meaning(place)
    write(memory, homes("Oslo", "Bergen"))
    assert sorted(held(memory, history=True)) == ["Bergen", "Oslo"] and held(memory) == ["Bergen"]


@pytest.mark.parametrize("values, holds", [
    (["Oslo", "Bergen", "-Oslo"], ["Bergen"]),
    (["Bergen", "-Oslo"], ["Bergen"]),
    (["Oslo", "-Oslo"], []),
    (["Oslo", "-  oSLO "], []),
    (["Oslo", "Bergen", "-"], []),
    (["Oslo", "Bergen", "-Bergen"], []),
    (["Oslo", "-Oslo", "Oslo"], ["Oslo"]),
    (["Oslo", "-Oslo", "-Bergen"], []),
    (["-Oslo"], []),
])  # fmt: skip
def test_a_withdrawal_ends_the_fact_of_its_value_alone(place, values, holds) -> None:
    memory = semantic(place)
    write(memory, homes(*values))
    assert held(memory) == holds
    planned = semantic()
    write(planned, homes(*values, time=FAR))
    assert held(planned) == holds, "of plans for one time too"


def test_a_withdrawal_without_a_value_says_so_in_words_and_values_are_compared_in_one_encoding() -> None:
    assert [fact("Ann", "home", value, True).text for value in ("", " ", "Oslo")] == [
        "The home of Ann is no longer known.", "The home of Ann is no longer known.", "The home of Ann is no longer Oslo.",
    ]  # fmt: skip
    (town, gone) = (unicodedata.normalize(form, "Malmö") for form in ("NFC", "NFD"))
    memory = semantic()
    write(memory, homes(town, f"-{gone}"))
    assert held(memory) == []
    write(memory, [MemoryItem.of("a", {"subject": "Ann", "attribute": "home", "value": 7}),
                   MemoryItem.of("b", {"subject": "Ann", "attribute": "home", "withdrawn": True})])  # fmt: skip
    assert held(memory) == [], "no value at all"


def test_facts_and_withdrawals_of_one_text_hold_in_whichever_order_the_model_lists_them() -> None:
    listed = [{"subject": "Ann", "attribute": "home", "value": "Bergen", "withdrawn": False},
              {"subject": "Ann", "attribute": "home", "value": "Oslo", "withdrawn": True}]  # fmt: skip
    for order in (listed, listed[::-1]):
        memory = semantic()
        write(memory, homes("Oslo"))
        write(memory, [MemoryItem.of(_sentence(each), each) for each in facts_in(str(order).replace("'", '"')
              .replace("True", "true").replace("False", "false"))])  # fmt: skip
        assert held(memory) == ["Bergen"]


def test_a_plan_that_is_withdrawn_gives_way_to_the_next_one() -> None:
    memory = semantic()
    write(memory, [*homes("Oslo", "-Oslo", time=FAR), fact("Ann", "home", "Rome", time="2999-02-01")])
    assert held(memory) == ["Rome"]


def test_a_full_memory_keeps_the_fact_that_a_withdrawal_of_another_value_left_holding(tmp_path: Path) -> None:
    for file in (None, ItemFile(tmp_path / "m.db")):
        policy = KeepingPolicy("semantic", fact_key, bounds=KeepingBounds(items=20))
        memory = SemanticMemory(policy, file)
        write(memory, homes("Oslo", "Bergen", "-Oslo"))
        write(memory, [fact("n", f"a{n}", "x") for n in range(18)])
        assert held(memory, history=True) == ["Bergen", "Oslo"] and held(memory) == ["Bergen"], "Oslo alone went"
        write(memory, [fact("n", "a0", "y")])
        assert held(memory) == ["Bergen"], "a replaced fact goes before an older one that holds"


def test_falsy_values_of_withdrawn_are_facts_which_replace(tmp_path: Path) -> None:
    for value, first in (
        (False, "Bergen"),
        (0, "Bergen"),
        ("", "Bergen"),
        (None, "Bergen"),
        (True, "Oslo"),
        ("yes", "Oslo"),
    ):
        file = ItemFile(tmp_path / f"{value}.db")
        memory = SemanticMemory(KeepingPolicy("semantic", fact_key, bounds=KeepingBounds(items=3)), file)
        items = [
            ("old", {}),
            *((town, {"subject": "Ann", "attribute": "home", "value": town}) for town in ("Oslo", "Bergen")),
        ]
        items[2][1]["withdrawn"] = value
        write(memory, [MemoryItem.of(text, given) for text, given in [*items, ("new", {'"withdrawn":': "x"})]])
        left = {each.text for each in asyncio.run(memory.list())}
        assert left == ({"old", "Bergen", "new"} if first == "Bergen" else {"Oslo", "Bergen", "new"}), value


def test_what_stands_and_what_was_replaced_of_items_in_order() -> None:
    kept = [unstored(each, n, "k") for n, each in enumerate(homes("Oslo", "Bergen", "-Oslo", "-Bergen"))]
    assert standing([]) is None and standing(kept) is None and standing(oldest_first(kept[:3])) == kept[1]
    assert [*replaced_of(kept)] == kept[:1] and [*replaced_of(kept[2:])] == [*replaced_of([])] == []


def test_a_full_procedural_memory_deletes_the_skills_that_were_stored_first(place) -> None:
    memory = procedural(place, max_items=20)
    write(memory, [MemoryItem.of(f"Task: {n}", {"skill": str(n), "trace": str(n), "time": 0}) for n in range(50)])
    left = sorted(int(each.provenance["skill"]) for each in asyncio.run(memory.list()))
    assert left == [*range(30, 50)]


def test_of_one_time_what_was_stored_first_goes_first_whatever_the_order_of_an_import(tmp_path: Path) -> None:
    from firsthand.memories.keeping.item_file import ItemTimes

    file = ItemFile(tmp_path / "m.db")
    for name, stored_s in (("b", 20.0), ("a", 10.0), ("c", 30.0)):
        file.put("", "k", MemoryItem.of(name, {"time": 0}), None, None, times=ItemTimes(0.0, stored_s, 1))
    assert file.put("", "k", MemoryItem.of("d", {"time": 0}), None, KeepingBounds(items=3))
    kept = file.newest_first(file.scope("", "k"), 99, None, 9)
    assert {each.item.text for each in kept} == {"b", "c", "d"}


def test_names_with_accents_are_one_subject_in_either_encoding(place) -> None:
    composed, apart = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    for first, second in ((composed, apart), (apart, composed)):
        memory = semantic(place, owner=first)
        write(memory, [fact(first, "pin", "1111", time=5), fact(second, "pin", "2222", time=5)])
        assert [each.provenance["value"] for each in asyncio.run(memory.search("pin", 5))] == ["2222"]
        assert len(memory.contradictions()) == 1
    assert fact_key(fact(composed, "a", "x")) == _key_in("NFC", fact(composed, "a", "x"))


def test_a_fact_that_an_older_version_kept_under_its_own_encoding_is_replaced_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "m.db"
    composed, apart = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    older = SemanticMemory(KeepingPolicy("semantic", lambda item: _key_in("NFD", item)), ItemFile(file))
    write(older, [fact(apart, "pin", "1111")])
    memory = semantic(str(file))
    assert found(memory, "pin") == [fact(apart, "pin", "1111").text]
    write(memory, [fact(composed, "pin", "2222")])
    assert found(memory, "pin") == [fact(composed, "pin", "2222").text]
    write(memory, [fact(apart, "pin", "3333")])
    assert found(memory, "pin") == [fact(apart, "pin", "3333").text]
    write(older, [fact(apart, "pin", "4444")])
    assert found(memory, "pin") == [fact(apart, "pin", "4444").text] and len(asyncio.run(memory.list())) == 4
    write(older, [fact(apart, "tel", "1", time=5)])
    write(memory, [fact(composed, "tel", "2", time=5)])
    assert [[each.provenance["value"] for each in group] for group in memory.contradictions()] == [["1", "2"]]


def test_a_search_looks_up_what_holds_for_many_items_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = meaning(str(tmp_path / "m.db"))
    write(memory, [fact(f"order {n}", "status", "paid") for n in range(CANDIDATES + 9)])
    asked = []
    monkeypatch.setattr(
        memory.file, "with_keys", lambda scope, keys, last: asked.append(keys) or [*many(scope, keys, last)]
    )
    many = type(memory.file).with_keys.__get__(memory.file)
    assert len(found(memory, "status of an order")) == 5
    assert len(asked) < 16 and max(map(len, asked)) == 32 and min(map(len, asked)) > 0
    assert len({key for keys in asked for key in keys}) == sum(map(len, asked)), "each once"
    memory.vectors = None
    asked.clear()
    assert len(found(memory, "status of an order")) == 5 and [*map(len, asked)] == [5], "no more than are wanted"
    assert len(found(memory, "status of an order", 99)) == 99 and max(map(len, asked)) == 32, "nor more than a page"
    asked.clear()
    assert len(found(memory, "status of an order", history=True)) == 5 and asked == []


def test_any_number_of_keys_is_looked_up(place) -> None:
    memory = semantic(place)
    kept = [fact(f"order {n}", "status", "paid") for n in range(3)]
    write(memory, kept)
    keys = [*map(fact_key, kept)]
    others = [f"{n:016}" for n in range(1_200)]
    by_key = memory.with_keys([*others[:700], *keys[:2], *others[700:]])
    assert {key: [each.item for each in items] for key, items in by_key.items()} == {
        key: [each] for key, each in zip(keys[:2], kept, strict=False)
    }
