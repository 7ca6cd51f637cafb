"""Claims as they are told: text, JSON, the page and the tables, to the letter; and the lab that measures them."""

import asyncio
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.claims import claims_page, list_tables, position_models
from firsthand.claims.all_claims import NamedClaim, all_claims, chosen_claims, claim_names, fitting
from firsthand.claims.claim import Claim, Measurement, ruling
from firsthand.claims.claim_run import Outcome, claims_benchmark, claims_experiment, verdict, verdict_of
from firsthand.claims.claim_text import (
    amount,
    claim_json,
    number,
    print_claim,
    print_outcome,
    print_plan,
    print_sections,
    print_totals,
)
from firsthand.claims.fact_language import IDS, changed, encoded, facts_of, people, question, sentence, write_documents
from firsthand.claims.lab import Lab, paired, seconds
from firsthand.claims.live_bytes import peak_bytes
from firsthand.claims.made_up_pages import page_index, page_questions
from firsthand.claims.rows_at_hand import rows_at_hand
from firsthand.claims.scripted_costs import cost_verdict, level
from firsthand.claims.small_decoders import random_ids, small_decoder
from firsthand.claims.toy_training import agent_of, trained
from firsthand.errors import ConfigError, DataError
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.stats.intervals import Interval
from firsthand.task import Task
from firsthand.trace import Failure, Score, Trace


def judged(m):
    return ruling("holds here" if m.value > 1 else "does not hold here", f"it is {m.value:g}")


def claim_of(name="c1", section="papers", cost=3.0, measure=lambda lab: Measurement(2.0), **more):
    about = Claim("A | quote", "Source 1", "sim", cost, **{"needs": ("model m",), **more})
    return NamedClaim(name, section, about, measure, judged)


FULL = Measurement(
    1234.5, "tokens", 0.25, 12.0, 3000, "s", ("a|b", "n"), (("r<1", 0.12345), ("r2", math.nan)),
    {"line": ((1.0, 2.0), (2.0, 4.0))}, ("x", "y"),
)  # fmt: skip
OPEN = replace(claim_of("c2", "safety", measure=None), claim=Claim("Q2", "S2", "none", cannot="it is hosted"))


def test_numbers_are_whole_with_thousands_or_have_three_digits():
    for value, text in {
        0.0: "0", 12.0: "12", 1_234_567.0: "1,234,567", -3.0: "-3", 0.12345: "0.123", 999.4: "999", 1234.5: "1,234",
        -1500.6: "-1,501", math.nan: "-", math.inf: "inf", 1e15: "1,000,000,000,000,000", 12.345: "12.3",
    }.items():  # fmt: skip
        assert number(value) == text, value
    assert amount(FULL) == "1,234 s [0.25, 12], n = 3,000" and amount(Measurement(2.0)) == "2"
    assert (
        amount(Measurement(2.0, low=1.0)) == "2" and amount(Measurement(2.0, high=3.0, n=2, unit="%")) == "2 %, n = 2"
    )


def test_a_claim_a_plan_and_an_outcome_are_printed(capsys):
    last = Outcome(claim_of(), FULL, judged(FULL), "RUN", 1.5)
    print_claim(claim_of(), None)
    print_claim(claim_of(), last)
    print_claim(OPEN, None)
    head = '\nc1 (Seminal Papers)\n  "A | quote"\n'
    head += "  source: Source 1; measured on: a simulated or scripted model of known skill\n"
    head += "  needs: model m\n"
    told = "  measured: tokens: 1,234 s [0.25, 12], n = 3,000\n  holds here: it is 1234.5\n"
    assert capsys.readouterr().out == (
        f"{head}  not run yet: `firsthand claims run c1` takes about 3 s\n{head}{told}"
        '\nc2 (Safety, Alignment & Interpretability)\n  "Q2"\n  source: S2; measured on: nothing was run\n'
        "  cannot be tested here: it is hosted\n"
    )
    print_plan(
        [claim_of(cost=3.4), claim_of("c3", cost=2.0), OPEN], [claim_of("c4", cost=7.0), claim_of("c5", cost=8.0)]
    )
    print_plan([claim_of()], [])
    assert capsys.readouterr().out == (
        "2 claims to measure, about 5 s of CPU; 1 cannot be tested here\nOutside the budget: c4 (7 s), c5 (8 s)\n"
        "1 claim to measure, about 3 s of CPU\n"
    )
    print_outcome(claim_of(), None, judged(Measurement(0.5)))
    print_totals([last, last, replace(last, verdict=ruling("holds in part", ""))])
    assert capsys.readouterr().out == (
        '\nc1 [sim]\n  "A | quote" (Source 1)\n  does not hold here: it is 0.5\n\n2 holds here, 1 holds in part\n'
    )
    print_sections([claim_of(cost=90.0), OPEN, claim_of("c3", cost=61.0)], {"c1": last})
    out = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert (
        "c1 sim 90 s holds here" in rows
        and "c3 sim 61 s not run yet" in rows
        and "c2 none - cannot be tested here" in rows
    )
    assert "3 claims, 2 testable here in 3 min of CPU." in " ".join(rows) and "Seminal Papers (papers)" in rows
    assert "Benchmarks Explained" not in out


