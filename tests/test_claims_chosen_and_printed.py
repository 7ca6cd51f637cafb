"""Claims that several names choose, as text and as JSON with all they need, and measurements with zeros and with NaN."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claims_made import claim_of, closed
from firsthand.claims.all_claims import all_claims, chosen_claims, claim_names
from firsthand.claims.architecture import rope_extrapolates
from firsthand.claims.benchmarks import gpqa_items
from firsthand.claims.claim import Claim, Measurement, ruling
from firsthand.claims.claim_run import Outcome
from firsthand.claims.claim_text import claim_json, print_claim, print_outcome, print_plan
from firsthand.claims.lab import Lab, paired
from firsthand.claims.list_tables import PATTERN_ROWS, MeasuredRow, PatternTable
from firsthand.errors import UnknownName
from firsthand.stats.intervals import Interval


def names_of(*wanted: str) -> list[str]:
    return [each.name for each in chosen_claims(wanted)]


def test_names_sections_and_all_add_up_in_any_order() -> None:
    names, every = claim_names(), [name for section in claim_names().values() for name in section]
    assert names_of() == [] and chosen_claims(iter(["all"])) == list(all_claims().values())
    assert names_of("gpt3_window", "safety") == names_of("safety", "gpt3_window") == ["gpt3_window", *names["safety"]]
    assert names_of("papers", "safety") == names_of("safety", "papers") == [*names["papers"], *names["safety"]]
    inside = names["safety"][1]
    assert names_of(inside, "safety") == names_of("safety", inside) == names_of("safety", "safety") == names["safety"]
    for wanted in (("all",), ("all", "all"), ("gpt3_window", "all"), ("all", "safety"), ("safety", "all")):
        assert names_of(*wanted) == every, wanted
    for wanted in (("nonsense",), ("all", "nonsense"), ("nonsense", "all"), ("safety", "nonsense")):
        with pytest.raises(UnknownName) as told:
            chosen_claims(wanted)
        assert str(told.value) == "no claim 'nonsense'; `firsthand claims` shows all"
    with pytest.raises(UnknownName, match=r"^no claim 'al'; did you mean 'all'\? `firsthand claims` shows all$"):
        chosen_claims(["al"])


@pytest.mark.parametrize(
    ("value", "word", "why"),
    [
        (-0.5, "holds here", "RoPE's loss past the trained length rises -0.50 times as much as that of learned positions"),
        (-2.0, "holds here", "RoPE's loss past the trained length rises -2.00 times as much as that of learned positions"),
        (0.0, "holds here", "RoPE's loss past the trained length rises 0.00 times as much as that of learned positions"),
        (0.0625, "holds here", "RoPE's loss past the trained length rises 0.06 times as much as that of learned positions"),
        (0.1, "holds in part", "RoPE's loss rises 0.10 times as much as that of learned positions: better, but ALiBi's "
                               "hardly rises"),
        (0.996, "holds in part", "RoPE's loss rises 1.00 times as much as that of learned positions: better, but ALiBi's "
                                 "hardly rises"),
        (1.0, "does not hold here", "RoPE's loss rises 1.0 times as much as that of learned positions"),
        (12.34, "does not hold here", "RoPE's loss rises 12.3 times as much as that of learned positions"),
    ],
)  # fmt: skip
def test_a_loss_of_rope_that_falls_is_well_below_that_of_learned_positions(value: float, word: str, why: str) -> None:
    assert rope_extrapolates.judge(Measurement(value)) == (word, why)


def test_the_rows_of_the_diamond_set_are_counted_in_a_copy_with_all_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_DATA", str(tmp_path))
    heading = "Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
    made = {name: heading + "q,a,b,c,d\n" * rows for name, rows in (("diamond", 3), ("main", 5), ("extended", 7))}
    (tmp_path / "gpqa").mkdir()
    for name, text in made.items():
        (tmp_path / "gpqa" / f"gpqa_{name}.csv").write_text(text)
    papers = (("diamond, by the paper", 198.0), ("main, by the paper", 448.0), ("extended, by the paper", 546.0))
    counted = Measurement(
        3,
        "questions of the Diamond set, counted in your copy",
        columns=("subset", "questions"),
        rows=(*papers, ("diamond, counted in your copy", 3.0)),
    )
    assert gpqa_items.measure(Lab(0)) == counted
    (tmp_path / "gpqa" / "gpqa_diamond.csv").unlink()
    assert gpqa_items.measure(Lab(0)) == Measurement(
        198, "questions of the Diamond set, by the figures of the paper", columns=("subset", "questions"), rows=papers
    ), "the other sets alone are none of it"
    with zipfile.ZipFile(tmp_path / "gpqa_dataset.zip", "w") as archive:
        for name, text in made.items():
            archive.writestr(f"dataset/gpqa_{name}.csv", text)
    assert gpqa_items.measure(Lab(0)) == counted
    assert gpqa_items.judge(counted) == (
        "does not hold here",
        "448 is the main set; the Diamond set named here has 3",
    )
    assert gpqa_items.judge(Measurement(198, "q, by the figures of the paper")).why == (
        "448 is the main set; the Diamond set named here has 198, by the figures of Rein et al., table 2"
    )
    assert gpqa_items.judge(Measurement(448, "any")) == ("holds here", "the Diamond set has 448 questions")


def test_zeros_stay_zeros_in_json_and_what_is_not_finite_is_none_in_each_place() -> None:
    zeros = Measurement(0.0, "", 0.0, 0.0, 0, "", ("",), ((0.0, "", 0),), {"": ((0.0, 0.0),)}, ("", ""))
    body = zeros.to_json()
    assert body == {
        "value": 0.0, "what": "", "low": 0.0, "high": 0.0, "n": 0, "unit": "", "columns": [""], "rows": [[0.0, "", 0]],
        "curves": {"": [[0.0, 0.0]]}, "axes": ["", ""],
    }  # fmt: skip
    assert Measurement.from_json(json.loads(json.dumps(body))) == zeros
    assert Measurement.from_json(Measurement(0).to_json()) == Measurement(0)
    nan, inf = math.nan, math.inf
    odd = Measurement(
        inf, "w", nan, -inf, 2, "u", ("a", "b"), (("nan", nan), (inf, -inf), (0.5, 3)),
        {"one": ((1.0, nan), (2.0, inf), (-inf, 3.0), (nan, nan), (4.0, 5.0)), "two": ()}, ("x", "y"),
    )  # fmt: skip
    told = odd.to_json()
    assert told == {
        "value": None, "what": "w", "low": None, "high": None, "n": 2, "unit": "u", "columns": ["a", "b"],
        "rows": [["nan", None], [None, None], [0.5, 3]],
        "curves": {"one": [[1.0, None], [2.0, None], [None, 3.0], [None, None], [4.0, 5.0]], "two": []}, "axes": ["x", "y"],
    }  # fmt: skip
    back = Measurement.from_json(json.loads(json.dumps(told, allow_nan=False)))
    assert math.isnan(back.value) and replace(back, value=0.0) == Measurement(
        0.0, "w", None, None, 2, "u", ("a", "b"), (("nan", None), (None, None), (0.5, 3)),
        {"one": ((1.0, None), (2.0, None), (None, 3.0), (None, None), (4.0, 5.0)), "two": ()}, ("x", "y"),
    )  # type: ignore[arg-type]  # fmt: skip


BRACKETS = Claim(
    "a [bold]quote[/] of [1]", "S [2]", "none", 9.0, ("model [m]", "extra b", "data c/[d]"), cannot="it is [hosted]"
)


def test_words_in_square_brackets_are_printed_and_every_need_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    shut = replace(closed("x"), claim=BRACKETS)
    print_claim(shut, None)
    head = '\nx (Safety, Alignment & Interpretability)\n  "a [bold]quote[/] of [1]"\n'
    head += "  source: S [2]; measured on: nothing was run\n  needs: model [m], extra b, data c/[d]\n"
    assert capsys.readouterr().out == f"{head}  cannot be tested here: it is [hosted]\n"
    last = Outcome(shut, Measurement(2.0, "[q]", unit="[u]"), ruling("holds in part", "so [it] is"), "R", 1.0)
    print_claim(shut, last)
    assert capsys.readouterr().out == f"{head}  measured: [q]: 2 [u]\n  holds in part: so [it] is\n"
    print_claim(replace(shut, claim=replace(BRACKETS, needs=())), replace(last, measurement=None))
    assert capsys.readouterr().out == f"{head.rpartition('  needs')[0]}  holds in part: so [it] is\n"
    print_outcome(shut, last.measurement, last.verdict)
    assert capsys.readouterr().out == (
        '\nx [none]\n  "a [bold]quote[/] of [1]" (S [2])\n  measured: [q]: 2 [u]\n  holds in part: so [it] is\n'
    )
    open_claim = replace(claim_of("a[b]"), claim=replace(BRACKETS, kind="sim", cannot="", needs=("extra b",)))
    print_claim(open_claim, None)
    print_plan([open_claim, shut], [replace(open_claim, name="[c]"), open_claim])
    assert capsys.readouterr().out == (
        '\na[b] (Seminal Papers)\n  "a [bold]quote[/] of [1]"\n'
        "  source: S [2]; measured on: a simulated or scripted model of known skill\n  needs: extra b\n"
        "  not run yet: `firsthand claims run a[b]` takes about 9 s\n"
        "1 claim to measure, about 9 s of CPU; 1 cannot be tested here\nOutside the budget: [c] (9 s), a[b] (9 s)\n"
    )
    told: dict[str, Any] = {
        "claim": "x", "section": "safety", "quote": "a [bold]quote[/] of [1]", "source": "S [2]", "kind": "none",
        "cost_s": 0.0, "needs": ["model [m]", "extra b", "data c/[d]"], "cannot": "it is [hosted]",
    }  # fmt: skip
    assert claim_json(shut, None) == {**told, "last": None}
    assert claim_json(shut, last) == {**told, "last": last.to_json()}
    assert claim_json(open_claim, None) == {
        **told, "claim": "a[b]", "section": "papers", "kind": "sim", "cost_s": 9.0, "needs": ["extra b"], "cannot": None,
        "last": None,
    }  # fmt: skip
    assert claim_json(replace(open_claim, claim=replace(open_claim.claim, needs=())), None)["needs"] == []


def test_a_row_of_the_table_tells_one_error_and_more() -> None:
    versus = replace(paired([1.0, 0.0], [0.0, 0.0]), difference=0.0, low=-0.25, high=1.0)
    row = MeasuredRow(PATTERN_ROWS[4], Interval(1.0, 0.5, 1.0, 4), versus, 2.0, 1.25, 0)
    rows = tuple(replace(row, errors=errors) for errors in (0, 1, 2))
    table = PatternTable("R7", Interval(0.0, 0.0, 0.25, 4), rows)
    head, tail = ("Reflexion", "7B+", "Medium"), ("+0.00 [-0.25, +1.00]", "2.0", "1.2")
    assert table.cells() == [
        ("(direct)", "-", "-", "0.00 [0.00, 0.25]", "-", "1.0", "1.0"),
        (*head, "1.00 [0.50, 1.00]", *tail),
        (*head, "1.00 [0.50, 1.00], 1 error", *tail),
        (*head, "1.00 [0.50, 1.00], 2 errors", *tail),
    ]
    body = table.to_json()
    assert body == {"run": "R7", "direct": 0.0, "rows": body["rows"]}
    assert [each["errors"] for each in body["rows"]] == [0, 1, 2]
    assert body["rows"][1] == {
        "row": "Reflexion", "pattern": "reflexion:trials=2", "smallest_by_list": "7B+", "cost_by_list": "Medium",
        "accuracy": 1.0, "accuracy_low": 0.5, "accuracy_high": 1.0, "gain": 0.0, "gain_low": -0.25, "gain_high": 1.0,
        "times_tokens": 2.0, "calls": 1.25, "errors": 1,
    }  # fmt: skip
    assert replace(table, rows=()).cells() == [("(direct)", "-", "-", "0.00 [0.00, 0.25]", "-", "1.0", "1.0")]
