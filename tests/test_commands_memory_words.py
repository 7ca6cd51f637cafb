"""`firsthand memory`: items listed, shown, forgotten, moved and counted by owner and kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.commands import memory
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.memories.keeping.item_file import ItemFile
from firsthand.memories.keeping.kept_item import shown_time
from firsthand.memory import MemoryItem
from printed_tables import right_cells, widen, words

Cli = Callable[..., tuple[int, str, str]]
ROWS: tuple[dict[str, Any], ...] = (
    {"text": "Ann lives in Oslo.", "owner": "ann", "kind": "semantic", "provenance": {"time": "2026-01-02"}},
    {"text": "Bob\nhas a cat " + "x" * 200, "owner": "bob", "kind": "semantic", "provenance": {"time": "2026-01-03"}},
    {"text": "Ann went out.", "owner": "ann", "kind": "episodic", "provenance": {"time": "2026-01-04T05:06:07Z"}},
    {"text": "Nobody's café.", "kind": "semantic"},
)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    widen(monkeypatch)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def kept(here: Path, cli: Cli) -> dict[str, str]:
    """The memory m.db of four items; their ids by the first word of their texts."""
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in ROWS), encoding="utf-8")
    assert cli("memory", "import", "m.db", "rows.jsonl") == (0, "imported 4 new items\n", "")
    made = [MemoryItem.of(row["text"], row.get("provenance", {})) for row in ROWS]
    return {name: item.id for name, item in zip(("ann", "bob", "out", "café"), made, strict=True)}


def test_items_are_listed_by_owner_and_kind_newest_first(kept: dict[str, str], cli: Cli) -> None:
    with_sizes = ItemFile(Path("m.db"), create=False)
    sizes = {(owner, kind): size for owner, kind, size in with_sizes.scopes()}
    with_sizes.close()
    code, out, _ = cli("memory", "list", "m.db")
    told = words(out)
    assert code == 0 and told[:2] == ["m.db", "owner kind items bytes"] and len(sizes) == 4
    assert sorted(told[2:6]) == sorted(
        f"{owner or '-'} {kind} 1 {size.size_bytes:,}" for (owner, kind), size in sizes.items()
    )
    assert told[6:8] == ["4 items", "id owner time text"]
    rows = {line.split()[0]: line for line in told[8:]}
    assert rows[kept["ann"]] == f"{kept['ann']} ann 2026-01-02 Ann lives in Oslo." and len(rows) == 4
    assert rows[kept["out"]] == f"{kept['out']} ann 2026-01-04T05:06:07Z Ann went out."
    assert "".join(rows[kept["bob"]].split()[3:]) == "Bobhasacat" + "x" * 146, "160 characters in one line"
    assert rows[kept["café"]].split()[1] == "-" and rows[kept["café"]].endswith(" Nobody's café.")
    assert set(right_cells(out, "items")) == {"1"}
    body = json.loads(cli("memory", "list", "m.db", "--owner", "ann", "--json")[1])
    assert {each["id"] for each in body["items"]} == {kept["ann"], kept["out"]} and len(body["scopes"]) == 4
    assert all(set(each) == {"owner", "kind", "items", "bytes"} for each in body["scopes"])
    [item] = json.loads(cli("memory", "list", "m.db", "--kind", "episodic", "--json")[1])["items"]
    assert (item["owner"], item["kind"], item["text"], item["valid"]) == (
        "ann", "episodic", "Ann went out.", "2026-01-04T05:06:07Z")  # fmt: skip
    [item] = json.loads(cli("memory", "list", "m.db", "--owner", "", "--json")[1])["items"]
    assert item["id"] == kept["café"] and item["provenance"] == {}
    facts = [{"text": f"fact {n} of tea {'tea ' * n}"} for n in range(3)]
    Path("more.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))
    assert (
        cli("memory", "import", "m.db", "more.jsonl", "--owner", "cy", "--kind", "semantic")[1]
        == "imported 3 new items\n"
    )
    line = ("memory", "list", "m.db", "--owner", "cy", "--json")
    Path("bad.jsonl").write_text('{"text": "sure", "kind": "semantic", "provenance": {"confidence": 2}}\n')
    code, _, err = cli("memory", "import", "new.db", "bad.jsonl")
    assert code == 2 and "confidence is 2: give a number from 0 to 1" in err and not list(Path().glob("new.db*"))
    Path("own.jsonl").write_text('{"text": "went", "kind": "episodic", "owner": "ann"}\n')
    assert cli("memory", "import", "m.db", "own.jsonl", "--owner", "dan", "--kind", "semantic")[0] == 0
    [item] = json.loads(cli("memory", "list", "m.db", "--owner", "dan", "--json")[1])["items"]
    assert (item["kind"], item["text"]) == ("semantic", "went"), "the flags come before the file"
    assert len(json.loads(cli(*line, "--limit", "2")[1])["items"]) == 2
    found = json.loads(cli(*line, "--query", "fact 1", "--limit", "1")[1])["items"]
    assert [each["text"] for each in found] == ["fact 1 of tea tea "]
    assert [each["text"][:6] for each in json.loads(cli(*line)[1])["items"]] == ["fact 2", "fact 1", "fact 0"]


def test_items_are_shown_and_forgotten_by_id_within_an_owner(
    kept: dict[str, str], monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    code, out, _ = cli("memory", "show", "m.db", kept["ann"])
    body = json.loads(out)
    assert code == 0 and list(body) == ["owner", "kind", "id", "text", "provenance", "valid", "stored"]
    assert body["provenance"] == ROWS[0]["provenance"] and body["valid"] == "2026-01-02" and body["stored"] > "2026-01"
    code, _, err = cli("memory", "show", "m.db", kept["ann"], "--owner", "bob")
    told = f"no item '{kept['ann']}' in m.db: `firsthand memory list m.db` shows all"
    assert (code, err) == (2, f"firsthand: {told}\n")
    code, _, err = cli("memory", "forget", "m.db", kept["out"], "no-such")
    assert code == 2 and "no item 'no-such'" in err and cli("memory", "show", "m.db", kept["out"])[0] == 0
    assert cli("memory", "forget", "m.db", kept["out"], kept["bob"]) == (0, "forgot 2 items\n", "")
    assert cli("memory", "show", "m.db", kept["bob"])[0] == 2 and cli("memory", "show", "m.db", kept["café"])[0] == 0
    Path("same.jsonl").write_text('{"text": "same"}\n')
    for owner in ("dee", "eve"):
        line = ("memory", "import", "m.db", "same.jsonl", "--owner", owner, "--kind", "semantic")
        assert cli(*line)[1] == "imported 1 new item\n"
    assert cli(*line)[1] == "imported 0 new items\n"
    same = MemoryItem.of("same", {}).id
    both = cli("memory", "show", "m.db", same)[1]
    assert both.count('"owner": "dee"') == both.count('"owner": "eve"') == 1, "each owner's own"
    assert cli("memory", "forget", "m.db", same, "--owner", "dee")[1] == "forgot 1 item\n"
    assert cli("memory", "show", "m.db", same)[1].count('"owner": "eve"') == 1
    file = ItemFile(Path("m.db"), create=False)
    told: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(file, "checkpoint", lambda: told.append("checkpoint"))
        patched.setattr(file, "remove", lambda *given: told.append(given[2]))
        assert memory._forget(memory.Config("forget", ("m.db", same)), file) == 0
    assert told == [same, "checkpoint"], "what was deleted is in no log either"
    config = memory.Config("show", ("m.db", same))
    assert [(owner, kind) for owner, kind, _ in memory._named(config, file)] == [("eve", "semantic")]
    with pytest.raises(UnknownName, match="no item 'x'"):
        memory._named(memory.Config("show", ("m.db", same, "x")), file)
    file.close()


def test_items_are_exported_to_lines_that_import_reads_again(kept: dict[str, str], cli: Cli, here: Path) -> None:
    code, out, err = cli("memory", "export", "m.db", "--kind", "semantic")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "exported 3 items\n")
    assert {row["id"] for row in rows} == {kept[name] for name in ("ann", "bob", "café")}
    assert out.isascii() and all(row["kind"] == "semantic" for row in rows)
    assert cli("memory", "export", "m.db", "--out", "all.jsonl") == (0, "", "exported 4 items\n")
    assert len(Path("all.jsonl").read_text().splitlines()) == 4 and not Path("all.jsonl.part").exists()
    assert cli("memory", "import", "n.db", "all.jsonl") == (0, "imported 4 new items\n", "")
    assert cli("memory", "import", "p.db", "all.jsonl", "--owner", "")[0] == 0
    body = json.loads(cli("memory", "list", "p.db", "--json")[1])
    assert {each["owner"] for each in body["scopes"]} == {""}, "an empty name is a name too: the items are nobody's"
    assert cli("memory", "import", "o.db", "all.jsonl", "--owner", "me")[0] == 0
    body = json.loads(cli("memory", "list", "o.db", "--json")[1])
    assert {(each["owner"], each["kind"]) for each in body["scopes"]} == {("me", "semantic"), ("me", "episodic")}
    code, out, err = cli("memory", "export", "m.db", "--salvage", "--owner", "ann")
    assert (code, err) == (0, "exported 2 items\n") and len(out.splitlines()) == 2


def test_places_that_cannot_be_read_are_counted_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Damaged:
        def names(self) -> list[Any]:
            return [("a", "semantic"), ("b", "semantic")]

        def salvage(self, owner: str, kind: str, lost: Callable[[int], None]) -> Any:
            for number in (3, 3, 4) if owner == "a" else (4,):
                lost(number)
            return iter(())

    file: Any = Damaged()
    assert memory._export(memory.Config("export", ("m.db",), salvage=True), file) == 0
    assert capsys.readouterr() == ("", "exported 0 items; 2 places could not be read\n")
    memory._export(memory.Config("export", ("m.db",), salvage=True, owner="b"), file)
    assert capsys.readouterr().err == "exported 0 items; 1 place could not be read\n"


def test_lines_that_are_no_items_are_refused_by_number_and_leave_no_file(here: Path, cli: Cli) -> None:
    kinds = "text, provenance (an object) and kind were expected; --kind gives the kind of all"
    for line, told, *more in (
        ('{"text": 1, "kind": "semantic"}', kinds), ('{"text": "a", "kind": "semantic", "provenance": [1]}', kinds),
        ('{"text": "a"}', kinds),
        ('{"text": "a", "kind": "./x.py"}', "the kind is './x.py': the name of an installed memory"),
        ('{"text": "a", "kind": "notes"}', "the kind notes keeps no file: give semantic, episodic or another one that does"),
        ("[1]", "a JSON object was expected"), ("{", "a JSON object was expected"),
    ):  # fmt: skip
        Path("bad.jsonl").write_text(f'\n{{"text": "good", "kind": "semantic"}}\n{line}\n')
        code, _, err = cli("memory", "import", "new.db", "bad.jsonl", *more)
        assert code != 0 and err.startswith(f"firsthand: bad.jsonl, line 3: {told}"), err
        assert not list(here.glob("new.db*")), "an import that failed leaves no empty memory"
    assert cli("memory", "import", "m.db", "bad.jsonl", "--kind", "semantic")[0] != 0
    Path("separated.jsonl").write_text('\r\n{"text": "one\u2028two\u0085three"}\r\n', encoding="utf-8")
    assert [*memory._lines(Path("separated.jsonl"))] == [(2, {"text": "one\u2028two\u0085three"})]
    Path("ok.jsonl").write_text('{"text": "a", "kind": "semantic"}\n')
    assert [cli("memory", "import", "m.db", name)[0] == 0 for name in ("ok.jsonl", "bad.jsonl")] == [True, False]
    items = json.loads(cli("memory", "list", "m.db", "--json")[1])["items"]
    assert "a" in [item["text"] for item in items], "a memory that was there stays"
    Path("bytes.jsonl").write_bytes(b"\xff")
    for path in ("bytes.jsonl", "none.jsonl"):
        with pytest.raises(DataError, match=rf"^{path} cannot be read: "):
            list(memory._lines(Path(path)))
    assert cli("memory", "list", "none.db")[0] != 0 and not Path("none.db").exists()


def test_junk_is_told_against_the_facts_as_shares(kept: dict[str, str], cli: Cli) -> None:
    Path("told.jsonl").write_text(json.dumps({"text": "Ann lives in Oslo.", "provenance": {"subject": "x"}}) + "\n")
    code, out, _ = cli("memory", "junk", "m.db", "told.jsonl", "--kind", "semantic", "--json")
    body = json.loads(out)
    plain, out, _ = cli("memory", "junk", "m.db", "told.jsonl", "--kind", "semantic")
    told = words(out)
    assert code == plain == 0 and told[:2] == ["m.db vs. 1 told fact", "figure value"]
    shown = {name: f"{value:,}" if isinstance(value, int) else f"{value:.1%}" for name, value in body.items()}
    assert told[2:] == [f"{name.replace('_', ' ')} {value}" for name, value in shown.items()]
    assert (
        next(iter(body.values())) == 3 and json.loads(cli("memory", "junk", "m.db", "told.jsonl", "--json")[1]) != body
    )


def test_words_of_memory_that_make_no_sense_are_refused(here: Path) -> None:
    for action, given, told in (
        ("burn", ("m",), "action is 'burn': give one of list, show, forget, export, import, junk, then the file"),
        ("list", (), "memory list needs the file of a memory, as in: firsthand memory list facts.db"),
        ("list", ("a", "b"), "memory list takes other words: firsthand memory list FILE"),
        ("show", ("a",), "memory show takes other words: firsthand memory show FILE ID"),
        ("forget", ("a",), "memory forget takes other words: firsthand memory forget FILE ID..."),
        ("import", ("a", "b", "c"), "memory import takes other words: firsthand memory import FILE ITEMS.jsonl"),
        ("junk", ("a",), "memory junk takes other words: firsthand memory junk FILE FACTS.jsonl"),
        ("show", ("a", *"x" * 1000), "memory show takes other words: firsthand memory show FILE ID"),
    ):
        with pytest.raises(ConfigError) as refused:
            memory.Config(action, given)
        assert str(refused.value) == told
    assert len(memory.Config("forget", ("a", *"x" * 999)).words) == 1000
    assert memory.Config("list", ("a",), limit=1).limit == 1
    with pytest.raises(ConfigError, match=r"^limit is 0: give 1 or more$"):
        memory.Config("list", ("a",), limit=0)
    assert shown_time(float("inf")) == ""