def test_a_claim_and_its_outcome_as_json():
    last = Outcome(claim_of(), None, ruling("holds in part", "w"), "RUN", None)
    assert claim_json(claim_of(), last) == {
        "claim": "c1", "section": "papers", "quote": "A | quote", "source": "Source 1", "kind": "sim", "cost_s": 3.0,
        "needs": ["model m"], "cannot": None,
        "last": {
            "claim": "c1", "section": "papers", "quote": "A | quote", "source": "Source 1", "kind": "sim",
            "verdict": "holds in part", "why": "w", "measurement": None, "run": "RUN", "cpu_s": None,
        },
    }  # fmt: skip
    assert claim_json(OPEN, None)["cannot"] == "it is hosted" and claim_json(OPEN, None)["cost_s"] == 0.0
    body = FULL.to_json()
    assert body["rows"] == [["r<1", 0.12345], ["r2", None]] and body["curves"] == {"line": [[1.0, 2.0], [2.0, 4.0]]}
    assert replace(last, measurement=FULL, cpu_s=2.5).to_json()["measurement"] == body
    assert FULL.is_plain() and not replace(FULL, n="3").is_plain() and not replace(FULL, columns=(1,)).is_plain()
    assert FULL.cell("r<1", "n") == 0.12345 and Measurement(1.0, low=0.5).bounds == (0.5, 1.0)


def trace_of(name, answer="", error=None):
    return Trace("1", "claims", name, {"name": "measured"}, 0, 0, "", 0.0, answer=answer, error=error)


def test_a_verdict_is_a_score_and_an_open_claim_is_none():
    name = "gpt3_window"
    task = Task(name, "q")
    measured = json.dumps(Measurement(2048.0).to_json())
    assert verdict(task, trace_of(name, measured)) == Score(
        "verdict", 0.0, {"verdict": "does not hold here", "why": all_claims()[name].judge(Measurement(2048.0)).why}
    )
    held = verdict(task, trace_of(name, json.dumps(Measurement(4096.0).to_json())))
    assert (held.value, held.failed) == (1.0, False)
    open_claim = verdict(Task("arena_size", "q"), trace_of("arena_size", "null"))
    why = all_claims()["arena_size"].claim.cannot
    assert open_claim == Score(
        "verdict",
        0.0,
        {"verdict": "cannot be tested here", "why": why},
        failure=f"cannot be tested here: {why}",
        unjudged=True,
    )
    claim = all_claims()[name]
    bug, user = Failure("KeyError", "'x'", "Traceback ..."), Failure("DataError", "no model")
    assert verdict_of(claim, trace_of(name, error=bug))[1].why == "the measurement has a fault, KeyError: 'x'"
    assert verdict_of(claim, trace_of(name, error=user)) == (None, ruling("cannot be tested here", "no model"))
    for given in (Measurement(math.nan), Measurement(4096.0, low=4097.0, high=4000.0)):
        said = verdict_of(claim, trace_of(name, json.dumps(given.to_json())))[1]
        assert said == ruling("cannot be tested here", given.fault), "no verdict follows from what is no number"
    benchmark = claims_benchmark([claim_of(), OPEN])
    assert [(t.id, t.prompt, dict(t.metadata)) for t in benchmark.tasks(0)] == [
        ("c1", "A | quote", {"source": "Source 1", "kind": "sim", "stratum": "papers"}),
        ("c2", "Q2", {"source": "S2", "kind": "none", "stratum": "safety"}),
    ]
    made = claims_experiment([claim_of()], 7)
    assert made.agents[0].options == {"seed": 7} and made.seed == 7 and made.name == "claims" and made.concurrency == 1


