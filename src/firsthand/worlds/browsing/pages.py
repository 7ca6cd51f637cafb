"""The pages of an errand's site as HTML, and what their forms and buttons do. Pure but for the state of one visit.

Pages work without JavaScript but for two things that real pages do: the table sorts on a click, and a row asks before it
is archived.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from random import Random

from firsthand.message import Json
from firsthand.worlds.browsing.chromium import FORM_CONTROLS, Chromium, PageView
from firsthand.worlds.browsing.errands import HOURS, ROWS_PER_PAGE, SHIPPING, Errand, ErrandStep, page_of
from firsthand.worlds.browsing.site import Answer

CHOICES = {
    "Department": ("", "Sales", "Support", "Billing", "Press"),
    "Topic": ("", "An invoice", "A delivery", "A visit", "A job", "A return"),
}
_STYLE = "body{font:16px sans-serif}label{display:block;margin:.5em 0}td,th{padding:.3em .8em;border:1px solid #999}"
_SORT = """
function sortBy(n, numeric) {
  const body = document.querySelector('tbody'), rows = [...body.rows];
  const text = row => row.cells[n].innerText;
  rows.sort((a, b) => numeric ? text(a) - text(b) : text(a).localeCompare(text(b)));
  rows.forEach(row => body.appendChild(row));
}"""


class SiteVisit:
    """A `Site`: what was entered so far, and what was sent at the end."""

    first, view = "/", FORM_CONTROLS
    clicks: Sequence[str] = ("link", "button", "check box")
    verbs: Sequence[str] = ()

    def __init__(self, errand: Errand) -> None:
        """Begin at the first page."""
        self.errand = errand
        self.sent: Json | None = None
        self.entered: dict[str, str] = {}
        self.cart: dict[str, int] = {}
        self._steps = iter(errand.steps)

    @property
    def is_done(self) -> bool:
        """True once something was sent."""
        return self.sent is not None

    @property
    def is_right(self) -> bool:
        """True if what was sent is the errand's goal."""
        return self.sent == self.errand.goal

    def answer(self, method: str, path: str, given: Mapping[str, str]) -> Answer:
        """The page at a path, or the way to the page that a form leads to."""
        if method == "POST":
            return Answer(303, location=self.post(path, given))
        return Answer(200, self.get(path, given).encode())

    def begin(self, browser: Chromium) -> None:
        """Do nothing: what is sent arrives here."""

    follow = begin

    def result(self) -> Json:
        """If the right thing was sent, what was sent, and the share of it that is right."""
        wanted, sent = self.errand.goal, self.sent or {}
        share = sum(sent.get(key) == value for key, value in wanted.items()) / len(wanted)
        return {"right": self.is_right, "sent": sent, "share": share}

    def optimal(self, page: PageView) -> str:
        """The next step of the errand's own."""
        return step_on(page, next(self._steps, self.errand.steps[-1]))

    def random_words(self, page: PageView, rng: Random) -> str:
        """A word of the task."""
        return rng.choice(self.errand.task.split())

    def get(self, path: str, query: Mapping[str, str]) -> str:
        """The page at a path of the site."""
        if self.is_done:
            return _page("Done", "<p>Thank you. Your request has been received.</p>")
        if self.errand.kind == "form":
            return self._form(_number(query.get("part", "0")))
        if self.errand.kind == "table":
            return self._table(_number(query.get("page", "0")))
        if self.errand.kind == "cart":
            return self._checkout() if path == "/cart" else self._goods(_number(query.get("page", "0")))
        return self._day(query["day"]) if "day" in query else self._month(_number(query.get("month", "0")))

    def post(self, path: str, form: Mapping[str, str]) -> str:
        """The page that a form leads to once it is sent: a path with its query."""
        if self.is_done:
            return "/"
        return {"form": self._send, "table": self._archive, "cart": self._shop, "calendar": self._book}[
            self.errand.kind
        ](path, form)

    def _form(self, part: int) -> str:
        names, split = self.errand.data["fields"], self.errand.data["pages"] == 2
        shown = (names[3:] if part else names[:3]) if split else names
        last = part == 1 or not split
        fields = "".join(self._field(name) for name in shown)
        button = "Send" if last else "Continue"
        return _page("Contact", f'<form method="post" action="/part{part}">{fields}<button>{button}</button></form>')

    def _field(self, name: str) -> str:
        value = self.entered.get(name, "")
        if name == "Subscribe":
            mark = " checked" if value == "yes" else ""
            box = f'<input type="checkbox" name="Subscribe" value="yes" aria-label="Subscribe"{mark}>'
            return f"<label>{box} Subscribe</label>"
        if name in CHOICES:
            options = _options(CHOICES[name], value)
            return f'<label>{name} <select name="{name}" aria-label="{name}">{options}</select></label>'
        return f'<label>{name} <input name="{name}" aria-label="{name}" value="{escape(value)}"></label>'

    def _send(self, path: str, form: Mapping[str, str]) -> str:
        names, split = self.errand.data["fields"], self.errand.data["pages"] == 2
        first = path == "/part0"
        for name in (names[:3] if first else names[3:]) if split else names:
            self.entered[name] = form.get(name, "no" if name == "Subscribe" else "").strip()
        if split and first:
            return "/?part=1"
        self.sent = {name: self.entered.get(name, "") for name in names}
        return "/done"

    def _table(self, number: int) -> str:
        rows = self.errand.data["rows"]
        body = "".join(
            f"<tr><td>{row['number']}</td><td>{escape(str(row['customer']))}</td><td>{row['town']}</td>"
            f'<td>{row["amount"]}</td><td><form method="post" action="/archive" '
            f"onsubmit=\"return confirm('Archive order {row['number']}?')\">"
            f'<button name="number" value="{row["number"]}" aria-label="Archive order {row["number"]}">Archive</button>'
            "</form></td></tr>"
            for row in page_of(rows, number)
        )
        heads = "".join(
            f'<th><button onclick="sortBy({n}, {"true" if n in (0, 3) else "false"})" '
            f'aria-label="Sort by {head}">{head}</button></th>'
            for n, head in enumerate(("Number", "Customer", "Town", "Amount"))
        )
        table = f"<table><thead><tr>{heads}<th></th></tr></thead><tbody>{body}</tbody></table>"
        return _page("Orders", f"<script>{_SORT}</script>{table}{_pager(number, len(rows))}")

    def _archive(self, path: str, form: Mapping[str, str]) -> str:
        self.sent = {"archived": form.get("number", "")}
        return "/done"

    def _goods(self, number: int) -> str:
        goods = self.errand.data["goods"]
        rows = "".join(
            f"<tr><td>{escape(str(each['name']))}</td><td>${each['price']}</td><td>"
            f'<form method="post" action="/add"><input type="hidden" name="page" value="{number}">'
            f'<input name="quantity" value="1" size="3" aria-label="Quantity of {escape(str(each["name"]))}">'
            f'<button name="name" value="{escape(str(each["name"]))}" '
            f'aria-label="Add {escape(str(each["name"]))}">Add</button>'
            "</form></td></tr>"
            for each in page_of(goods, number)
        )
        held = sum(self.cart.values())
        top = f'<p>In the cart: {held}. <a href="/cart" aria-label="Cart">Cart</a></p>'
        return _page("Shop", f"{top}<table>{rows}</table>{_pager(number, len(goods))}")

    def _checkout(self) -> str:
        rows = "".join(
            f'<tr><td>{escape(name)}</td><td>{count}</td><td><form method="post" action="/remove">'
            f'<button name="name" value="{escape(name)}" aria-label="Remove {escape(name)}">Remove</button></form></td></tr>'
            for name, count in self.cart.items()
        )
        order = (
            '<form method="post" action="/order"><label>Shipping '
            f'<select name="shipping" aria-label="Shipping">{_options(SHIPPING, SHIPPING[0])}</select></label>'
            "<button>Place order</button></form>"
        )
        return _page("Cart", f'<table>{rows}</table>{order}<p><a href="/">Back to the shop</a></p>')

    def _shop(self, path: str, form: Mapping[str, str]) -> str:
        name = form.get("name", "")
        if path == "/remove":
            self.cart.pop(name, None)
            return "/cart"
        if path == "/order":
            self.sent = {"items": dict(self.cart), "shipping": form.get("shipping", "")}
            return "/done"
        added = _number(form.get("quantity", "1"), 999)
        if added and any(each["name"] == name for each in self.errand.data["goods"]):
            self.cart[name] = self.cart.get(name, 0) + added
        return f"/?page={_number(form.get('page', '0'))}"

    def _month(self, ahead: int) -> str:
        first = date.fromisoformat(self.errand.data["start"])
        months = first.year * 12 + first.month - 1 + min(ahead, 24)
        year, month = divmod(months, 12)
        name = f"{calendar.month_name[month + 1]} {year}"
        rows = ""
        for week in calendar.Calendar().monthdayscalendar(year, month + 1):
            cells = "".join(
                f'<td><a href="/?day={date(year, month + 1, day).isoformat()}" aria-label="{day} {name}">{day}</a></td>'
                if day
                else "<td></td>"
                for day in week
            )
            rows += f"<tr>{cells}</tr>"
        before = f'<a href="/?month={ahead - 1}">Previous month</a> ' if ahead else ""
        turn = f'<p>{before}<a href="/?month={ahead + 1}">Next month</a></p>'
        return _page(name, f"<table>{rows}</table>{turn}")

    def _day(self, day: str) -> str:
        try:
            when = date.fromisoformat(day)
        except ValueError:
            return _page("No such day", '<p><a href="/">Back</a></p>')
        taken = self.errand.data["taken"].get(when.isoformat(), [])
        free = [hour for hour in HOURS if hour not in taken]
        form = (
            f'<form method="post" action="/book"><input type="hidden" name="date" value="{when.isoformat()}">'
            f'<label>Hour <select name="hour" aria-label="Hour">{_options(("", *free), "")}</select></label>'
            '<label>Title <input name="title" aria-label="Title"></label><button>Book</button></form>'
        )
        busy = f"<p>Taken: {', '.join(taken)}</p>" if taken else "<p>All hours are free.</p>"
        name = f"{when.day} {calendar.month_name[when.month]} {when.year}"
        return _page(name, f'{busy}{form}<p><a href="/">Back to the calendar</a></p>')

    def _book(self, path: str, form: Mapping[str, str]) -> str:
        self.sent = {key: form.get(key, "").strip() for key in ("date", "hour", "title")}
        return "/done"


