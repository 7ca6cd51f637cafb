"""Quantities of claims: equal ones are held however they are written, those of another unit or size are not."""

from __future__ import annotations

import time

import pytest

from firsthand.retrieval.answers.citations import HitPlace
from firsthand.retrieval.answers.claims import check_claims
from firsthand.retrieval.answers.passage_words import placed_words
from firsthand.retrieval.answers.stated_quantities import Quantities
from firsthand.retrieval.answers.units_of_measure import size_named, size_of_letter, units_named
from firsthand.retrieval.chunk import Chunk
from firsthand.retrieval.retriever import Hit
from test_passage_words import supported


@pytest.mark.parametrize(
    ("claim", "passage"),
    [
        ("The bag weighs 70 pounds", "The bag weighs 70 kg."),
        ("The bag weighs 70 g", "The bag weighs 70 kg."),
        ("The dose is 5 µg a day", "The dose is 5 mg a day."),
        ("The file has 3 GB", "The file has 3 MB."),
        ("The file has 5 bytes", "The file has 5 bits."),
        ("The plant has 4 MW", "The plant has 4 kW."),
        ("It draws 4 mW of power", "It draws 4 MW of power."),
        ("The trip takes 3 days", "The trip takes 3 hours."),
        ("The 12-hour trip", "The 12-day trip"),
        ("The cable is 10 miles long", "The cable is 10 km long."),
        ("It runs at 60 mph", "It runs at 60 km/h."),
        ("The farm covers 12 km", "The farm covers 12 km²."),
        ("It costs €20", "It costs $20."),
        ("It costs 20 euros", "It costs 20 dollars."),
        ("It costs CHF 20", "It costs EUR 20."),
        ("It costs A$5", "It costs US$5."),
        ("Growth was 12 points", "Growth was 12%."),
        ("Growth was 12%", "Growth was 12 percentage points."),
        ("It is at 20 °F", "It is at 20 °C."),
        ("It is at 20 F", "It is at 20 C."),
        ("The firm earned $5 billion", "The firm earned $5 million."),
        ("The firm earned $5", "The firm earned $5 million."),
        ("The firm earned 5 trillion", "The firm earned $5bn."),
        ("The firm earned 5", "The firm earned 5 million."),
        ("The firm earned 5 million", "The firm earned 5."),
        ("The firm earned 5,000,000", "The firm earned 5 billion."),
        ("Er kostet 5 Milliarden Euro", "Er kostet 5 Millionen Euro."),
        ("It sold 5 lb", "It sold 5-7 kg."),
        ("It sold 7 lb", "It sold 5 to 7 kg."),
        ("It needs 5 mg and 5 kg of salt", "It needs 5 mg of salt and sand."),
        ("Take 500 tablets", "Take 500mg daily."),
        ("It has 5 million shops", "It rose by 3 million and has 5 shops."),
        ("It costs $5 USD", "It costs A$5."),
        ("The shop opens at 9 am", "The shop opens at 9 pm."),
        ("The shop opens at 9 am", "The shop opens at 9pm."),
        ("The link has 5 Mbps", "The link has 5 MBps."),
        ("Es dauert 20 Minuten", "Es dauert 20 Stunden."),
        ("It opens on May 5th", "It opens on May 6th."),
        ("It won for the 5th time", "It won 5 times."),
        ("It costs $5mn", "It costs $5bn."),
    ],
)
def test_a_quantity_of_another_unit_or_size_is_not_held(claim: str, passage: str) -> None:
    assert not supported(claim, passage) and supported(passage.rstrip("."), passage)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The firm earned $5 million", "The firm earned $5,000,000."),
        ("The firm earned 5 million dollars", "The firm earned 5,000,000 dollars."),
        ("The firm earned 5 million dollars", "The firm earned $5m."),
        ("The firm earned USD 5 million", "The firm earned US$5m."),
        ("The budget is $5 million", "A 5-million-dollar budget."),
        ("It cost $5 million", "Price: $5m"),
        ("It earned 1.2 billion", "It earned 1,200 million."),
        ("It has 7 billion parameters", "It has 7B parameters."),
        ("It has 5k users", "It has 5,000 users."),
        ("It has 5 hundred thousand users", "It has 500,000 users."),
        ("Er kostet 5 Mio. €", "Er kostet 5 Millionen Euro."),
        ("Il coûte 5 millions d'euros", "Il coûte 5 M€."),
        ("It weighs 70 kilograms", "It weighs 70kg."),
        ("It weighs 70,000 g", "It weighs 70 kg."),
        ("It weighs 5 pounds", "It weighs 5 lb."),
        ("It costs 5 pounds", "It costs £5."),
        ("It costs 50 cents", "It costs $0.50."),
        ("It costs $12.50", "It costs 12.5 dollars."),
        ("It grew 12 per cent", "It grew 12%."),
        ("It fell 25 basis points", "It fell 25 bps."),
        ("It was 20 degrees Celsius", "It was 20 °C."),
        ("It was 20 degrees", "It was 20 °C."),
        ("It covers 12 square kilometres", "It covers 12 km²."),
        ("It runs at 60 mph", "It runs at 60 miles per hour."),
        ("It takes 90 minutes", "It takes 1.5 hours."),
        ("The 12-hour trip", "The trip takes 12 hours."),
        ("It is 5 metres deep", "It is 5m deep."),
        ("It takes 5 minutes", "It takes 5m."),
        ("It is 5in wide", "It is 5 inches wide."),
        ("It rose from 5 million to 7 million euros", "It rose from 5 to 7 million euros."),
        ("It costs $5 million to $10 million", "It costs $5-10 million."),
        ("It sold 5 kg to 7 kg", "It sold 5–7 kg."),
        ("It takes 1/2 cup", "It takes ½ cup."),
        ("In the 1990s it rose", "It rose in 1990."),
        ("It sold 5, 6 and 7 million cars", "It sold 5 million, 6 million and 7 million cars."),
        ("It sold 5-6 and 7 million cars", "It sold 5 million, 6 million and 7 million cars."),
        ("The link has 5 MBps", "The link has 5 MB/s."),
        ("The link has 5 GBps", "The link has 5 gigabytes per second."),
        ("The link has 5 kBps", "The link has 5 KB/s."),
        ("Il dure 20 minutes", "Il dure 20 mn."),
        ("It costs $5mn", "It costs 5 million dollars."),
        ("It has 5 mn euros", "It has 5 million euros."),
        ("Es dauert 20 Minuten", "Es dauert 20min."),
        ("Il dure 3 heures", "Il dure 3h."),
        ("Es dauert 2 Jahre", "Es dauert 24 Monate."),
        ("The shop opens at 9 am", "The shop opens at 9am."),
        ("The shop opens at 9 a.m.", "The shop opens at 9am daily."),
        ("It is open 9-5 pm", "It is open 9 am to 5 pm."),
        ("On May 5th it opened", "On May 5 it opened."),
        ("The 2nd of May is free", "May 2 is free."),
        ("On 21st Sept. it opened", "On Sept. 21 it opened."),
        ("On July the 3rd it opened", "On July 3 it opened."),
        ("The coin is worth 20p", "The coin is worth 20 pence."),
    ],
)
def test_equal_quantities_are_held_however_they_are_written(one: str, other: str) -> None:
    assert supported(one, other) and supported(other.rstrip("."), f"{one}.")