def test_claims_are_chosen_in_the_lists_order_and_fit_a_budget_by_their_cost():
    names = claim_names()
    assert list(names)[:2] == ["papers", "architecture"] and names["papers"] == sorted(names["papers"])
    chosen = [each.name for each in chosen_claims(["safety", "gpt3_window", "cot_reasoning"])]
    assert chosen == ["cot_reasoning", "gpt3_window", *names["safety"]]
    costs = [claim_of("a", cost=5.0), claim_of("b", cost=2.0), claim_of("c", cost=3.0), replace(OPEN, name="d")]
    kept, left = fitting(costs, 5.0)
    assert ([each.name for each in kept], [each.name for each in left]) == (["b", "c", "d"], ["a"])
    assert [each.name for each in fitting(costs, 4.99)[0]] == ["b", "d"]
    with pytest.raises(
        ConfigError, match=r"budget is 1 s: none of the 3 claims fits; the shortest, b, takes 2 s, and all of them 10 s"
    ):
        fitting(costs, 1.0)
    assert fitting([OPEN], 0.5) == ([OPEN], [])


RUN = SimpleNamespace(
    id="R1", about={"machine": {"system": "Linux", "cores": 2}, "firsthand": "0.15"}, config={"seed": 3}
)


def test_the_page_in_markdown_has_a_table_an_entry_and_a_plot_for_each_claim(tmp_path):
    outcomes = [
        Outcome(claim_of(), FULL, ruling("holds here", "so it is"), "R1", 1.0),
        Outcome(OPEN, None, ruling("cannot be tested here", "it is hosted"), "R1", None),
        Outcome(claim_of("c3"), Measurement(2.0, "count", columns=("n",), rows=((1.0,),) * 41), ruling("holds here",
        "x"), "R1", 1.0),
    ]  # fmt: skip
    claims_page.write_markdown(tmp_path / "out" / "page.md", outcomes, RUN)
    text = (tmp_path / "out" / "page.md").read_text()
    assert text.startswith(
        "# The reading list, measured\n\nrun: R1, firsthand 0.15, seed 3  \nmachine: Linux, 2 cores  \n\n"
        "2 holds here; 1 cannot be tested here.\n\n## Seminal Papers\n\n| claim | kind | measured | verdict "
        "|\n|---|---|---|---|\n"
        "| [c1](#c1) | sim | 1,234 s \\[0.25, 12\\], n = 3,000 | holds here |\n| [c3](#c3) | sim | 2 | holds here |\n\n"
        "### c1\n\n> A | quote\n\nSource: Source 1. Measured (sim): tokens: **1,234 s \\[0.25, 12\\], n = 3,000**. \n\n"
        "| a\\|b | n |\n|---|---|\n| r&lt;1 | 0.123 |\n"
    )
    assert "\n![y by x](page-plots/c1.svg)\n\n**Holds here.** so it is\n" in text and text.count("\n| 1 |") == 40
    assert text.endswith("### c2\n\n> Q2\n\nSource: S2. \n\n**Cannot be tested here.** it is hosted\n")
    assert "| [c2](#c2) | none | - | cannot be tested here |" in text
    assert [each.name for each in (tmp_path / "out" / "page-plots").iterdir()] == ["c1.svg"]
    claims_page.write_markdown(tmp_path / "two" / "deep" / "page.md", outcomes[1:], RUN)
    assert [each.name for each in (tmp_path / "two" / "deep").iterdir()] == ["page.md"], "without a plot"
    claims_page.write_markdown(tmp_path / "two" / "deep" / "page.md", outcomes[1:2], RUN)
    again = (tmp_path / "two" / "deep" / "page.md").read_text()
    assert "1 cannot be tested here.\n\n## " in again and again.count("\n## ") == 1 and "c3" not in again
    claims_page.write_html(tmp_path / "html" / "page.html", outcomes, RUN)
    html = (tmp_path / "html" / "page.html").read_text()
    assert (
        "holds-here" in html and "tokens: 1,234 s [0.25, 12], n = 3,000" in html and html.index("c1") < html.index("c2")
    )
    entry = claims_page._entry(outcomes[0])
    assert (entry["mark"], entry["rows"][0], entry["columns"]) == ("holds-here", ["r<1", "0.123"], ("a|b", "n"))


