"""What `summary`, `runs`, `power` and `tokens` ask of their parts, and what becomes of the replies."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import power, quickstart, runs, summary, tokens
from firsthand.errors import ConfigError, StoreError
from firsthand.stats.comparison_design import Design
from printed_tables import widen, words


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    widen(monkeypatch, summary, runs, power, tokens)


def test_a_summary_is_asked_by_its_flags_and_told_benchmark_by_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    run = SimpleNamespace(
        id="r",
        benchmarks=lambda: [],
        protocols={"sums": "5-shot"},
        info=SimpleNamespace(num_planned=None, num_traces=0),
    )

    @contextmanager
    def opened(ref: str, home: Any) -> Iterator[Any]:
        asked.append(ref)
        yield run
        asked.append("closed")

    def line(benchmark: str, agent: str) -> Any:
        return SimpleNamespace(benchmark=benchmark, agent=agent, to_json=lambda: {"agent": agent, "protocol": "own"})

    lines = [line("sums", "ada"), line("words", "ada"), line("sums", "bob")]
    monkeypatch.setattr(summary.store, "open_run", opened)
    monkeypatch.setattr(summary, "own_figures", lambda told, given: "own" if given is run else None)
    monkeypatch.setattr(summary, "summary", lambda *given, **more: asked.append((given, more)) or lines)
    config = summary.Config("r", confidence="90%", score="s", strata="k", reduce="max", json=True)
    assert summary.main(config) == 0
    assert asked == ["r", ((run, 0.9, "own"), {"score": "s", "strata": "k", "reduce": "max"}), "closed"]
    assert json.loads(capsys.readouterr().out) == [
        {"agent": agent, "protocol": protocol, "unmade": 0, "run_unmade": 0}
        for agent, protocol in (("ada", "5-shot"), ("ada", ""), ("bob", "5-shot"))
    ]  # fmt: skip
    told: list[Any] = []
    monkeypatch.setattr(
        summary, "print_lines", lambda name, of, level: told.append((name, [each.agent for each in of], level))
    )
    monkeypatch.setattr(summary, "print_protocols", told.append)
    assert summary.main(summary.Config("r", confidence="99%")) == 0
    assert told == [("sums", ["ada", "bob"], "99%"), ("words", ["ada"], "99%"), run.protocols]
    monkeypatch.setattr(summary, "print_cells", lambda *given: told.append(given) or 9)
    cells = summary.Config("r", by=("a",), confidence="80%")
    assert summary.main(cells) == 9 and told[-1] == (cells, 0.8)


def test_words_of_runs_go_to_the_list_the_attempts_the_check_or_the_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def told(name: str, code: int) -> Any:
        return lambda *given: asked.append((name, *given)) or code

    for name, code in (("check_runs", 2), ("prune", 3), ("list_attempts", 4), ("list_all", 5)):
        monkeypatch.setattr(runs, name, told(name, code))
    monkeypatch.setattr(runs, "run_ids", lambda home: ["a", "b"])
    configs = [
        runs.Config(check=True),
        runs.Config("r", check=True),
        runs.Config("r", prune=True),
        runs.Config("r"),
        runs.Config(),
    ]
    assert [runs.main(config) for config in configs] == [2, 2, 3, 4, 5]
    assert asked == [
        ("check_runs", ["a", "b"]), ("check_runs", ["r"]), ("prune", configs[2]), ("list_attempts", "r", configs[3]),
        ("list_all", configs[4]),
    ]  # fmt: skip


def test_plans_from_stated_variances_have_them_as_variances_and_as_words() -> None:
    levels = {"confidence": 0.9, "power": 0.7}
    flags: dict[str, Any] = {"confidence": "90%", "power": "70%"}
    [plan] = power.plans(power.Config(between_sd=0.3, within_sd=0.4, tasks=50, **flags))
    assert plan == ("two agents", Design(pytest.approx(0.09), (pytest.approx(0.16), pytest.approx(0.16)), None,
                                         "sd 0.3 between tasks, 0.4 within", **levels), 50)  # fmt: skip
    [plan] = power.plans(power.Config(disagreement="12.5%", effect="12.5%", **flags))
    assert plan == ("two 0/1 scores", Design(0.125, None, 0.125, "disagreeing on 12.5%", **levels), None)
    for given, said in (
        ({"disagreement": "0%"}, "disagreement is '0%': give a share above 0, such as 15%"),
        ({"disagreement": "12.4%", "effect": "12.5%"}, "disagreement is 12.4% and effect 12.5%: two 0/1 scores differ by "
         "no more than the share of tasks on which they disagree, so give a smaller effect or a larger disagreement"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            list(power.plans(power.Config(**given)))  # type: ignore[arg-type]
        assert str(refused.value) == said
    asked: list[Any] = []
    design: Any = SimpleNamespace(
        basis="B", between=1.0, within=(2.0, 3.0), disagreement=None, design_effect=1.5,
        tasks=lambda effect, epochs: asked.append((effect, epochs)) or 7 * epochs,
        effect=lambda tasks, epochs: (tasks, epochs), epochs=lambda effect, tasks: (effect, tasks),
    )  # fmt: skip
    config = power.Config("r", effect="2.5%", epochs=("2", "5"))
    body: dict[str, Any] = {
        "title": "T", "basis": "B", "effect": 0.025, "between": 1.0, "within": (2.0, 3.0), "disagreement": None,
        "design_effect": 1.5, "tasks": 9, "epochs_needed": (0.025, 9),
        "plans": [{"epochs": n, "tasks_needed": 7 * n, "smallest_effect": (9, n)} for n in (2, 5)],
    }  # fmt: skip
    assert power.to_json(power.PowerPlan("T", design, 9), config) == body and asked == [(0.025, 2), (0.025, 5)]
    bare = power.to_json(power.PowerPlan("T", design, None), config)
    assert bare["epochs_needed"] is None and [each["smallest_effect"] for each in bare["plans"]] == [None, None]


def test_texts_are_counted_by_each_model_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(tokens, "_open", lambda name, shown: asked.append((name, shown)) or name)
    monkeypatch.setattr(tokens, "_text", lambda given: given)
    monkeypatch.setattr(
        tokens, "_cut", lambda opened, text: ([7] * len(opened), [f"{opened}:{n}" for n in range(len(opened))])
    )
    config = tokens.Config("two words", model=("ab", "c", "ab"), price=("ab=0.5",), json=True)
    assert tokens.main(config) == 0 and asked == [("ab", False), ("c", False)]
    assert json.loads(capsys.readouterr().out) == {"characters": 9, "words": 2, "models": [
        {"model": "ab", "tokens": 2, "ids": [7, 7], "pieces": ["ab:0", "ab:1"], "cost_usd": 1e-6},
        {"model": "c", "tokens": 1, "ids": [7], "pieces": ["c:0"], "cost_usd": None},
    ]}  # fmt: skip
    pieces = [f"p{n}" for n in range(201)]
    tokens._print("one two three four", {"m": ([1] * 201, pieces), "e": ([], []), "n": ([1, 2], ["a\nb", "\t"])}, {})
    out = capsys.readouterr().out
    assert out.startswith(f"m: {'|'.join(pieces[:200])} ... 1 more\ne: \nn: a\\nb|\\t\n")
    assert words(out)[3:] == [
        "18 characters", "model tokens per word characters per token", "m 201 50.25 0.09", "e 0 0.00 18.00", "n 2 0.50 9.00",
    ]  # fmt: skip
    tokens._print("", {"m": ([1] * 1234, pieces[:200])}, {"m": 2.0})
    told = words(capsys.readouterr().out)
    assert told[0].endswith("|p199") and told[1:] == [
        "0 characters", "model tokens per word characters per token cost, USD", "m 1,234 1234.00 0.00 0.002468"]  # fmt: skip
    assert math.isclose(tokens._cost(1234, 2.0) or 0, 0.002468)


def test_the_quickstart_names_its_model_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quickstart.run, "main", lambda settings: 3)
    assert quickstart.main(quickstart.Config(model="openai:[b]m", limit=1)) == 3
    assert "openai:[b]m" in capsys.readouterr().err


def test_a_check_reads_the_bodies_of_each_run_and_goes_on_after_a_damaged_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checked: list[Any] = []

    def opened(ref: str, home: Any) -> Any:
        def check(*, bodies: bool = False) -> None:
            checked.append((ref, bodies))
            if ref == "b":
                raise StoreError("b was [changed]")

        return nullcontext(SimpleNamespace(id=f"id-{ref}", check=check))

    monkeypatch.setattr(runs.store, "open_run", opened)
    assert runs.check_runs(["a", "b", "c"]) == 2 and checked == [(each, True) for each in "abc"]
    assert capsys.readouterr() == ("id-a is sound\nid-c is sound\n", "firsthand: b was [changed]\n")
    assert runs.check_runs(["c"]) == runs.check_runs([]) == 0