@pytest.mark.parametrize(
    ("claim", "passage"),
    [
        ("The value is 70", "The value is 70 kg."),
        ("The value is 70 kg", "The value is 70."),
        ("The value is 70", "The value is 70kg."),
        ("The value is 70kg", "The value is 70."),
        ("| Revenue | 5 |", "Revenue was 5 million euros."),
        ("Revenue in millions was 5", "Revenue was 5 million."),
        ("Revenue was 5 million euros", "| Revenue (EUR million) | 5 |"),
        ("Revenue was $5 million", "Revenue ($m): 5, costs: 3"),
        ("Revenue was 5 thousand euros", "Revenue in €000: 5"),
        ("Revenue was 5 million euros", "Revenue (EUR mn): 5, costs: 3"),
        ("The town has 5 million people", "The town: 5 миллионов."),
        ("The town has 5 миллионов", "The town has 5 million people."),
        ("In 2019 it rose", "It rose from 3 million in 2019 to 5 million."),
        ("It has 5 million users", "It has 5 million registered users."),
        ("It has 5 boxes", "It has 5 in stock."),
    ],
)
def test_a_number_without_unit_is_held_by_one_with_a_unit_and_the_other_way_round(claim: str, passage: str) -> None:
    assert supported(claim, passage)


def test_each_quantity_is_held_by_one_of_the_passages_that_are_cited() -> None:
    texts = ["The salt weighs 5 mg.", "The sand weighs 5 kg."]
    hits = [Hit(Chunk(f"d{n}", 0, len(text), text), 1.0) for n, text in enumerate(texts)]
    places = [HitPlace("x", "s", 1, ())] * 2
    for claim, unsupported in (
        ("The salt weighs 5 mg and the sand 5 kg. [1][2]", 0),
        ("The salt weighs 5 mg and the sand 5 kg. [1]", 1),
        ("The salt weighs 5 mg and the sand 5 g. [1][2]", 1),
    ):
        assert len(check_claims(claim, hits, places).unsupported) == unsupported, claim
    made = check_claims("The sand or the salt weighs 5 kg. [1][2]", hits, places)
    assert made.citations[0].document == "d1", "the passage that holds the quantity comes first"
    text = "The bag weighs 70 lb. The weight of this bag is 70 kg."
    made = check_claims("The bag weighs 70 kilograms. [1]", [Hit(Chunk("d", 0, len(text), text), 1.0)], places)
    assert [each.quote for each in made.citations] == ["The weight of this bag is 70 kg."]


