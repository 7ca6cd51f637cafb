"""What commands do a second time: claims that are resumed, battles that are asked again, memories that are kept."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.arena.blind_reasks import REASK
from firsthand.claims.all_claims import NamedClaim, all_claims, chosen_claims
from firsthand.claims.claim import Measurement
from firsthand.claims.claim_run import claims_experiment
from firsthand.commands import arena, claims_run, memory
from firsthand.errors import ConfigError
from firsthand.runs import store
from printed_tables import widen, words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    widen(monkeypatch)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


# -- claims --


@pytest.mark.slow
def test_a_resumed_run_names_failed_claims_only_where_they_are_measured_again(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("gpqa_items", "gpt3_window", "fp32_70b_memory")
    asked: list[str] = []
    for name in names:
        known = all_claims()[name]

        def measure(lab: Any, name: str = name, known: NamedClaim = known) -> Measurement:
            asked.append(name)
            if name == "gpt3_window" and asked.count(name) == 1:
                raise ConfigError("not here yet")
            assert known.measure is not None
            return known.measure(lab)

        monkeypatch.setitem(all_claims(), name, NamedClaim(**{**vars(known), "measure": measure}))
    claims = chosen_claims(names)
    with claims_experiment(claims, 3).create() as run:
        first = claims_experiment([each for each in claims if each.name != "fp32_70b_memory"], 3)
        run.add_tasks("claims", [place.task for place in claims_experiment(claims, 3).places()])
        with first.run() as done:
            for trace in done.traces():
                run.append(trace)
        id = run.id
    asked.clear()
    asked.append("gpt3_window")
    assert claims_run.run(claims_run.Config(resume=id)) == 0
    told = capsys.readouterr().out
    assert "1 claim to measure" in told and asked == ["gpt3_window", "fp32_70b_memory"]
    assert claims_run.run(claims_run.Config(resume=id, retry_errors=True)) == 0
    told = capsys.readouterr().out
    assert "1 claim to measure" in told and asked == ["gpt3_window", "fp32_70b_memory", "gpt3_window"]
    assert f"run {id}; page {home}/runs/{id}/claims.html" in told and (home / "runs" / id / "claims.html").is_file()
    assert (
        claims_run.run(claims_run.Config(resume=id, retry_errors=True, json=True, page="p/c.html", markdown="c.md"))
        == 0
    )
    body = json.loads(capsys.readouterr().out)
    assert body["run"] == id and {each["claim"] for each in body["claims"]} == {*names} and Path("p/c.html").is_file()
    assert len(asked) == 3 and Path("c.md").is_file()
    (Path("file")).touch()
    for given in ({"page": "file/x.html"}, {"markdown": "p"}):
        with pytest.raises(ConfigError, match="give a file, in a folder that exists or can be made"):
            claims_run.Config(names, **given)


# -- the arena --


@pytest.fixture
def battle(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    for name in ("one", "two", "six"):
        Path(f"{name}.json").write_text(json.dumps({"": f"the {name} answer"}))
    Path("prompts.txt").write_text("".join(f"question {n}?\n" for n in range(8)))

    def run(typed: str, *options: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        return cli("arena", "scripted:one.json", "scripted:two.json", *options)

    return run


def test_each_battle_draws_its_own_pair_and_sides(battle: Callable[..., tuple[int, str, str]], home: Path) -> None:
    code, out, _ = battle("s\n" * 8, "scripted:six.json", "--prompts", "prompts.txt", "--seed", "1")
    shown = re.findall(r"A was (\S+), B was (\S+)\.", out)
    assert code == 0 and len(shown) == 8 and len(set(shown)) > 3
    again = battle("s\n" * 8, "scripted:six.json", "--prompts", "prompts.txt", "--seed", "1")[1]
    assert re.findall(r"A was (\S+), B was (\S+)\.", again) == shown
    assert "No vote was given; the answers are kept in run " in out and "0 votes: too few to rate every model." in out
    with store.open_run("last", home) as run:
        assert len(list(run.traces())) == 16 and run.config["arena"]["seed"] == 1


def test_a_battle_is_asked_again_with_its_sides_exchanged(
    battle: Callable[..., tuple[int, str, str]], home: Path
) -> None:
    options = ("--prompts", "prompts.txt", "--reask", "0.99", "--voter", "ada", "--seed", "2")
    code, out, _ = battle("a\n" * 6 + "t\nx\nn\nq\n", *options)
    assert code == 0 and out.count("the one answer") == 9, (
        "six battles, one again, one more, and the one that was ended at"
    )
    with store.open_run("last", home) as run:
        votes = run.preferences()
        assert {each.by for each in votes} == {"human:ada"}
        assert [each.winner for each in votes] == ["a"] * 6 + ["tie", "both_bad"]
        (again,) = [each for each in votes if (each.detail or {}).get(REASK)]
        assert again is votes[6] and (again.a, again.b, again.task_id) == (votes[0].b, votes[0].a, votes[0].task_id)
    assert "1 battle asked again: 0% equal verdicts, kappa 0.00." in out
    assert "7 votes kept in run" in out, "a battle that comes again is not counted"
    code, out, _ = battle("q\n", "--continue", "last", "--prompts", "prompts.txt", "--reask", "0.99", "--voter", "ada")
    assert code == 0 and "No vote was given" in out, "who ends at an earlier battle ends the session"


def test_a_judge_votes_in_place_of_a_person(battle: Callable[..., tuple[int, str, str]], home: Path) -> None:
    Path("judge.json").write_text(json.dumps({"": "[[A]]"}))
    code, out, err = battle("", "--prompts", "prompts.txt", "--judge", "scripted:judge.json", "--battles", "2")
    assert code == 0, err
    with store.open_run("last", home) as run:
        assert len(run.preferences()) <= 2 and len(list(run.traces())) >= 4
    for line, told in (
        (("--reask", "1"), "reask is 1.0"),
        (("--judge", "x"), "judge votes on prompts from a file"),
        (("--battles=-1",), "battles is -1"),
        (("scripted:one.json",), "name two or more different ones"),
        (("--prompts", "no.txt"), "cannot be read"),
    ):
        code, _, err = battle("", *line)
        assert code == 2 and told in err
    Path("blank.txt").write_text(" \n\n")
    assert "has no prompts: write one on each line" in battle("", "--prompts", "blank.txt")[2]
    code, out, _ = battle("\n")
    assert code == 0 and "Nothing was asked, so nothing is kept." in out
    assert arena.KEYS["n"] == "both_bad"


# -- a memory's file --


@pytest.mark.slow
def test_items_of_a_memory_are_imported_listed_shown_exported_and_forgotten(cli: Cli) -> None:
    rows = [
        {"text": "Ann lives in Oslo.", "kind": "semantic", "owner": "ann", "provenance": {"source": "a"}},
        {"text": "Bo likes tea.\nMuch.", "kind": "semantic", "owner": "bo"},
        {"text": "Ann met Bo.", "kind": "episodic", "owner": "ann"},
    ]
    Path("in.jsonl").write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    assert cli("memory", "import", "m.db", "in.jsonl")[1] == "imported 3 new items\n"
    assert cli("memory", "import", "m.db", "in.jsonl")[1] == "imported 0 new items\n"
    told = words(cli("memory", "list", "m.db")[1])
    assert told[:2] == ["m.db", "owner kind items bytes"] and sorted(line.rsplit(" ", 1)[0] for line in told[2:5]) == [
        "ann episodic 1",
        "ann semantic 1",
        "bo semantic 1",
    ]
    assert told[5:7] == ["3 items", "id owner time text"] and sum("Bo likes tea. Much." in line for line in told) == 1
    body = json.loads(cli("memory", "list", "m.db", "--owner", "ann", "--kind", "semantic", "--json")[1])
    [item] = body["items"]
    assert (item["owner"], item["kind"], item["text"], item["provenance"]["source"]) == (
        "ann",
        "semantic",
        "Ann lives in Oslo.",
        "a",
    )
    assert len(body["scopes"]) == 3 and {each["items"] for each in body["scopes"]} == {1}
    asked = json.loads(
        cli("memory", "list", "m.db", "--query", "tea", "--limit", "1", "--kind", "semantic", "--json")[1]
    )
    assert "Bo likes tea.\nMuch." in [each["text"] for each in asked["items"]]
    assert json.loads(cli("memory", "show", "m.db", item["id"])[1]) == item
    code, out, err = cli("memory", "export", "m.db", "--owner", "ann")
    assert code == 0 and [json.loads(line)["text"] for line in out.splitlines()] == sorted(
        ["Ann met Bo.", "Ann lives in Oslo."], reverse=True
    )
    assert err == "exported 2 items\n"
    assert (
        cli("memory", "export", "m.db", "--out", "out.jsonl")[2] == "exported 3 items\n"
        and len(Path("out.jsonl").read_text().splitlines()) == 3
    )
    assert (
        cli("memory", "forget", "m.db", item["id"])[1] == "forgot 1 item\n"
        and cli("memory", "export", "m.db")[2] == "exported 2 items\n"
    )
    code, _, err = cli("memory", "show", "m.db", item["id"])
    assert code == 2 and f"no item '{item['id']}' in m.db: `firsthand memory list m.db` shows all" in err
    Path("told.jsonl").write_text(json.dumps({"text": "Bo likes tea.\nMuch."}) + "\n")
    told = words(cli("memory", "junk", "m.db", "told.jsonl")[1])
    assert told[:2] == ["m.db vs. 1 told fact", "figure value"] and json.loads(
        cli("memory", "junk", "m.db", "told.jsonl", "--json")[1]
    )
    for lines, said in (
        ('{"text": 3, "kind": "semantic"}', "line 1: text, provenance (an object) and kind"),
        ('{"text": "a"}', "line 1: text, provenance"),
        ('\n{"text": "a", "kind": "x.py:f"}', "line 2: the kind is 'x.py:f'"),
        ("[]", "line 1: a JSON object was expected"),
    ):
        Path("bad.jsonl").write_text(lines)
        code, _, err = cli("memory", "import", "new.db", "bad.jsonl")
        assert code in (1, 2) and said in err and not list(Path().glob("new.db*")), (
            "an import that failed leaves nothing"
        )
    Path("bad.jsonl").write_text('{"text": "a"}')
    assert (
        cli("memory", "import", "new.db", "bad.jsonl", "--kind", "semantic", "--owner", "cy")[1]
        == "imported 1 new item\n"
    )
    assert json.loads(cli("memory", "list", "new.db", "--json")[1])["scopes"][0]["owner"] == "cy"
    for line, said in (
        ("look m.db", "action is 'look'"),
        ("list", "needs the file of a memory"),
        ("list m.db x", "takes other words"),
        ("show m.db", "FILE ID"),
        ("import m.db", "FILE ITEMS.jsonl"),
        ("junk m.db a b", "FILE FACTS.jsonl"),
        ("list m.db --limit 0", "limit is 0"),
    ):
        code, _, err = cli("memory", *line.split())
        assert code == 2 and said in err
    assert memory.Config("list", ("m.db",)).limit == 50