def step_on(page: PageView, step: ErrandStep) -> str:
    """The action of a step on the page's element of that label, if need be in another case; element 0 if there is none."""
    labels = [each.label for each in page.elements]
    folded = [label.casefold() for label in labels]
    wanted = step.label.casefold()
    number = 1 + (
        labels.index(step.label) if step.label in labels else folded.index(wanted) if wanted in folded else -1
    )
    return f"{step.verb}[{number}] {step.value}".strip()


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"</head><body><h1>{escape(title)}</h1>{body}</body></html>"
    )


def _options(values: tuple[str, ...], chosen: str) -> str:
    return "".join(f"<option{' selected' if each == chosen else ''}>{escape(each)}</option>" for each in values)


def _pager(number: int, count: int) -> str:
    last = (count - 1) // ROWS_PER_PAGE
    before = f'<a href="/?page={number - 1}">Previous page</a> ' if number > 0 else ""
    after = f'<a href="/?page={number + 1}">Next page</a>' if number < last else ""
    return f"<p>Page {number + 1} of {last + 1} {before}{after}</p>" if last else ""


def _number(text: str, most: int = 1000) -> int:
    """The whole number that a text is, from 0 to `most`; 0 for other texts."""
    text = text.strip()
    return min(int(text), most) if text.isascii() and text.isdigit() and len(text) < 9 else 0
