"""The lab of the claims, and what is told of them: the types, the printed tables, the page in HTML and Markdown."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from claims_made import claim_of, closed
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.claims import all_claims, claim_text, claims_page, lab
from firsthand.claims.all_claims import NamedClaim
from firsthand.claims.benchmarks import gpqa_items
from firsthand.claims.claim import SECTIONS, Claim, Measurement, ruling
from firsthand.claims.claim_run import Outcome
from firsthand.claims.lab import Lab, paired
from firsthand.claims.leaderboards import arena_size
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.hub import model_lookup
from firsthand.providers.scripted import Scripted
from firsthand.task import Task
from printed_tables import widen, words


def test_the_seconds_of_a_call_are_the_median_after_one_that_is_not_counted(monkeypatch):
    clock, takes = SimpleNamespace(now=0.0), iter((100.0, 3.0, 1.0, 8.0, 2.0, 4.0))

    def call():
        clock.now += next(takes)

    monkeypatch.setattr(lab, "time", SimpleNamespace(process_time=lambda: clock.now))
    assert lab.seconds(call, 5) == 3.0 and next(takes, None) is None
    takes = iter((100.0, 7.0, 1.0, 9.0, 50.0))
    assert lab.seconds(call) == 7.0 and list(takes) == [50.0]


def test_a_lab_finds_a_model_by_its_name_and_keeps_models_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    assert (Lab().seed, Lab().folder, Lab(5, tmp_path).folder) == (0, tmp_path / "claims", tmp_path)
    monkeypatch.setattr(model_lookup, "locate", lambda name: {"minilm": tmp_path / "m"}.get(name))
    monkeypatch.setattr(lab.catalog, "model", lambda name: f"the model {name}")
    assert (Lab().path("minilm"), Lab().model("minilm")) == (tmp_path / "m", "the model minilm")
    told = "^the model smollm2 is not on this machine: `firsthand models pull smollm2` fetches it$"
    for look in (Lab().path, Lab().model):
        with pytest.raises(DataError, match=told):
            look("smollm2")


def test_no_more_attempts_are_under_way_at_once_than_are_allowed_and_each_has_the_labs_seed():
    under_way, most = [], []

    async def busy(task, ctx):
        under_way.append(task.id)
        most.append(len(under_way))
        await asyncio.sleep(0.002 if task.id == "t1" else 0.001)
        under_way.remove(task.id)
        return task.id

    tasks = [Task(f"t{at}", "q") for at in range(7)]
    drawn = []
    benchmark = Benchmark("b", lambda seed: drawn.append(seed) or tasks, ())
    agent = Agent("a", Scripted([]), busy)
    for more, wanted in (({}, 4), ({"concurrency": 3}, 3), ({"concurrency": 1}, 1)):
        most.clear()
        traces = Lab(6).attempt(agent, benchmark, tasks[1:], **more)
        assert [each.task_id for each in traces] == [f"t{at}" for at in range(1, 7)]
        assert (max(most), {each.seed for each in traces}, {each.benchmark for each in traces}) == (wanted, {6}, {"b"})
    assert [each.task_id for each in Lab(6).attempt(agent, benchmark, (tasks[5], tasks[2]))] == ["t5", "t2"]
    assert drawn == [] and [each.task_id for each in Lab(6).attempt(agent, benchmark, 2)] == ["t0", "t1"]
    assert drawn == [6] and Lab(6).attempt(agent, benchmark, 0) == [] == Lab(6).attempt(agent, benchmark, [])


def test_pairs_are_by_place():
    found = paired([1.0, 0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0, 1.0])
    assert (found.difference, found.n, found.better, found.worse) == (pytest.approx(0.2), 5, 2, 1)


FULL = Measurement(
    1234.5, "tokens", 0.25, 12.0, 3000, "s", ("a|b", "n"), (("r<1", 0.12345), ("r2", None)),
    {"line": ((1.0, 2.0), (2.0, 4.0))}, ("x", "y"),
)  # fmt: skip
RUN = SimpleNamespace(id="R1", about={}, config={})


def outcome(claim, measurement, word, why="so it is"):
    return Outcome(claim, measurement, ruling(word, why), "R1", 1.0)


OUTCOMES = [
    outcome(claim_of("zeta"), FULL, "holds in part"),
    outcome(closed("alpha"), None, "cannot be tested here", "it is hosted"),
    outcome(claim_of("beta"), Measurement(2.0, "count", columns=("n",), rows=((1.0,),) * 41), "holds here"),
    outcome(claim_of("eta", section="llmops"), Measurement(0.5, "share"), "holds in part"),
]


def test_sections_are_printed_with_cost_and_last_verdict_and_their_sum(capsys, monkeypatch):
    widen(monkeypatch, claim_text)
    told = "`firsthand claims NAME` shows one, `firsthand claims run NAME` measures it."
    many = [
        replace(claim_of("zeta"), claim=replace(claim_of("zeta").claim, cost_s=89.6)),
        closed("alpha"),
        claim_of("eta", section="llmops"),
        replace(claim_of("beta"), claim=replace(claim_of("beta").claim, cost_s=0.4)),
    ]
    claim_text.print_sections(many, {"zeta": OUTCOMES[0], "alpha": OUTCOMES[1]})
    assert words(capsys.readouterr().out) == [
        "Seminal Papers (papers)", "claim kind CPU last verdict", "zeta sim 90 s holds in part", "beta sim 0 s not run yet",
        "Safety, Alignment & Interpretability (safety)", "claim kind CPU last verdict", "alpha none - cannot be tested here",
        "LLMOps & Production Engineering (llmops)", "claim kind CPU last verdict", "eta sim 3 s not run yet",
        f"4 claims, 3 testable here in 2 min of CPU. {told}",
    ]  # fmt: skip
    claim_text.print_sections([closed("alpha")], {})
    assert words(capsys.readouterr().out)[2:] == [
        "alpha none - cannot be tested here",
        f"1 claim, 0 testable here in 0 min of CPU. {told}",
    ]


def test_numbers_of_three_digits_become_thousands_where_they_round_to_them():
    shown = {
        999.4: "999", 999.5: "1,000", 999.96: "1,000", -999.7: "-1,000", -999.2: "-999", 99.96: "100", 9.996: "10",
        0.00012345: "0.000123", 1000.4: "1,000", 1234567.8: "1,234,568", -0.5: "-0.5", 1e15: "1,000,000,000,000,000",
    }  # fmt: skip
    assert {value: claim_text.number(value) for value in shown} == shown
    assert claim_text.number(float("-inf")) == "-inf" and claim_text.number(3) == "3"
    assert claim_text.number(1e16) == "10,000,000,000,000,000"
    few = Measurement(0.5, low=0.25, high=1.0, n=1, unit="x")
    assert [claim_text.amount(replace(few, n=n)) for n in (1, 2)] == ["0.5 x [0.25, 1]", "0.5 x [0.25, 1], n = 2"]


def test_totals_are_in_the_order_of_the_verdicts(capsys):
    claim_text.print_totals([*OUTCOMES, outcome(claim_of("x"), None, "does not hold here")])
    assert capsys.readouterr().out == (
        "\n1 holds here, 2 holds in part, 1 does not hold here, 1 cannot be tested here\n"
    )
    claim_text.print_verdict(FULL, ruling("holds here", "[so] it is"))
    claim_text.print_verdict(None, ruling("does not hold here", "no"))
    assert capsys.readouterr().out == (
        "  measured: tokens: 1,234 s [0.25, 12], n = 3,000\n  holds here: [so] it is\n  does not hold here: no\n"
    )


def test_an_entry_of_the_page_has_all_that_is_known_and_forty_rows():
    plot = claims_page._plot(FULL)
    assert [each.name for each in plot.lines] == ["line"] and (plot.x_label, plot.y_label) == ("x", "y")
    assert claims_page._entry(OUTCOMES[0]) == {
        "name": "zeta", "quote": "Q zeta", "source": "S", "kind": "sim", "word": "holds in part", "mark": "holds-in-part",
        "why": "so it is", "measured": "tokens: 1,234 s [0.25, 12], n = 3,000", "columns": ("a|b", "n"),
        "rows": [["r<1", "0.123"], ["r2", "-"]], "plot": plot,
    }  # fmt: skip
    assert claims_page._entry(OUTCOMES[1]) == {
        "name": "alpha", "quote": "Q alpha", "source": "S", "kind": "none", "word": "cannot be tested here",
        "mark": "cannot-be-tested-here", "why": "it is hosted", "measured": "", "columns": (), "rows": [], "plot": None,
    }  # fmt: skip
    assert claims_page._entry(OUTCOMES[2])["rows"] == [["1"]] * 40 and claims_page._plot(Measurement(1.0)) is None
    assert claims_page._facts(RUN) == [("run", "R1, firsthand ?, seed 0"), ("machine", "?, ? cores")]
    assert claims_page._counts(OUTCOMES) == [("holds here", 1), ("holds in part", 2), ("cannot be tested here", 1)]


def test_a_page_has_its_sections_in_the_lists_order_and_a_note_of_each_claim(tmp_path):
    claims_page.write_markdown(tmp_path / "not" / "there" / "p.md", OUTCOMES[::-1], RUN)
    text = (tmp_path / "not" / "there" / "p.md").read_text(encoding="utf-8")
    rows = "\n".join(["| 1 |"] * 40)
    assert text == (
        "# The reading list, measured\n\nrun: R1, firsthand ?, seed 0  \nmachine: ?, ? cores  \n\n"
        "1 holds here; 2 holds in part; 1 cannot be tested here.\n\n"
        "## Seminal Papers\n\n| claim | kind | measured | verdict |\n|---|---|---|---|\n"
        "| [beta](#beta) | sim | 2 | holds here |\n"
        "| [zeta](#zeta) | sim | 1,234 s \\[0.25, 12\\], n = 3,000 | holds in part |\n\n"
        f"### beta\n\n> Q beta\n\nSource: S. Measured (sim): count: **2**. \n\n| n |\n|---|\n"
        f"{rows}\n\n**Holds here.** so it is\n\n"
        "### zeta\n\n> Q zeta\n\nSource: S. Measured (sim): tokens: **1,234 s \\[0.25, 12\\], n = 3,000**. \n\n"
        "| a\\|b | n |\n|---|---|\n| r&lt;1 | 0.123 |\n| r2 | - |\n\n![y by x](p-plots/zeta.svg)\n\n"
        "**Holds in part.** so it is\n\n"
        "## Safety, Alignment & Interpretability\n\n| claim | kind | measured | verdict |\n|---|---|---|---|\n"
        "| [alpha](#alpha) | none | - | cannot be tested here |\n\n"
        "### alpha\n\n> Q alpha\n\nSource: S. \n\n**Cannot be tested here.** it is hosted\n\n"
        "## LLMOps & Production Engineering\n\n| claim | kind | measured | verdict |\n|---|---|---|---|\n"
        "| [eta](#eta) | sim | 0.5 | holds in part |\n\n"
        "### eta\n\n> Q eta\n\nSource: S. Measured (sim): share: **0.5**. \n\n**Holds in part.** so it is\n"
    )
    assert [each.name for each in (tmp_path / "not" / "there" / "p-plots").iterdir()] == ["zeta.svg"]
    claims_page.write_html(tmp_path / "no" / "b" / "p.html", OUTCOMES[::-1], RUN)
    html = (tmp_path / "no" / "b" / "p.html").read_text(encoding="utf-8")
    places = [html.index(each) for each in (
        "<h1>The reading list, tested here</h1>", "run: R1, firsthand ?, seed 0", "machine: ?, ? cores",
        "<b>1</b> holds here, <b>2</b> holds in part, <b>1</b> cannot be tested here",
        "<b>arithmetic</b>: counted or computed",
        "<h2>Seminal Papers</h2>", '<article id="beta">', '<article id="zeta">', "<h2>Safety, Alignment &amp; Interp",
        '<article id="alpha">', "<h2>LLMOps &amp; Production", '<article id="eta">',
    )]  # fmt: skip
    assert places == sorted(places) and html.count("<h2>") == 3 and html.count("<article") == 4


def test_a_measurement_that_was_read_is_plain_if_each_part_is_of_its_type():
    assert FULL.is_plain() and Measurement(1, low=0, high=2, rows=(("a", 3, 0.5, None),)).is_plain()
    assert Measurement(1.0, curves={"a": ((1, 2.0), (None, 3))}).is_plain()
    wrong = {
        "value": "1", "low": "1", "high": "1", "n": 2.5, "what": 1, "unit": None, "columns": ("a", 3), "axes": ("x", None),
        "rows": (("a", 1), (["b"], 2)), "curves": {"line": ((1.0, 2.0), (1.0, "2"))},
    }  # fmt: skip
    for name, value in wrong.items():
        assert not replace(FULL, **{name: value}).is_plain(), name
    body = FULL.to_json()
    assert body["curves"] == {"line": [[1.0, 2.0], [2.0, 4.0]]} and body["axes"] == ["x", "y"] and body["n"] == 3000
    assert Measurement.from_json(body) == FULL and Measurement.from_json(json.loads(json.dumps(body))) == FULL
    odd = Measurement(float("nan"), "w", float("-inf"), float("inf"), curves={"l": ((float("inf"), 1.0),)})
    back = odd.to_json()
    assert (back["value"], back["low"], back["high"], back["curves"]) == (None, None, None, {"l": [[None, 1.0]]})
    assert str(Measurement.from_json(back).value) == "nan" and Measurement(1.0, high=3.0).bounds == (1.0, 3.0)


def test_a_claim_is_loaded_with_its_place_and_one_that_cannot_be_tested_has_no_measure():
    given = all_claims._load("benchmarks", "gpqa_items")
    assert given == NamedClaim("gpqa_items", "benchmarks", gpqa_items.CLAIM, gpqa_items.measure, gpqa_items.judge)
    assert given.cost_s == gpqa_items.CLAIM.cost_s > 0
    shut = all_claims._load("leaderboards", "arena_size")
    assert (shut.name, shut.section, shut.claim, shut.measure) == ("arena_size", "leaderboards", arena_size.CLAIM, None)
    assert shut.judge(Measurement(9.0)) == ("cannot be tested here", arena_size.CLAIM.cannot)
    assert replace(shut, claim=replace(given.claim, cost_s=9.0)).cost_s == 0.0
    for quote, source, kind, cannot in (
        ("", "s", "sim", ""),
        ("q", "s", "none", ""),
        ("q", "s", "sim", "why"),
        ("q", "", "none", "w"),
    ):
        with pytest.raises(ConfigError):
            Claim(quote, source, kind, cannot=cannot)
    assert Claim("q", "s", "none", cannot="w").cannot == "w"
    with pytest.raises(ConfigError) as told:
        Claim("", "s", "sim")
    assert str(told.value) == "a claim has no quote or no source: give the list's words, and the paper or page"
    with pytest.raises(ConfigError) as told:
        Claim("q", "s", "sim", cannot="why")
    assert str(told.value) == "kind is 'sim' and cannot is 'why': a claim of kind none says why"
    with pytest.raises(ConfigError) as told:
        ruling("holds", "why")
    words = "holds here, holds in part, does not hold here, cannot be tested here"
    assert str(told.value) == f"'holds' is no verdict: give one of {words}"
    assert ruling("holds in part", "why") == ("holds in part", "why")


def test_a_cell_is_of_the_first_row_of_that_name_and_the_column_of_that_name():
    table = Measurement(0.0, columns=("name", "one", "two"), rows=(("a", 1.5, "2"), ("b", 3, 4.0), ("a", 9.0, 9.0)))
    cells = [table.cell(row, column) for row in ("a", "b") for column in ("one", "two")]
    assert cells == [1.5, 2.0, 3.0, 4.0] and all(type(each) is float for each in cells)
    with pytest.raises(ValueError, match="not in tuple"):
        table.cell("a", "three")


def test_claims_are_found_by_place_in_the_order_of_the_sections_and_of_their_names(tmp_path, monkeypatch):
    for section, names in {"papers": ("b", "a"), "safety": ("c",), "other": ("d",)}.items():
        (tmp_path / section).mkdir()
        for name in (*names, "__init__", "Zeta"):
            (tmp_path / section / f"{name}.py").write_text("raise AssertionError('not to be loaded')")
        (tmp_path / section / "e.txt").write_text("")
    real = {name: section for section, names in all_claims.claim_names().items() for name in names}
    assert {name: each.section for name, each in all_claims.all_claims().items()} == real
    assert list(all_claims.all_claims()) == list(real) and "gpqa_items" in real
    monkeypatch.setattr(all_claims, "_FOLDER", tmp_path)
    found = all_claims.claim_names()
    assert list(found) == list(SECTIONS) and {key: names for key, names in found.items() if names} == {
        "papers": ["a", "b"], "safety": ["c"],
    }  # fmt: skip
    with pytest.raises(UnknownName) as told:
        all_claims.chosen_claims(["gpqa_items", "safty"])
    assert str(told.value) == "no claim 'safty'; did you mean 'safety'? `firsthand claims` shows all"


def test_a_budget_takes_what_costs_as_much_as_is_left(monkeypatch):
    claims = [
        replace(claim_of(name), claim=replace(claim_of(name).claim, cost_s=cost))
        for name, cost in (("a", 3.0), ("b", 1.0), ("c", 2.0), ("d", 1.5))
    ]
    names = [([each.name for each in kept], [each.name for each in left]) for kept, left in (
        all_claims.fitting(claims, budget) for budget in (None, 7.5, 7.4, 4.5, 4.49, 1.0)
    )]  # fmt: skip
    assert names == [
        (["a", "b", "c", "d"], []), (["a", "b", "c", "d"], []), (["b", "c", "d"], ["a"]), (["b", "c", "d"], ["a"]),
        (["b", "d"], ["a", "c"]), (["b"], ["a", "c", "d"]),
    ]  # fmt: skip
    with pytest.raises(ConfigError) as told:
        all_claims.fitting([*claims, closed("x")], 0.999)
    assert str(told.value) == (
        "budget is 0.999 s: none of the 4 claims fits; the shortest, b, takes 1 s, and all of them 8 s"
    )
    assert all_claims.fitting(iter([]), 1.0) == ([], [])


def test_what_a_run_holds_is_text_in_the_markdown_page(tmp_path):
    mark = "<img src=x onerror=alert(1)> [a](javascript:b) | **c**\n# d"
    curves = {mark: ((0.0, 1.0), (1.0, 2.0))}
    made = Measurement(1.0, mark, unit=mark, columns=(mark,), rows=((mark,),), curves=curves, axes=(mark, mark))
    outcome = Outcome(claim_of("zeta"), made, ruling("holds here", mark), "R1", 1.0)
    run = SimpleNamespace(id=mark, about={"machine": {"system": mark, "cores": mark}, "firsthand": mark}, config={})
    claims_page.write_markdown(tmp_path / "p.md", [outcome], run)
    text = (tmp_path / "p.md").read_text(encoding="utf-8")
    assert "&lt;img" in text and "\\[a\\](javascript" in text
    assert "<" not in text and "\n# d" not in text and "**c" not in text and " [a]" not in text
    assert "![" in text, "the plot is there, and its name is escaped"
