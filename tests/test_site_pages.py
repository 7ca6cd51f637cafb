"""The proxy that serves the errands' sites, and their pages, forms and steps word by word."""

import hashlib
import socket
from html import escape

import pytest

from firsthand.worlds.browsing.browser_pool import MAX_RUNNING, BrowserPool
from firsthand.worlds.browsing.chromium import CannotUse, PageElement, PageView
from firsthand.worlds.browsing.errands import ERRAND_VERSION, Errand, ErrandStep, make_errand, page_of
from firsthand.worlds.browsing.pages import SiteVisit, _number, _options, _pager, step_on
from firsthand.worlds.browsing.site import Answer
from firsthand.worlds.browsing.site_server import MAX_BODY, SiteServer


class Echo:
    """A visit that tells what it was asked."""

    first = "/start"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    def answer(self, method: str, path: str, given: dict[str, str]) -> Answer:
        self.asked.append((method, path, dict(given)))
        if path == "/go":
            return Answer(303, location="/e?x")
        return Answer(201, "häh".encode(), "text/plain")


def sent(port: int, text: str) -> str:
    with socket.create_connection(("127.0.0.1", port), 5) as line:
        line.sendall(text.encode())
        line.shutdown(socket.SHUT_WR)
        found = b""
        while more := line.recv(1 << 16):
            found += more
    head, _, body = found.decode().partition("\r\n\r\n")
    kept = [each for each in head.split("\r\n") if not each.startswith(("Server", "Date"))]
    return "\n".join([*kept, "", body])


def test_the_proxy_answers_for_open_visits_alone_and_counts_what_it_refuses():
    server = SiteServer()
    try:
        one, two = Echo(), Echo()
        at, other = server.begin(one), server.begin(two)
        host = at.removeprefix("http://").removesuffix("/start")
        assert (len(host), host[16:], at != other) == (26, ".site.test", True)
        assert (server.visit(host), server.visit("x" + host)) == (one, None)
        page = "HTTP/1.1 201 Created\nContent-Type: text/plain\nContent-Length: 4\nCache-Control: no-store\n\nhäh"
        assert sent(server.port, f"GET http://{host}/a?b=1&c=&b=%C3%A9 HTTP/1.1\r\n\r\n") == page
        form = "q=x+y&z=&u=%E2%82%AC"
        head = f"POST http://{host}/go?no=1 HTTP/1.1\r\nContent-Length: "
        assert sent(server.port, f"{head}{len(form)}\r\n\r\n{form}") == (
            "HTTP/1.1 303 See Other\nContent-Type: text/html; charset=utf-8\nContent-Length: 0\nCache-Control: no-store\n"
            "Location: /e?x\n\n"
        )
        assert sent(server.port, f"POST http://{host}/n?no=1 HTTP/1.1\r\n\r\n") == page
        full = "a=" + "b" * (MAX_BODY - 2)
        assert sent(server.port, f"{head}{MAX_BODY}\r\n\r\n{full}".replace("/go", "/big")) == page
        assert one.asked == [
            ("GET", "/a", {"b": "é"}), ("POST", "/go", {"q": "x y", "z": "", "u": "€"}), ("POST", "/n", {}),
            ("POST", "/big", {"a": "b" * (MAX_BODY - 2)}),
        ]  # fmt: skip
        assert (two.asked, server.refused) == ([], 0)
        for length in (str(MAX_BODY + 1), "-1", "x"):
            assert sent(server.port, f"{head}{length}\r\n\r\n").startswith("HTTP/1.1 413 "), length
        assert (len(one.asked), server.refused) == (4, 0)
        no = (
            "HTTP/1.1 403 Forbidden\nContent-Type: text/html; charset=utf-8\nContent-Length: 40\nCache-Control: no-store\n\n"
            "This browser reaches its own site alone."
        )
        for line in (f"GET https://{host}/", "GET http://x.site.test/", "GET /", f"PUT http://{host}/", f"DELETE http://{host}/",
                     f"OPTIONS http://{host}/", f"PATCH http://{host}/", f"CONNECT {host}:443"):  # fmt: skip
            assert sent(server.port, f"{line} HTTP/1.1\r\n\r\n") == no, line
        assert sent(server.port, f"HEAD http://{host}/ HTTP/1.1\r\n\r\n") == no.partition("\n\n")[0] + "\n\n"
        assert server.refused == 9
        server.end(at)
        assert sent(server.port, f"GET http://{host}/a HTTP/1.1\r\n\r\n") == no
        assert (server.visit(host), server.refused, len(one.asked)) == (None, 10, 4)
        server.end(at)
        assert sent(server.port, f"GET {other} HTTP/1.1\r\n\r\n") == page
    finally:
        server.close()


