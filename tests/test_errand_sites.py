"""Errands and their sites by hand: what is drawn, each page's HTML, what a form leads to, each answer of the proxy."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest

from dealt_random import Dealt
from firsthand.worlds.browsing import errands
from firsthand.worlds.browsing.chromium import PageElement, PageView
from firsthand.worlds.browsing.errands import Errand, ErrandStep, make_errand
from firsthand.worlds.browsing.pages import _SORT, _STYLE, SiteVisit, _number, _pager
from firsthand.worlds.browsing.site import Answer
from firsthand.worlds.browsing.site_server import SiteServer


def click(label: str) -> ErrandStep:
    return ErrandStep("click", label)


def test_a_form_asks_for_more_fields_at_each_level_and_for_two_pages_at_the_last() -> None:
    draws = (1, 2, 3, 2, 0, 4, 5, 234)  # Bela Castell, Dremont, Billing, yes, A return, F-1234
    rng = Dealt(*draws)
    one = errands._form(rng, 1)
    told = {"Name": "Bela Castell", "Email": "bela@dremont.example", "Department": "Billing", "Subscribe": "yes"}
    fill = [
        ErrandStep("type", "Name", "Bela Castell"), ErrandStep("type", "Email", "bela@dremont.example"),
        ErrandStep("select", "Department", "Billing"), click("Subscribe"),
    ]  # fmt: skip
    assert rng.asked == [(1000, 9999)] and rng.places == []
    wish = "Send the form with Name Bela Castell, Email bela@dremont.example, Department Billing"
    assert one == Errand(
        "form", 1, f"{wish}. Subscribe to the newsletter.", {"fields": list(told), "pages": 1}, told,
        (*fill, click("Send")),
    )  # fmt: skip
    all_told = told | {"Topic": "A return", "Reference": "F-1234"}
    more = [ErrandStep("select", "Topic", "A return"), ErrandStep("type", "Reference", "F-1234")]
    wish += ", Topic A return, Reference F-1234"
    assert errands._form(Dealt(*draws), 2) == Errand(
        "form", 2, f"{wish}. Subscribe to the newsletter.", {"fields": list(all_told), "pages": 1}, all_told,
        (*fill, *more, click("Send")),
    )  # fmt: skip
    no = all_told | {"Subscribe": "no"}
    assert errands._form(Dealt(1, 2, 3, 2, 1, 4, 5, 234), 3) == Errand(
        "form", 3, f"{wish}. Do not subscribe to the newsletter.", {"fields": list(no), "pages": 2}, no,
        (*fill[:3], click("Continue"), *more, click("Send")),
    )  # fmt: skip


def test_a_table_asks_for_a_row_by_its_number_or_for_the_largest_of_a_town() -> None:
    rng = Dealt(5, 90, *[0] * 24, 6)
    one = errands._table(rng, 1)
    assert rng.asked == [(8999, 8), (4990, 8)] and rng.places == []
    rows = [{"number": str(1012 - at), "customer": "Ada Abel", "town": "Arlen", "amount": 107 - at} for at in range(8)]
    assert one == Errand(
        "table", 1, "Archive the order 1006.", {"rows": rows}, {"archived": "1006"}, (click("Archive order 1006"),)
    )
    two = errands._table(Dealt(5, 90, *[0] * 120, 30), 2)
    assert (len(two.data["rows"]), two.goal) == (40, {"archived": "1014"})
    assert two.steps == (*[click("Next page")] * 3, click("Archive order 1014")), "row 30 is the first of page 3"
    towns = [part for at in range(120) for part in (0, 1, 4 if at in (20, 9, 63) else 3)]
    three = errands._table(Dealt(5, 90, *towns, 1), 3)
    assert three.task == "Archive the order with the largest amount from Esker."
    assert three.data["rows"][9] == {"number": "1115", "customer": "Ada Brandt", "town": "Esker", "amount": 210}
    assert three.goal == {"archived": "1115"} and three.steps == (click("Archive order 1115"),)


def test_a_cart_asks_for_goods_in_the_order_of_their_pages_with_amounts_at_the_last_level() -> None:
    rng = Dealt(0, *range(6), 3, 1)
    one = errands._cart(rng, 1)
    assert rng.asked == [(80, 6), *[(5, 90)] * 6, (6, 1)]
    names = ["Oak Clock", "Oak Mirror", "Oak Basket", "Oak Chair", "Oak Kettle", "Oak Lamp"]
    assert one == Errand(
        "cart", 1, "Order 1 x Oak Chair, and nothing else, with Express shipping.",
        {"goods": [{"name": name, "price": 5 + at} for at, name in enumerate(names)]},
        {"items": {"Oak Chair": 1}, "shipping": "Express"},
        (click("Add Oak Chair"), click("Cart"), ErrandStep("select", "Shipping", "Express"), click("Place order")),
    )  # fmt: skip
    three = errands._cart(Dealt(0, *[0] * 60, 29, 0, 3, 1, 2), 3)  # goods 29, 30 and 31 in 2, 5 and 3 pieces
    a, b, c = (three.data["goods"][at]["name"] for at in (29, 30, 31))
    assert three.task == f"Order 2 x {a}, 5 x {b}, 3 x {c}, and nothing else, with Pick-up shipping."
    assert three.goal == {"items": {a: 2, b: 5, c: 3}, "shipping": "Pick-up"}
    turn = click("Next page")
    assert three.steps[:-3] == (
        turn, turn, ErrandStep("type", f"Quantity of {a}", "2"), click(f"Add {a}"), turn,
        ErrandStep("type", f"Quantity of {b}", "5"), click(f"Add {b}"), ErrandStep("type", f"Quantity of {c}", "3"),
        click(f"Add {c}"),
    )  # fmt: skip


def test_a_calendar_asks_for_a_free_hour_of_a_day_of_this_month_or_the_next_ones() -> None:
    rng = Dealt(1, 27, 0, 5, 3)
    one = errands._calendar(rng, 1)
    assert rng.asked == [(1, 9), (1, 28), (6, 0)], "February 2027 has 28 days"
    assert one == Errand(
        "calendar", 1, 'Book "Piano lesson" on 28 February 2027 at 16:00.',
        {"start": "2027-02-01", "taken": {"2027-02-28": []}},
        {"date": "2027-02-28", "hour": "16:00", "title": "Piano lesson"},
        (click("28 February 2027"), ErrandStep("select", "Hour", "16:00"), ErrandStep("type", "Title", "Piano lesson"),
         click("Book")),
    )  # fmt: skip
    rng = Dealt(8, 2, 4, 0, 1)
    three = errands._calendar(rng, 3)
    assert rng.asked == [(1, 9), (1, 3), (1, 31), (6, 3)]
    assert three.task == 'Book "Haircut" on 5 December 2027 in the first free hour.'
    assert three.data == {"start": "2027-09-01", "taken": {"2027-12-05": ["09:00", "10:00", "11:00"]}}
    assert three.goal == {"date": "2027-12-05", "hour": "14:00", "title": "Haircut"}
    assert three.steps[:4] == (*[click("Next month")] * 3, click("5 December 2027"))
    assert [make_errand(3, at, 1).kind for at in (2, 4, 7, 9)] == ["cart", "form", "calendar", "table"]
    same, others = make_errand(3, 5, 1), (make_errand(3, 9, 1), make_errand(4, 5, 1))
    assert same == make_errand(3, 5, 1) and same not in others and make_errand(3, 5, 2).level == 2


def page(title: str, body: str) -> str:
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,"><title>{title}'
    return f"{head}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>"


def visit(kind: Any, **data: Any) -> SiteVisit:
    return SiteVisit(Errand(kind, 1, "Do it.", data, {"a": 1}, (click("x"),)))


def test_the_pages_of_a_form_and_a_table_hold_what_is_entered_and_shown() -> None:
    form = visit("form", fields=["Name", "Subscribe", "Topic", "Reference"], pages=2)
    form.entered = {"Name": '<"b">', "Subscribe": "yes", "Topic": "A job"}
    options = "".join(
        f"<option{' selected' if each == 'A job' else ''}>{each}</option>"
        for each in ("", "An invoice", "A delivery", "A visit", "A job", "A return")
    )
    fields = (
        '<label>Name <input name="Name" aria-label="Name" value="&lt;&quot;b&quot;&gt;"></label>'
        '<label><input type="checkbox" name="Subscribe" value="yes" aria-label="Subscribe" checked> Subscribe</label>'
        f'<label>Topic <select name="Topic" aria-label="Topic">{options}</select></label>'
    )
    whole = f'<form method="post" action="/part0">{fields}<button>Continue</button></form>'
    assert form.get("/", {}) == form.get("/x", {"part": "0"}) == page("Contact", whole)
    last = '<label>Reference <input name="Reference" aria-label="Reference" value=""></label><button>Send</button>'
    assert form.get("/", {"part": "1"}) == page("Contact", f'<form method="post" action="/part1">{last}</form>')
    assert form.post("/part0", {"Name": " é ", "Reference": "no"}) == "/?part=1" and form.sent is None
    assert form.entered == {"Name": "é", "Subscribe": "no", "Topic": ""}
    assert form.post("/part1", {"Reference": " r ", "Name": "other"}) == "/done"
    assert form.sent == {"Name": "é", "Subscribe": "no", "Topic": "", "Reference": "r"}
    assert form.get("/", {}) == page("Done", "<p>Thank you. Your request has been received.</p>")
    assert form.answer("POST", "/part0", {"Name": "late"}) == Answer(303, location="/") and form.entered["Name"] == "é"
    assert form.result() == {"right": False, "sent": form.sent, "share": 0}
    rows = [{"number": str(at), "customer": f"<{at}>", "town": "T", "amount": 7 * at} for at in range(1, 12)]
    table = visit("table", rows=rows)
    heads = "".join(
        f'<th><button onclick="sortBy({at}, {numeric})" aria-label="Sort by {head}">{head}</button></th>'
        for at, (head, numeric) in enumerate(
            (("Number", "true"), ("Customer", "false"), ("Town", "false"), ("Amount", "true"))
        )
    )
    row = (
        '<tr><td>11</td><td>&lt;11&gt;</td><td>T</td><td>77</td><td><form method="post" action="/archive" '
        "onsubmit=\"return confirm('Archive order 11?')\">"
        '<button name="number" value="11" aria-label="Archive order 11">Archive</button></form></td></tr>'
    )
    body = f"<table><thead><tr>{heads}<th></th></tr></thead><tbody>{row}</tbody></table>"
    pager = '<p>Page 2 of 2 <a href="/?page=0">Previous page</a> </p>'
    assert table.get("/", {"page": "1"}) == page("Orders", f"<script>{_SORT}</script>{body}{pager}")
    assert table.get("/", {}).count("<tr>") == 11
    assert table.answer("POST", "/archive", {"number": "3"}) == Answer(303, location="/done")
    assert table.sent == {"archived": "3"} and table.is_done and not table.is_right


def test_the_pages_of_a_shop_and_a_calendar_lead_to_an_order_and_a_booking() -> None:
    shop = visit("cart", goods=[{"name": f"G{at}&", "price": at} for at in range(11)])
    good = (
        '<tr><td>G10&amp;</td><td>$10</td><td><form method="post" action="/add">'
        '<input type="hidden" name="page" value="1">'
        '<input name="quantity" value="1" size="3" aria-label="Quantity of G10&amp;">'
        '<button name="name" value="G10&amp;" aria-label="Add G10&amp;">Add</button></form></td></tr>'
    )
    assert shop.post("/add", {"name": "G10&", "quantity": " 1000 ", "page": "1"}) == "/?page=1"
    assert shop.post("/add", {"name": "G10&", "page": "x"}) == "/?page=0" and shop.cart == {"G10&": 1000}
    assert shop.post("/add", {"name": "other", "quantity": "3"}) == "/?page=0"
    assert shop.post("/add", {"name": "G2&", "quantity": "-1"}) == "/?page=0" and shop.cart == {"G10&": 1000}
    top = '<p>In the cart: 1000. <a href="/cart" aria-label="Cart">Cart</a></p>'
    pager = '<p>Page 2 of 2 <a href="/?page=0">Previous page</a> </p>'
    assert shop.get("/", {"page": "1"}) == page("Shop", f"{top}<table>{good}</table>{pager}")
    shop.post("/remove", {"name": "never"})
    shop.post("/add", {"name": "G2&"})
    assert shop.post("/remove", {"name": "G2&"}) == "/cart" and shop.cart == {"G10&": 1000}
    row = (
        '<tr><td>G10&amp;</td><td>1000</td><td><form method="post" action="/remove">'
        '<button name="name" value="G10&amp;" aria-label="Remove G10&amp;">Remove</button></form></td></tr>'
    )
    order = (
        '<form method="post" action="/order"><label>Shipping <select name="shipping" aria-label="Shipping">'
        "<option selected>Standard</option><option>Express</option><option>Pick-up</option></select></label>"
        '<button>Place order</button></form><p><a href="/">Back to the shop</a></p>'
    )
    assert shop.get("/cart", {"page": "1"}) == page("Cart", f"<table>{row}</table>{order}")
    assert shop.post("/order", {}) == "/done" and shop.sent == {"items": {"G10&": 1000}, "shipping": ""}
    days = visit("calendar", start="2027-11-01", taken={"2027-12-05": ["09:00", "15:00"]})
    month = days.get("/", {"month": "1"})
    assert month.startswith(page("December 2027", "")[:-14]), "title and heading"
    assert month.count("<td></td>") == 2 + 2 and month.count("<tr>") == 5, "it begins on a Wednesday, ends on a Friday"
    assert '<td><a href="/?day=2027-12-31" aria-label="31 December 2027">31</a></td>' in month
    turn = '<p><a href="/?month=0">Previous month</a> <a href="/?month=2">Next month</a></p></body></html>'
    assert month.endswith(f"</table>{turn}")
    assert days.get("/", {}).endswith('</table><p><a href="/?month=1">Next month</a></p></body></html>')
    assert "<h1>January 2028</h1>" in days.get("/", {"month": "2"})
    assert "<h1>November 2029</h1>" in days.get("/", {"month": "25"}), "two years ahead, and no further"
    free = "".join(f"<option>{hour}</option>" for hour in ("10:00", "11:00", "14:00", "16:00"))
    form = (
        '<form method="post" action="/book"><input type="hidden" name="date" value="2027-12-05">'
        f'<label>Hour <select name="hour" aria-label="Hour"><option selected></option>{free}</select></label>'
        '<label>Title <input name="title" aria-label="Title"></label><button>Book</button></form>'
        '<p><a href="/">Back to the calendar</a></p>'
    )
    assert days.get("/", {"day": "2027-12-05"}) == page("5 December 2027", f"<p>Taken: 09:00, 15:00</p>{form}")
    assert "<p>All hours are free.</p>" in days.get("/", {"day": "2027-12-06"})
    assert days.get("/", {"day": "2027-13-05"}) == page("No such day", '<p><a href="/">Back</a></p>')
    assert days.post("/book", {"date": "2027-12-05", "title": " x "}) == "/done"
    assert days.sent == {"date": "2027-12-05", "hour": "", "title": "x"}
    pages = [_pager(number, 30) for number in range(3)]
    assert pages[1] == '<p>Page 2 of 3 <a href="/?page=0">Previous page</a> <a href="/?page=2">Next page</a></p>'
    assert pages[0] == '<p>Page 1 of 3 <a href="/?page=1">Next page</a></p>' and _pager(0, 10) == ""
    texts = (" 12 ", "1001", "12345678", "123456789", "-1", "²", "٣", "", "1.5")
    assert [_number(text) for text in texts] == [12, 1000, 1000, 0, 0, 0, 0, 0, 0] and _number("8", 7) == 7


def test_a_product_added_with_no_quantity_is_not_in_the_cart_nor_in_the_order() -> None:
    shop = visit("cart", goods=[{"name": "A", "price": 1}, {"name": "B", "price": 2}])
    for quantity in ("0", "-1", "", "two", "1000000000"):
        assert shop.post("/add", {"name": "A", "quantity": quantity, "page": "0"}) == "/?page=0"
        assert shop.cart == {}, quantity
    shop.post("/add", {"name": "B", "quantity": "1"})
    shop.post("/add", {"name": "B", "quantity": "0"})
    shop.post("/order", {"shipping": "Express"})
    assert shop.sent == {"items": {"B": 1}, "shipping": "Express"}


def test_a_visit_reports_the_share_that_is_right_and_repeats_its_last_step() -> None:
    steps = (click("Go"), ErrandStep("type", "name", "Ann"))
    made = SiteVisit(Errand("form", 2, "Do this now.", {}, {"a": "1", "b": "2", "c": "3"}, steps))
    assert made.result() == {"right": False, "sent": {}, "share": 0} and not made.is_done
    page = PageView(
        "t", "", tuple(PageElement(at, "x", each, "", ()) for at, each in enumerate(("Name", "GO", "go", "Go")))
    )
    assert [made.optimal(page) for _ in range(3)] == ["click[4]", "type[1] Ann", "type[1] Ann"]
    assert made.random_words(page, Dealt(1)) == "this" and made.random_words(page, Dealt(2)) == "now."
    made.sent = {"a": "1", "c": "x", "d": "2"}
    assert made.is_done and made.result() == {"right": False, "sent": made.sent, "share": 1 / 3}
    made.sent = {"a": "1", "b": "2", "c": "3", "more": ""}
    assert made.result()["share"] == 1 and not made.is_right
    made.sent = {"c": "3", "b": "2", "a": "1"}
    assert made.result() == {"right": True, "sent": made.sent, "share": 1}
    made.sent = {}
    assert made.is_done and made.post("/part0", {"a": "1"}) == "/" and "Thank you" in made.get("/", {})


class Seen:
    """A site that keeps what it is asked."""

    first = "/start?x=1"

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.says = Answer(200, "é".encode(), "text/x; charset=utf-8")

    def answer(self, method: str, path: str, given: Any) -> Answer:
        self.asked.append((method, path, given))
        return self.says


@pytest.fixture(scope="module")
def server() -> Any:
    with contextlib.closing(SiteServer()) as made:
        yield made


def test_the_proxy_answers_for_its_visits_and_refuses_everything_else_in_whole_answers(server: SiteServer) -> None:
    site: Any = Seen()
    address = server.begin(site)
    host = address.removeprefix("http://").removesuffix("/start?x=1")
    assert len(host) == len("0123456789abcdef.site.test") and host.endswith(".site.test")

    def ask(line: str, body: bytes = b"", length: str | None = None) -> tuple[str, dict[str, str], bytes]:
        """The status, the headers but for date and server, and all that comes before the proxy hangs up."""
        stated = length if length is not None else str(len(body))
        with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
            head = f"{line} HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\nContent-Length: {stated}\r\n\r\n"
            connection.sendall(head.encode() + body)
            raw = b""
            while piece := connection.recv(65536):
                raw += piece
        top, _, rest = raw.partition(b"\r\n\r\n")
        status, *lines = top.decode().split("\r\n")
        headers = dict(each.split(": ", 1) for each in lines)
        return status.split(" ")[1], {k: v for k, v in headers.items() if k not in ("Date", "Server")}, rest

    def headers(kind: str, length: int, **more: str) -> dict[str, str]:
        return {"Content-Type": kind, "Content-Length": str(length), "Cache-Control": "no-store", **more}

    shown = ("200", headers("text/x; charset=utf-8", 2), "é".encode())
    assert ask(f"GET http://{host}/a%20b?n=1&empty=&m=%C3%A9") == shown
    assert ask(f"POST http://{host}/send?n=1", b"n=2&empty=&m=%C3%A9+x") == shown
    site.says = Answer(303, location="/next")
    status, told, rest = ask(f"POST http://{host}/", b"x=" + b"y" * ((64 << 10) - 2))
    assert (status, told["Location"], rest) == ("303", "/next", b"")
    assert site.asked == [
        ("GET", "/a%20b", {"n": "1", "m": "é"}),
        ("POST", "/send", {"n": "2", "empty": "", "m": "é x"}),
        ("POST", "/", {"x": "y" * ((64 << 10) - 2)}),
    ]
    kind = Answer(200).kind
    for length in (str((64 << 10) + 1), "-1", "many"):
        assert ask(f"POST http://{host}/", length=length) == ("413", headers(kind, 8), b"too much")
    text = b"This browser reaches its own site alone."
    refused = ("403", headers(kind, len(text)), text)
    before = server.refused
    for line in (
        f"GET https://{host}/", "GET /a", f"GET http://x{host}/", f"PUT http://{host}/", f"POST ftp://{host}/",
        f"CONNECT {host}:80",
    ):  # fmt: skip
        assert ask(line) == refused, line
    assert ask(f"HEAD http://{host}/") == (*refused[:2], b"") and server.refused == before + 7
    other = server.begin(site)
    server.end(address)
    assert ask(f"GET {address}") == refused and server.visit(host) is None and len(site.asked) == 3
    assert ask(f"GET {other}")[0] == "303" and server.refused == before + 8