def test_the_table_of_patterns_shows_accuracy_gain_tokens_and_errors():
    row = list_tables.PATTERN_ROWS[1]
    measured = list_tables.MeasuredRow(
        row,
        Interval(0.5, 0.25, 0.75, 8),
        replace(paired([1.0, 0.0], [0.0, 0.0]), difference=-0.125, low=-0.5, high=0.25),
        12.34,
        2.06,
        3,
    )
    table = list_tables.PatternTable("R", Interval(0.625, 0.5, 0.7, 8), (measured, replace(measured, errors=0)))
    assert table.cells() == [
        ("(direct)", "-", "-", "0.62 [0.50, 0.70]", "-", "1.0", "1.0"),
        ("ReAct", "4B+", "Medium", "0.50 [0.25, 0.75], 3 errors", "-0.12 [-0.50, +0.25]", "12.3", "2.1"),
        ("ReAct", "4B+", "Medium", "0.50 [0.25, 0.75]", "-0.12 [-0.50, +0.25]", "12.3", "2.1"),
    ]
    assert table.to_json()["rows"][0] == {
        "row": "ReAct", "pattern": "react", "smallest_by_list": "4B+", "cost_by_list": "Medium", "accuracy": 0.5,
        "accuracy_low": 0.25, "accuracy_high": 0.75, "gain": -0.125, "gain_low": -0.5, "gain_high": 0.25,
        "times_tokens": 12.34,
        "calls": 2.06, "errors": 3,
    }  # fmt: skip
    assert (table.to_json()["run"], table.to_json()["direct"]) == ("R", 0.625)


def test_levels_of_cost_end_at_4_and_20_times():
    assert [level(each) for each in (4.0, 4.01, 20.0, 20.01)] == ["Low", "Medium", "Medium", "High"]
    words = {said: cost_verdict(4.0, said).word for said in ("Low", "Medium", "High")}
    assert words == {"Low": "holds here", "Medium": "holds in part", "High": "does not hold here"}
    assert cost_verdict(21.04, "Medium").why == "high rather than medium: 21.0 times the tokens of a plain answer"
    assert cost_verdict(5.0, "Medium").why == "medium by structure: 5.0 times the tokens of a plain answer"