def test_after_an_answer_without_the_body_read_the_connection_ends_and_else_it_goes_on():
    server = SiteServer()
    try:
        visit = Echo()
        host = server.begin(visit).removeprefix("http://").removesuffix("/start")
        more = f"GET http://{host}/more HTTP/1.1\r\n\r\n"
        for length in (str(MAX_BODY + 1), "-1", "x"):
            found = sent(server.port, f"POST http://{host}/go HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{more}")
            assert (found.count("HTTP/1.1 "), found[-8:], visit.asked) == (1, "too much", []), length
        found = sent(server.port, f"PUT http://{host}/go HTTP/1.1\r\nContent-Length: 9\r\n\r\n{more}")
        assert (found.count("HTTP/1.1 "), found[:12], visit.asked) == (1, "HTTP/1.1 403", [])
        found = sent(server.port, f"POST http://{host}/go HTTP/1.1\r\nContent-Length: 3\r\n\r\na=1{more}")
        assert (found.count("HTTP/1.1 "), visit.asked) == (2, [("POST", "/go", {"a": "1"}), ("GET", "/more", {})])
    finally:
        server.close()


class Browser:
    """A browser that may be dirty."""

    def __init__(self, port: int) -> None:
        self.port, self.cleaned, self.ended, self.works = port, 0, 0, True
        self.error: BaseException = ConnectionError("gone")

    def clean(self) -> None:
        self.cleaned += 1
        if not self.works:
            raise self.error

    def quit(self) -> None:
        self.ended += 1


def test_a_pool_gives_a_clean_browser_again_ends_a_broken_one_and_frees_its_place():
    pool = BrowserPool(Browser)  # type: ignore[arg-type]
    first, second = pool.take(), pool.take()
    assert first.port == pool.server.port  # type: ignore[attr-defined]
    pool.give_back(first)
    assert pool.take() is first
    assert (first.cleaned, first.ended) == (1, 0)  # type: ignore[attr-defined]
    second.works = False  # type: ignore[attr-defined]
    pool.give_back(second)
    assert (second.cleaned, second.ended, pool._idle) == (1, 1, [])  # type: ignore[attr-defined]
    assert pool._places._value == MAX_RUNNING - 1
    pool.end(first)
    assert (first.ended, pool._places._value) == (1, MAX_RUNNING)  # type: ignore[attr-defined]

    for error in (OSError("none"), KeyboardInterrupt("none")):

        def refused(port: int, error: BaseException = error) -> Browser:
            raise error

        pool._start = refused  # type: ignore[assignment]
        with pytest.raises(type(error), match="none"):
            pool.take()
        assert pool._places._value == MAX_RUNNING
    pool._start = Browser  # type: ignore[assignment]
    kept = pool.take()
    pool.give_back(kept)
    pool.close()
    assert (kept.ended, pool._idle, pool._server) == (1, [], None)  # type: ignore[attr-defined]


def test_errands_are_the_same_for_a_seed_and_their_steps_lead_to_their_goal():
    assert ERRAND_VERSION == 1
    drawn = [make_errand(seed, index, level) for seed in (1, 2) for index in range(8) for level in (1, 2, 3)]
    assert hashlib.sha256(repr(drawn).encode()).hexdigest()[:16] == "12e60310fa9b7bb5"
    for errand in drawn:
        if errand.kind == "table":
            visit, page = SiteVisit(errand), 0
            for step in errand.steps[:-1]:
                assert step == ErrandStep("click", "Next page")
                page += 1
            label = errand.steps[-1].label
            assert f'aria-label="{label}"' in visit.get("/", {"page": str(page)})
            assert len(errand.data["rows"]) == (8, 40, 120)[errand.level - 1]
            assert label == f"Archive order {errand.goal['archived']}"
            if errand.level == 3:
                town = errand.task.removesuffix(".").split(" from ")[1]
                best = max((row for row in errand.data["rows"] if row["town"] == town), key=lambda row: row["amount"])
                assert best["number"] == errand.goal["archived"]
    rows = [{"n": n} for n in range(25)]
    assert [[row["n"] for row in page_of(rows, page)] for page in (1, 2, 3)] == [
        list(range(10, 20)), list(range(20, 25)), []
    ]  # fmt: skip


