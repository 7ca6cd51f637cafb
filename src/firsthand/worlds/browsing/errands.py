"""Generates errands on small web sites, the same for a seed on any machine: a form, a table, a cart, a calendar.

| site | level 1 | level 2 | level 3 |
|---|---|---|---|
| form | 4 fields | 6 fields | 6 fields on two pages |
| table | 8 rows | 40 rows on pages of 10 | 120 rows, the largest of a town |
| cart | 1 of 6 products | 2 of 24 | 3 of 60, with quantities |
| calendar | this month | next months | next months, in the first free hour |

An errand ends with the first form that is sent, order that is placed, row that is archived or appointment that is booked:
right or wrong.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from datetime import date
from random import Random
from typing import Literal, NamedTuple

from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json

ERRAND_VERSION = 1
"""Goes up when the same seed gives other errands."""
ERRAND_LEVELS = (1, 2, 3)
SiteKind = Literal["form", "table", "cart", "calendar"]
SITE_KINDS: tuple[SiteKind, ...] = ("form", "table", "cart", "calendar")
ROWS_PER_PAGE = 10
HOURS = ("09:00", "10:00", "11:00", "14:00", "15:00", "16:00")
_FIRST = ("Ada", "Bela", "Cora", "Dario", "Edith", "Farid", "Gita", "Hugo", "Ines", "Jaro", "Kira", "Lars")
_LAST = ("Abel", "Brandt", "Castell", "Dorn", "Engel", "Fabre", "Grimm", "Hagen", "Ilves", "Jansen")
_TOWNS = ("Arlen", "Borga", "Celdon", "Dremont", "Esker", "Fallow")
_DEPARTMENTS = ("Sales", "Support", "Billing", "Press")
_TOPICS = ("An invoice", "A delivery", "A visit", "A job", "A return")
_GOODS = ("Lamp", "Kettle", "Chair", "Basket", "Mirror", "Clock", "Bench", "Vase", "Towel", "Shelf")
_STYLES = ("Oak", "Steel", "Linen", "Glass", "Cork", "Marble", "Pine", "Copper")
SHIPPING = ("Standard", "Express", "Pick-up")
_MEETINGS = ("Dentist", "Haircut", "Review", "Piano lesson", "Inspection")


class ErrandStep(NamedTuple):
    """The optimal player's action: on the element of that label."""

    verb: Literal["click", "type", "select"]
    label: str
    value: str = ""


class Errand(NamedTuple):
    """A site, what to do there, the state that does it, and the steps of the optimal player."""

    kind: SiteKind
    level: int
    task: str
    data: Json
    """The site's content; see `pages.py`."""
    goal: Json
    """The form values that must have been sent."""
    steps: tuple[ErrandStep, ...]


def make_errand(seed: int, index: int, level: int) -> Errand:
    """The errand number `index` of a seed; the kinds of site take turns."""
    rng = Random(derive_seed("web errand", ERRAND_VERSION, seed, index, level))
    kind = SITE_KINDS[index % len(SITE_KINDS)]
    return {"form": _form, "table": _table, "cart": _cart, "calendar": _calendar}[kind](rng, level)


def _form(rng: Random, level: int) -> Errand:
    name = f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"
    values = {
        "Name": name,
        "Email": f"{name.split()[0].lower()}@{rng.choice(_TOWNS).lower()}.example",
        "Department": rng.choice(_DEPARTMENTS),
        "Subscribe": rng.choice(("yes", "no")),
        "Topic": rng.choice(_TOPICS),
        "Reference": f"{rng.choice('ABCDEF')}-{rng.randint(1000, 9999)}",
    }
    names = list(values)[: 4 if level == 1 else 6]
    told = {name: values[name] for name in names}
    words = ", ".join(f"{name} {value}" for name, value in told.items() if name != "Subscribe")
    also = "Subscribe to the newsletter." if told["Subscribe"] == "yes" else "Do not subscribe to the newsletter."
    steps = [_fill(name, value) for name, value in told.items()]
    if level == 3:
        steps.insert(3, ErrandStep("click", "Continue"))
    done = tuple([step for step in steps if step is not None] + [ErrandStep("click", "Send")])
    data = {"fields": names, "pages": 2 if level == 3 else 1}
    return Errand("form", level, f"Send the form with {words}. {also}", data, told, done)