def test_the_lab_attempts_tasks_in_order_by_its_seed_and_names_a_missing_model(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    benchmark = Benchmark("b", lambda seed: tuple(Task(f"t{n}", f"q{seed}{n}") for n in range(4)), ())

    async def slow_first(task, ctx):
        await asyncio.sleep(0.02 if task.id == "t0" else 0)
        return (await ctx.say(task.prompt).generate()).text

    agent = Agent("a", Scripted(lambda m, s, i: m[-1].text), slow_first)
    traces = Lab(7, tmp_path).attempt(agent, benchmark, 3, concurrency=2)
    assert [(trace.task_id, trace.answer, trace.benchmark) for trace in traces] == [
        (f"t{n}", f"q7{n}", "b") for n in range(3)
    ]
    assert len({trace.seed for trace in traces}) == 1 and traces[0].seed == 7
    own = Lab(7, tmp_path).attempt(agent, benchmark, [Task("x", "own")])
    assert [trace.answer for trace in own] == ["own"]
    for ask in (Lab().path, Lab().model):
        with pytest.raises(
            DataError, match="the model smollm2 is not on this machine: `firsthand models pull smollm2` fetches it"
        ):
            ask("smollm2")
    gain = paired([1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0])
    assert gain.difference == 0.5 and gain.low < 0.5 < gain.high and paired([0.0], [1.0]).difference == -1.0
    calls = []
    assert seconds(lambda: calls.append(1), repeats=5) >= 0 and len(calls) == 6


def test_rows_are_counted_where_the_first_file_is_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    assert rows_at_hand(lambda: SimpleNamespace(rows=[1]), "a/x.csv", "b/y.csv") is None
    (tmp_path / "y.csv").write_text("x")
    assert rows_at_hand(lambda: SimpleNamespace(rows=[1, 2, 3]), "a/x.csv", "b/y.csv") == 3


def test_pages_and_questions_are_those_of_the_seed(tmp_path):
    first, again, other = (page_questions(seed, 5).tasks(0) for seed in (1, 1, 2))
    assert (
        first == again != other
        and len(first) == 5
        and page_questions(1, 3, hops=2).tasks(9) != page_questions(1, 3).tasks(9)
    )
    path = page_index(Lab(1, tmp_path / "lab"))
    assert path == tmp_path / "lab" / "pages-1.index" and page_index(Lab(1, tmp_path / "lab")) == path
    assert [each.name for each in path.parent.glob("*.index")] == ["pages-1.index"]


def test_facts_are_drawn_by_their_seed_and_written_once(tmp_path):
    from random import Random

    persons = people(8, 3)
    assert persons == people(8, 3) != people(8, 4) and len(set(persons)) == 8
    facts = facts_of(persons, Random(1))
    assert len(facts) == 32 and all(len({facts[p, r] for q, r in facts if q == p}) == 4 for p in persons)
    assert changed(facts, 0.0, Random(1)) == facts and changed(facts, 0.25, Random(1)) != facts
    moved = {p for (p, r), value in changed(facts, 0.25, Random(1)).items() if value != facts[p, r]}
    assert len(moved) == 2 and facts == facts_of(persons, Random(1))
    assert sentence(("a", "b"), "eats", "x") == "a b eats x ." and question(("a", "b"), "eats") == "? a b eats"
    assert encoded("? . so !") == [5, 6, 7, 8] == [IDS[each] for each in ("?", ".", "so", "!")] and IDS[""] == 0
    write_documents(tmp_path / "d", facts)
    (person, relation), value = next(iter(facts.items()))
    file = tmp_path / "d" / f"{person[0]}-{person[1]}-{relation}.txt"
    assert file.read_text() == sentence(person, relation, value) + "\n" and len(list((tmp_path / "d").iterdir())) == 32
    before = file.stat().st_mtime_ns
    write_documents(tmp_path / "d", facts)
    assert file.stat().st_mtime_ns == before


def test_texts_follow_from_two_places_before_and_losses_are_of_the_last_tokens():
    from random import Random

    found = position_models.texts(Random(3), 400, 2)
    table = list(range(64))
    Random(7).shuffle(table)
    follows = [text[at] == table[text[at - 2]] for text in found for at in range(2, 400)]
    assert [len(text) for text in found] == [400, 400] and 0.87 < sum(follows) / len(follows) < 0.95
    assert position_models.texts(Random(3), 2, 1)[0] == found[0][:2]
    model = small_decoder(1, std=0.3, vocab_size=64, num_kv_heads=4)
    batch = position_models.texts(Random("5-12"), 12, 2)
    rows = []
    for text in batch:
        from firsthand.nn.blocks.attention import Packed

        with torch.inference_mode():
            logits = model.logits(model(torch.tensor(text), torch.arange(12), Packed([12])))
        rows.append(torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(text[1:]), reduction="none")[-8:])
    expected = float(torch.stack(rows).mean())
    assert position_models.loss_by_length(model, (12,), seed=5, count=2) == {12: pytest.approx(expected, rel=1e-5)}


def test_bytes_are_counted_while_tensors_live():
    def grows():
        a = torch.ones(1000)
        b = a + 1
        del a
        return b[:10] * 2

    assert (
        peak_bytes(grows) == 8000
        and peak_bytes(lambda: torch.ones(10).view(2, 5)) == 40
        and peak_bytes(lambda: None) == 0
    )
    assert random_ids(5, 3).tolist() == random_ids(5, 3).tolist() != random_ids(5, 4).tolist()
    assert (
        int(random_ids(2_000, 1, vocab=7).max()) == 6
        and small_decoder(0, num_layers=3).architecture.windows == (None,) * 3
    )


def test_a_recipe_is_run_once_a_seed_with_the_seed_of_the_lab(tmp_path):
    lab = Lab(3, tmp_path)
    folder = trained(lab, "toy_writer", "w", steps=1, warmup_steps=0, batch_size=2)
    loop = json.loads((folder / "recipe.json").read_text())["settings"]["loop"]
    assert folder == tmp_path / "w-3" and (loop["seed"], loop["steps"], loop["checkpoint_every"]) == (3, 1, 0)
    written = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    assert trained(lab, "toy_writer", "w", steps=1) == folder and [each.name for each in tmp_path.iterdir()] == ["w-3"]
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == written
    agent = agent_of(folder, "cot:shots=0", temperature=0.5, max_tokens=7)
    assert (agent.sampling.temperature, agent.sampling.max_tokens, agent.name) == (0.5, 7, "cot:shots=0")
    assert agent_of(folder, "direct").pattern is direct and agent_of(folder, "direct").sampling.max_tokens == 24