def body(visit: SiteVisit, path: str = "/", **query: str) -> str:
    page = visit.answer("GET", path, query)
    assert (page.status, page.kind, page.location) == (200, "text/html; charset=utf-8", "")
    return page.body.decode().partition("<h1>")[2].removesuffix("</body></html>")


def test_a_form_of_two_pages_keeps_what_was_entered_and_sends_all_at_the_end():
    fields = ["Name", "Email", "Department", "Subscribe", "Topic", "Reference"]
    goal = {"Name": "A <b>", "Email": "e", "Department": "Sales", "Subscribe": "no", "Topic": "A job", "Reference": "R"}
    visit = SiteVisit(Errand("form", 3, "Send it", {"fields": fields, "pages": 2}, goal, ()))
    assert visit.result() == {"right": False, "sent": {}, "share": 0.0}
    said = visit.answer("POST", "/part0", {"Name": " A <b> ", "Email": "e", "Department": "Sales", "Topic": "no"})
    assert said == Answer(303, location="/?part=1")
    departments = "".join(
        f"<option{' selected' if each == 'Sales' else ''}>{each}</option>"
        for each in ("", "Sales", "Support", "Billing", "Press")
    )
    assert body(visit, part="0") == (
        'Contact</h1><form method="post" action="/part0">'
        '<label>Name <input name="Name" aria-label="Name" value="A &lt;b&gt;"></label>'
        '<label>Email <input name="Email" aria-label="Email" value="e"></label>'
        f'<label>Department <select name="Department" aria-label="Department">{departments}</select></label>'
        "<button>Continue</button></form>"
    )
    second = body(visit, part="1")
    assert second.startswith(
        'Contact</h1><form method="post" action="/part1"><label><input type="checkbox" name="Subscribe" value="yes" '
        'aria-label="Subscribe"> Subscribe</label><label>Topic <select'
    )
    assert second.endswith("<button>Send</button></form>")
    assert not visit.is_done
    said = visit.answer("POST", "/part1", {"Topic": "A job", "Reference": "S "})
    assert said == Answer(303, location="/done")
    assert visit.result() == {"right": False, "sent": {**goal, "Reference": "S"}, "share": 5 / 6}
    assert body(visit) == "Done</h1><p>Thank you. Your request has been received.</p>"
    assert visit.answer("POST", "/part1", {"Reference": "R"}) == Answer(303, location="/")
    assert not visit.is_right
    whole = SiteVisit(Errand("form", 1, "", {"fields": fields[:4], "pages": 1}, {"Name": "x"}, ()))
    assert body(whole).startswith('Contact</h1><form method="post" action="/part0">')
    assert body(whole).endswith("<button>Send</button></form>")
    assert whole.post("/part0", {"Name": "x", "Subscribe": "yes"}) == "/done"
    assert whole.sent == {"Name": "x", "Email": "", "Department": "", "Subscribe": "yes"}