def _fill(name: str, value: str) -> ErrandStep | None:
    if name == "Subscribe":
        return ErrandStep("click", name) if value == "yes" else None
    return ErrandStep("select", name, value) if name in ("Department", "Topic") else ErrandStep("type", name, value)


def _table(rng: Random, level: int) -> Errand:
    count = (8, 40, 120)[level - 1]
    numbers = rng.sample(range(1000, 9999), count)
    amounts = rng.sample(range(10, 5000), count)
    rows = [
        {
            "number": str(number),
            "customer": f"{rng.choice(_FIRST)} {rng.choice(_LAST)}",
            "town": rng.choice(_TOWNS),
            "amount": amount,
        }
        for number, amount in zip(numbers, amounts, strict=True)
    ]
    if level == 3:
        town = rng.choice(sorted({str(row["town"]) for row in rows}))
        best = max((row for row in rows if row["town"] == town), key=lambda row: int(str(row["amount"])))
        task = f"Archive the order with the largest amount from {town}."
    else:
        best = rng.choice(rows)
        task = f"Archive the order {best['number']}."
    place = rows.index(best) // ROWS_PER_PAGE
    steps = (*[ErrandStep("click", "Next page")] * place, ErrandStep("click", f"Archive order {best['number']}"))
    return Errand("table", level, task, {"rows": rows}, {"archived": best["number"]}, steps)


def _cart(rng: Random, level: int) -> Errand:
    count, wanted = (6, 24, 60)[level - 1], level
    names = rng.sample([f"{style} {good}" for style in _STYLES for good in _GOODS], count)
    goods = [{"name": name, "price": rng.randint(5, 90)} for name in names]
    chosen = sorted(rng.sample(range(count), wanted))
    amounts = {names[number]: rng.randint(2, 5) if level == 3 else 1 for number in chosen}
    shipping = rng.choice(SHIPPING)
    steps: list[ErrandStep] = []
    page = 0
    for number in chosen:
        steps += [ErrandStep("click", "Next page")] * (number // ROWS_PER_PAGE - page)
        page = number // ROWS_PER_PAGE
        if amounts[names[number]] != 1:
            steps.append(ErrandStep("type", f"Quantity of {names[number]}", str(amounts[names[number]])))
        steps.append(ErrandStep("click", f"Add {names[number]}"))
    steps += [
        ErrandStep("click", "Cart"),
        ErrandStep("select", "Shipping", shipping),
        ErrandStep("click", "Place order"),
    ]
    words = ", ".join(f"{amount} x {name}" for name, amount in amounts.items())
    task = f"Order {words}, and nothing else, with {shipping} shipping."
    return Errand("cart", level, task, {"goods": goods}, {"items": amounts, "shipping": shipping}, tuple(steps))


def _calendar(rng: Random, level: int) -> Errand:
    start = date(2027, rng.randint(1, 9), 1)
    ahead = 0 if level == 1 else rng.randint(1, 3)
    month = start.month + ahead
    day = date(2027, month, rng.randint(1, calendar.monthrange(2027, month)[1]))
    taken = sorted(rng.sample(HOURS, {1: 0, 2: 1, 3: 3}[level]))
    free = [hour for hour in HOURS if hour not in taken]
    hour = free[0] if level == 3 else rng.choice(free)
    title = rng.choice(_MEETINGS)
    when = "in the first free hour" if level == 3 else f"at {hour}"
    told = f"{day.day} {calendar.month_name[day.month]} {day.year}"
    steps = [ErrandStep("click", "Next month")] * ahead + [ErrandStep("click", told)]
    steps += [ErrandStep("select", "Hour", hour), ErrandStep("type", "Title", title), ErrandStep("click", "Book")]
    data = {"start": start.isoformat(), "taken": {day.isoformat(): taken}}
    goal = {"date": day.isoformat(), "hour": hour, "title": title}
    return Errand("calendar", level, f'Book "{title}" on {told} {when}.', data, goal, tuple(steps))


def page_of(rows: Sequence[Mapping[str, object]], number: int) -> Sequence[Mapping[str, object]]:
    """The rows of a page, numbered from 0."""
    return rows[number * ROWS_PER_PAGE : (number + 1) * ROWS_PER_PAGE]