def test_quantities_by_hand() -> None:
    def read(text: str) -> list[tuple[str, float, set[tuple[int, str]]]]:
        found = Quantities(placed_words(text)).all
        return [
            (one.number, float(one.value), {(size, unit.measure if unit else "") for size, unit in one.readings})
            for one in found
        ]

    assert read("-$1,500.50 for 3/4 and 1 1/2 of 2e3") == [
        ("-1500.50", -1500.5, {(1, each) for each in ("USD", "AUD", "CAD", "NZD", "HKD", "SGD")}),
        ("3/4", 0.75, {(1, "")}),
        ("1 1/2", 1.5, {(1, "")}),
        ("2e3", 2000.0, {(1, "")}),
    ]
    assert read("£5m") == [("5", 5.0, {(10**6, "GBP")})]
    assert read("5 m") == [("5", 5.0, {(10**6, ""), (1, "length"), (1, "time")})]
    assert read("5 to 7 million euros") == [("5", 5.0, {(1, ""), (10**6, "EUR")}), ("7", 7.0, {(10**6, "EUR")})]
    assert read("5-7 kg, at 7:30 or 1/0 by 4x") == [("5", 5.0, {(1, "mass")}), ("7", 7.0, {(1, "mass")})]
    assert units_named("Kgs") == units_named("kilogram") and units_named("kg")[0].factor == 1000
    assert [unit.measure for unit in units_named("pound")] == ["mass", "GBP"] and units_named("s") == units_named(
        "second"
    )
    assert not units_named("was") and not units_named("in") and not units_named("a")
    assert (size_named("Mio"), size_named("dozen"), size_named("m"), size_of_letter("m")) == (10**6, 12, None, 10**6)


def test_many_quantities_take_linear_time() -> None:
    begun = time.process_time()
    for piece in ("5 million ", "5 kg to ", "$5-", "5 m, ", "million ", "5 hundred thousand ", "€"):
        text = piece * (20_000 // len(piece))
        supported(f"{text[:2_000]} 7 kg", text)
    assert time.process_time() - begun < 5