def test_a_cart_adds_up_is_emptied_by_name_and_ordered_once():
    goods = [{"name": f"Oak & {n}", "price": 5 + n} for n in range(12)]
    goal = {"items": {"Oak & 1": 5, "Oak & 11": 2}, "shipping": "Express"}
    visit = SiteVisit(Errand("cart", 2, "Order", {"goods": goods}, goal, ()))
    assert visit.post("/add", {"name": "Oak & 1", "quantity": "2", "page": "0"}) == "/?page=0"
    assert visit.post("/add", {"name": "Oak & 1", "quantity": "3", "page": "1"}) == "/?page=1"
    assert visit.post("/add", {"name": "Oak & 11", "quantity": "2"}) == "/?page=0"
    assert visit.post("/add", {"name": "Nothing"}) == "/?page=0"
    assert visit.post("/add", {"name": "Oak & 3", "quantity": "1000"}) == "/?page=0"
    assert visit.cart == {"Oak & 1": 5, "Oak & 11": 2, "Oak & 3": 999}
    assert visit.post("/remove", {"name": "Oak & 3"}) == visit.post("/remove", {"name": "Oak & 3"}) == "/cart"
    name = escape("Oak & 11")
    assert body(visit, page="1") == (
        'Shop</h1><p>In the cart: 7. <a href="/cart" aria-label="Cart">Cart</a></p><table>'
        + "".join(
            f"<tr><td>{each}</td><td>${price}</td><td>"
            '<form method="post" action="/add"><input type="hidden" name="page" value="1">'
            f'<input name="quantity" value="1" size="3" aria-label="Quantity of {each}">'
            f'<button name="name" value="{each}" aria-label="Add {each}">Add</button></form></td></tr>'
            for each, price in ((escape("Oak & 10"), 15), (name, 16))
        )
        + '</table><p>Page 2 of 2 <a href="/?page=0">Previous page</a> </p>'
    )
    page = body(visit, "/cart")
    assert page.startswith(
        'Cart</h1><table><tr><td>Oak &amp; 1</td><td>5</td><td><form method="post" action="/remove"><button name="name" '
        'value="Oak &amp; 1" aria-label="Remove Oak &amp; 1">Remove</button></form></td></tr>'
        "<tr><td>Oak &amp; 11</td><td>2</td>"
    )
    assert page.endswith(
        '</table><form method="post" action="/order"><label>Shipping <select name="shipping" aria-label="Shipping">'
        "<option selected>Standard</option><option>Express</option><option>Pick-up</option></select></label>"
        '<button>Place order</button></form><p><a href="/">Back to the shop</a></p>'
    )
    assert visit.post("/order", {"shipping": "Express"}) == "/done"
    assert visit.result() == {"right": True, "sent": goal, "share": 1.0}


def test_a_calendar_turns_months_over_the_year_and_shows_the_free_hours_of_a_day():
    data = {"start": "2027-11-01", "taken": {"2027-12-05": ["09:00", "15:00"]}}
    goal = {"date": "2027-12-05", "hour": "10:00", "title": "Review"}
    visit = SiteVisit(Errand("calendar", 3, "Book", data, goal, ()))
    month = body(visit)
    assert month.startswith(
        'November 2027</h1><table><tr><td><a href="/?day=2027-11-01" aria-label="1 November 2027">1</a>'
    )
    assert month.endswith(">30</a></td>" + "<td></td>" * 5 + '</tr></table><p><a href="/?month=1">Next month</a></p>')
    assert body(visit, month="1").startswith(
        'December 2027</h1><table><tr><td></td><td></td><td><a href="/?day=2027-12-01"'
    )
    january = body(visit, month="2")
    assert january.startswith("January 2028</h1>")
    assert january.endswith('<p><a href="/?month=1">Previous month</a> <a href="/?month=3">Next month</a></p>')
    assert body(visit, month="99").startswith("November 2029</h1>")
    assert body(visit, month="24").startswith("November 2029</h1>")
    assert body(visit, month="23").startswith("October 2029</h1>")
    late = SiteVisit(Errand("calendar", 3, "Book", data | {"start": "2028-01-31"}, goal, ()))
    assert body(late).startswith("January 2028</h1>")
    assert body(late, month="1").startswith("February 2028</h1>")
    assert body(late, month="1").count("<td></td>") == 6  # the 29 days of Tuesday to Tuesday stand in five weeks
    assert body(late, month="12").startswith("January 2029</h1>")
    assert body(visit, day="2027-12-05") == (
        '5 December 2027</h1><p>Taken: 09:00, 15:00</p><form method="post" action="/book"><input type="hidden" name="date" '
        'value="2027-12-05"><label>Hour <select name="hour" aria-label="Hour"><option selected></option>'
        "<option>10:00</option>"
        "<option>11:00</option><option>14:00</option><option>16:00</option></select></label>"
        '<label>Title <input name="title" aria-label="Title"></label><button>Book</button></form>'
        '<p><a href="/">Back to the calendar</a></p>'
    )
    assert body(visit, day="20271205") == body(visit, day="2027-W48-7") == body(visit, day="2027-12-05")
    assert body(visit, day="2027-12-06").startswith("6 December 2027</h1><p>All hours are free.</p>")
    assert body(visit, day="2027-12-32") == body(visit, day="") == 'No such day</h1><p><a href="/">Back</a></p>'
    assert body(visit, day="x") == 'No such day</h1><p><a href="/">Back</a></p>'
    assert visit.post("/book", {"date": "2027-12-05", "hour": "10:00", "title": " Review ", "more": "1"}) == "/done"
    assert visit.sent == goal and visit.is_right
    rows = [{"number": str(n), "customer": "O'B <i>", "town": "Arlen", "amount": n * 2} for n in range(1, 12)]
    table = SiteVisit(Errand("table", 1, "", {"rows": rows}, {"archived": "11"}, ()))
    page = body(table, page="1")
    assert (
        '<tbody><tr><td>11</td><td>O&#x27;B &lt;i&gt;</td><td>Arlen</td><td>22</td><td><form method="post" '
        'action="/archive" onsubmit="return confirm(\'Archive order 11?\')"><button name="number" value="11" '
        'aria-label="Archive order 11">Archive</button></form></td></tr></tbody>'
    ) in page
    sorts = [f'sortBy({n}, {numeric})" aria-label="Sort by {head}">{head}</button></th>' for n, numeric, head in (
        (0, "true", "Number"), (1, "false", "Customer"), (2, "false", "Town"), (3, "true", "Amount"))]  # fmt: skip
    assert all(each in page for each in sorts)
    assert table.post("/archive", {"number": "11"}) == "/done"
    assert table.is_right


def test_pagers_numbers_and_steps_at_their_edges():
    assert [_pager(0, 10), _pager(0, 11), _pager(1, 30)] == [
        "", '<p>Page 1 of 2 <a href="/?page=1">Next page</a></p>',
        '<p>Page 2 of 3 <a href="/?page=0">Previous page</a> <a href="/?page=2">Next page</a></p>',
    ]  # fmt: skip
    assert [_number(each) for each in ("12", " 7 ", "1001", "99999999", "123456789", "-1", "", "²", "٣")] == [
        12, 7, 1000, 1000, 0, 0, 0, 0, 0
    ]  # fmt: skip
    assert _number("50", 40) == 40
    assert _options(("a&", "b"), "b") == "<option>a&amp;</option><option selected>b</option>"
    page = PageView(
        "t", "x", tuple(PageElement(n, "button", label, "", ()) for n, label in enumerate(("send", "Send", "Straße")))
    )
    assert step_on(page, ErrandStep("click", "Send")) == "click[2]"
    assert step_on(page, ErrandStep("type", "STRASSE", "v")) == "type[3] v"
    assert step_on(page, ErrandStep("click", "Gone")) == "click[0]"


def test_a_browser_that_crashed_or_hangs_frees_its_place_whatever_it_fails_with():
    pool = BrowserPool(Browser)  # type: ignore[arg-type]
    try:
        for error in (ConnectionError("gone"), TimeoutError("hangs"), RuntimeError("crashed"), CannotUse("no page")):
            broken = pool.take()
            broken.works, broken.error = False, error  # type: ignore[attr-defined]
            pool.give_back(broken)
            assert (broken.ended, pool._idle, pool._places._value) == (1, [], MAX_RUNNING), error  # type: ignore[attr-defined]

        class Stuck(Browser):
            def quit(self) -> None:
                super().quit()
                raise RuntimeError("stuck")

        pool._start = Stuck  # type: ignore[assignment]
        stuck = pool.take()
        with pytest.raises(RuntimeError, match="stuck"):
            pool.end(stuck)
        assert (stuck.ended, pool._places._value) == (1, MAX_RUNNING)  # type: ignore[attr-defined]
    finally:
        pool.close()
