"""The browsing world without a browser: pages, Mind2Web's choices, MiniWoB's words, and what a browser is told."""

import asyncio
import json
import re
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from firsthand.errors import DataError
from firsthand.worlds.browsing.browse_world import MAX_TYPED, BrowseWorld
from firsthand.worlds.browsing.browser_pool import BrowserPool
from firsthand.worlds.browsing.chromium import CannotUse, PageElement, PageView
from firsthand.worlds.browsing.errands import Errand, ErrandStep, page_of
from firsthand.worlds.browsing.mind2web import (
    ChoiceStep,
    is_exact,
    operation_f1,
    parse_choice,
    question,
    read_steps,
)
from firsthand.worlds.browsing.miniwob_pages import steps_for
from firsthand.worlds.browsing.page_elements import PageElements
from firsthand.worlds.browsing.pages import SiteVisit, step_on
from firsthand.worlds.world import InvalidAction


def visit(kind: str, goal: dict[str, object], **data: object) -> SiteVisit:
    return SiteVisit(Errand(kind, 1, "Do it now.", data, goal, (ErrandStep("click", "Send"),)))  # type: ignore[arg-type]


def test_a_form_on_two_pages_keeps_what_was_entered_and_sends_all_fields():
    fields = ["Name", "Email", "Department", "Subscribe", "Topic", "Reference"]
    goal = dict(zip(fields, ("Ann", "a@b", "Sales", "no", "A job", "A-1"), strict=True))
    site = visit("form", goal, fields=fields, pages=2)
    first = site.get("/", {})
    assert re.findall(r'aria-label="(\w+)"', first) == fields[:3] and "<button>Continue</button>" in first
    assert 'action="/part0"' in first and "<option selected></option>" in first
    assert site.post("/part0", {"Name": " Ann ", "Email": 'a"<b', "Department": "Press"}) == "/?part=1"
    assert not site.is_done and site.result() == {"right": False, "sent": {}, "share": 0.0}
    again = site.get("/", {"part": "0"})
    assert 'value="a&quot;&lt;b"' in again and "<option selected>Press</option>" in again
    second = site.get("/", {"part": "1"})
    assert re.findall(r'aria-label="(\w+)"', second) == fields[3:] and "<button>Send</button>" in second
    assert 'action="/part1"' in second and "checked" not in second
    assert site.post("/part1", {"Topic": "A job", "Reference": "A-1"}) == "/done"
    assert site.result() == {
        "right": False, "sent": {**goal, "Email": 'a"<b', "Department": "Press"}, "share": pytest.approx(4 / 6),
    }  # fmt: skip
    whole = visit("form", {"Name": "Ann", "Subscribe": "yes"}, fields=["Name", "Subscribe"], pages=1)
    whole.entered["Subscribe"] = "yes"
    assert '"Subscribe" checked>' in whole.get("/", {}) and "Send" in whole.get("/", {})
    answer = whole.answer("POST", "/part0", {"Name": "Ann", "Subscribe": "yes"})
    assert (answer.status, answer.location, answer.body) == (303, "/done", b"") and whole.is_right
    assert b"Thank you" in whole.answer("GET", "/", {}).body and whole.answer("GET", "/", {}).status == 200


def test_a_table_is_paged_by_ten_and_an_archived_row_is_sent():
    rows = [{"number": str(n), "customer": f"<{n}>", "town": "Arlen", "amount": n * 2} for n in range(1, 22)]
    site = visit("table", {"archived": "12"}, rows=rows)
    pages = [site.get("/", {"page": str(number)}) for number in range(3)]
    assert [len(re.findall("Archive order", page)) // 2 for page in pages] == [10, 10, 1]
    assert 'Page 1 of 3 <a href="/?page=1">Next page</a>' in pages[0] and "Previous" not in pages[0]
    assert '<a href="/?page=0">Previous page</a> <a href="/?page=2">Next page</a>' in pages[1]
    assert "Page 3 of 3" in pages[2] and "Next page" not in pages[2]
    assert "<tr><td>11</td><td>&lt;11&gt;</td><td>Arlen</td><td>22</td>" in pages[1]
    assert [re.search(rf"sortBy\({n}, (\w+)\)", pages[0])[1] for n in range(4)] == ["true", "false", "false", "true"]
    assert site.post("/archive", {"number": "12"}) == "/done" and site.is_right and site.sent == {"archived": "12"}
    assert "Page 1" not in visit("table", {}, rows=rows[:10]).get("/", {})
    assert list(page_of(rows, 1)) == rows[10:20] and list(page_of(rows, 3)) == []


def test_a_cart_adds_up_forgets_what_is_removed_and_sends_its_order():
    goods = [{"name": f"Lamp {n}", "price": n} for n in range(12)]
    site = visit("cart", {"items": {"Lamp 1": 3}, "shipping": "Express"}, goods=goods)
    assert "In the cart: 0." in site.get("/", {}) and "<td>Lamp 9</td><td>$9</td>" in site.get("/", {})
    assert site.post("/add", {"name": "Lamp 1", "page": "1"}) == "/?page=1"
    assert site.post("/add", {"name": "Lamp 1", "quantity": " 2 "}) == "/?page=0"
    site.post("/add", {"name": "Lamp 2", "quantity": "1000"})
    site.post("/add", {"name": "Lamp 3", "quantity": "x"})
    assert site.cart == {"Lamp 1": 3, "Lamp 2": 999} and "In the cart: 1002." in site.get("/", {"page": "1"})
    assert 'aria-label="Remove Lamp 1"' in site.get("/cart", {}) and "<td>Lamp 2</td><td>999</td>" in site.get(
        "/cart", {}
    )
    for name in ("Lamp 2", "Lamp 3", "Lamp 7"):
        assert site.post("/remove", {"name": name}) == "/cart"
    assert "<option selected>Standard</option><option>Express</option>" in site.get("/cart", {})
    held = site.cart
    assert site.post("/order", {"shipping": "Express"}) == "/done" and site.is_right
    held["Lamp 1"] = 9
    assert site.is_right


def test_a_calendar_turns_its_months_shows_taken_hours_and_books():
    goal = {"date": "2027-02-03", "hour": "10:00", "title": "Review"}
    site = visit("calendar", goal, start="2026-11-01", taken={"2027-02-03": ["09:00", "15:00"]})
    now = site.get("/", {})
    assert "<h1>November 2026</h1>" in now and "Previous month" not in now and 'href="/?month=1"' in now
    assert "<tr><td></td><td></td><td></td><td></td><td></td><td></td><td><a" in now  # the first is a Sunday
    later = site.get("/", {"month": "3"})
    assert "<h1>February 2027</h1>" in later and 'href="/?month=2">Previous month' in later
    assert later.count('<a href="/?day=') == 28 and 'day=2027-02-28" aria-label="28 February 2027">28<' in later
    assert "<h1>December 2026</h1>" in site.get("/", {"month": "1"})
    assert "<h1>November 2028</h1>" in site.get("/", {"month": "25"})  # 24 months are as far as it goes
    day = site.get("/", {"day": "2027-02-03"})
    assert "<h1>3 February 2027</h1>" in day and "<p>Taken: 09:00, 15:00</p>" in day
    assert re.findall("<option[^>]*>([^<]*)<", day) == ["", "10:00", "11:00", "14:00", "16:00"]
    assert "All hours are free." in site.get("/", {"day": "2027-02-04"}) and "No such day" in site.get(
        "/", {"day": "x"}
    )
    assert site.post("/book", {**goal, "title": " Review "}) == "/done" and site.is_right


def test_a_step_goes_to_the_exact_label_then_to_one_in_another_case_and_else_to_nothing():
    labels = ("send", "Send", "Name")
    page = PageView("t", "", tuple(PageElement(n, "button", label, "", ()) for n, label in enumerate(labels)))
    assert step_on(page, ErrandStep("click", "Send")) == "click[2]"
    assert step_on(page, ErrandStep("type", "NAME", "Ann B")) == "type[3] Ann B"
    assert step_on(page, ErrandStep("click", "Go")) == "click[0]"
    site = visit("form", {}, fields=[], pages=1)
    assert [site.optimal(page), site.optimal(page)] == ["click[2]"] * 2
    assert site.random_words(page, Random(1)) in ("Do", "it", "now.")


def test_a_step_is_exact_with_the_one_right_element_operation_and_value_in_order():
    step = ChoiceStep("i", "Fly", (), ("a", "b"), 1, "TYPE", "10 to  12")
    for answer in (
        "Answer: C.\nAction: TYPE\nValue: 10 to 12",
        "I pick C.\nanswer: (c)\naction: type\nvalue: 10 TO 12 \n",
    ):
        assert is_exact(answer, step), answer
    for value, action in (("12 to 10", "TYPE"), ("10 to 12 12", "TYPE"), ("TYPE 10 to 12", ""), ("10 to 12", "CLICK")):
        assert not is_exact(f"Answer: C.\nAction: {action}\nValue: {value}", step), value
    assert not is_exact("Answer: B.\nAction: TYPE\nValue: 10 to 12", step)
    for more in ("Answer: B", "Action: CLICK", "Value: 12"):
        assert not is_exact(f"Answer: C.\nAction: TYPE\nValue: 10 to 12\n{more}", step), more
    click = step._replace(operation="CLICK", value="")
    assert is_exact("Answer: C.\nAction: CLICK", click) and is_exact("Answer: C.\nAction: CLICK\nValue:", click)
    assert not is_exact("Answer: C.\nValue: click", click) and not is_exact("", click)
    swapped = step._replace(value="click hello")
    assert not is_exact("Answer: C.\nAction: CLICK\nValue: TYPE hello", swapped)
    assert operation_f1("CLICK", "TYPE hello", swapped) == 1, "as published"


def test_answers_of_mind2web_are_read_scored_and_asked_for():
    assert parse_choice("Answer: B.\nAction: type\nValue:  New York \nmore") == (0, "TYPE", "New York")
    assert parse_choice("ANSWER: (f)") == (4, "", "") and parse_choice("Answer: A") == (-1, "", "")
    assert parse_choice("Answer: Both") == (-1, "", "")
    step = ChoiceStep("i", "Book", ("1", "2", "3", "4", "5", "6"), ("<a> x", "<b> y"), 1, "TYPE", "New York")
    assert operation_f1("type", "york", step) == pytest.approx(2 * 2 / 5) and operation_f1("CLICK", "", step) == 0.0
    assert operation_f1("TYPE", "NEW york", step) == 1.0
    asked = question(step)
    assert asked.startswith("Task: Book\nPrevious actions:\n2\n3\n4\n5\n6\nWhat should be")
    assert "A. None of the above\nB. <a> x\nC. <b> y\n" in asked
    assert "Previous actions:\nNone\n" in question(step._replace(before=()))


def test_elements_are_told_by_tag_attributes_and_the_words_inside_them():
    html = (
        '<div backend_node_id="1" role="list">One <b backend_node_id="2">two</b><br backend_node_id="3">three'
        '<input backend_node_id="4" type="text" placeholder="City" class="c"/></div> out'
        f'<p backend_node_id="5">{"w" * 100} x</p><p backend_node_id="6"><i>{"v" * 159}</i><i>u</i><i>t</i></p>'
    )
    assert PageElements(html) == {
        "1": "<div list> One two three", "2": "<b> two", "3": "<br>", "4": "<input City text>",
        "5": f"<p> {'w' * 100} x", "6": f"<p> {'v' * 156}",
    }  # fmt: skip


def test_steps_of_a_session_keep_the_actions_before_them_and_leave_out_what_cannot_be_asked(tmp_path: Path):
    def action(right: list[int], others: range, op: str, value: str | None = None) -> dict[str, Any]:
        html = "".join(f'<a backend_node_id="{n}">link {n}</a>' for n in range(12))
        nodes = {"pos_candidates": right, "neg_candidates": others}
        made = {key: [{"backend_node_id": n} for n in each] for key, each in nodes.items()}
        return {**made, "cleaned_html": html, "operation": {"op": op, "value": value}}

    record = {
        "annotation_id": "s1", "confirmed_task": "Go", "action_reprs": ["r0", "r1", "r2", "r3"],
        "actions": [
            action([77, 3], range(4, 12), "CLICK"), action([1], range(2, 3), "HOVER"),
            action([99], range(2, 3), "CLICK"), action([0], range(1, 3), "SELECT", "Two"),
        ],
    }  # fmt: skip
    (tmp_path / "b.json").write_text(json.dumps([record]))
    (tmp_path / "a.json").write_text(json.dumps([{**record, "annotation_id": "s0", "actions": record["actions"][3:]}]))
    steps = read_steps(tmp_path, 4)
    assert [step.id for step in steps] == ["s0-00", "s1-00", "s1-03"]
    assert steps[1].before == () and steps[2].before == ("r0", "r1", "r2") and steps[2].task == "Go"
    assert len(steps[1].choices) == 5 and steps[1].choices[steps[1].right] == "<a> link 3"
    assert set(steps[2].choices) == {"<a> link 0", "<a> link 1", "<a> link 2"}
    assert steps[2].choices[steps[2].right] == "<a> link 0"
    assert (steps[2].operation, steps[2].value, steps[1].operation, steps[1].value) == ("SELECT", "Two", "CLICK", "")
    assert read_steps(tmp_path, 4) == steps and read_steps(tmp_path / "b.json", 4) == steps[1:]
    assert any(read_steps(tmp_path, seed) != steps for seed in range(5, 9))
    for body in ("{}", '[{"actions": []}]', "no"):
        (tmp_path / "a.json").write_text(body)
        with pytest.raises(DataError, match=r"a\.json"):
            read_steps(tmp_path, 0)


def test_the_words_of_a_miniwob_task_become_steps():
    def steps(task: str) -> list[tuple[str, ...]]:
        return [tuple(step) for step in steps_for(task)]

    assert steps('Enter the username "ann" and the password "x y" into the text fields') == [
        ("type", "username", "ann"), ("type", "password", "x y"), ("click", "Login", ""),
    ]  # fmt: skip
    assert steps("Select a, b c and click Submit.") == [
        ("click", "a", ""), ("click", "b c", ""), ("click", "Submit", ""),
    ]  # fmt: skip
    assert steps("Select nothing and click Submit.") == [("click", "Submit", "")]
    assert steps("Select Kim from the list and click Submit.") == [
        ("select", "options", "Kim"),
        ("click", "Submit", ""),
    ]
    assert steps("Focus into the 3rd input textbox.") == [("click", "tt3", "")] and steps("Draw a circle") == []


FIELD = PageElement(5, "text field", "Name", "", ())


def browsing(**more: object) -> BrowseWorld:
    world = BrowseWorld(partial(visit, "form", {}, fields=[], pages=1), BrowserPool())
    world.site, world._dialog, world._crashed = world.visit(), None, False
    elements = (
        PageElement(0, "link", "Next", "", ()), FIELD, PageElement(1, "choice", "Hour", "9", ("9", "", "10")),
        PageElement(3, "check box", "On", "yes", ()),
    )  # fmt: skip
    world._page = PageView("Form", "x" * 3001, elements)
    for name, value in more.items():
        setattr(world.site, name, value)
    return world


def test_a_browse_world_reads_actions_and_renders_the_page_or_the_dialog():
    world = browsing()
    assert world.render() == (
        f"Page: Form\n{'x' * 3000}\nElements:\n[1] link 'Next'\n[2] text field 'Name' = \n"
        "[3] choice 'Hour' = 9 (options: 9, 10)\n[4] check box 'On' = yes"
    )
    for text, call in [
        (" CLICK [ 3 ] ", ("click", {"number": 3})), ("type[2]  a b ", ("type", {"number": 2, "text": "a b"})),
        ("Select[3] 10", ("select", {"number": 3, "option": "10"})), ("Accept", ("accept", {})),
        ("look[]", ("look", {})), ("dismiss", ("dismiss", {})),
    ]:  # fmt: skip
        assert world.read(text) == call
    with pytest.raises(InvalidAction, match=r"'press Enter' is no action: write click\[n\].*of an element$"):
        world.read("press Enter")
    more = browsing(verbs=("hover", "drag", "press"))
    assert more.read("drag[1] [4]") == ("drag", {"number": 1, "onto": 4}) and more.read("hover[2]") == (
        "hover",
        {"number": 2},
    )
    assert more.read("press enter") == ("press", {"key": "enter"})
    for text, said in (("drag[1] x", "'x' is no element to drag onto"), ("go", "also hover, drag, press$")):
        with pytest.raises(InvalidAction, match=said):
            more.read(text)
    assert [move.__name__ for move in more.moves] == [
        "click", "type", "select", "hover", "drag", "press", "accept", "dismiss", "look",
    ]  # fmt: skip
    assert more.form is not None and re.fullmatch(more.form, "drag[4] 2") and re.fullmatch(more.form, "press Tab")
    rng = Random(0)
    drawn = {world.random(rng) for _ in range(300)}
    assert drawn == {"click[1]", "click[4]", "select[3] 9", "select[3] ", "select[3] 10",
                     "type[2] Do", "type[2] it", "type[2] now."}  # fmt: skip
    world._dialog = "Sure?"
    assert world.render() == "A dialog asks: Sure?\nPossible actions: accept, dismiss"
    assert {world.random(rng) for _ in range(20)} == {"accept", "dismiss"} and world.ending is None
    with pytest.raises(InvalidAction, match="'Enter' cannot be pressed"):
        asyncio.run(world.press("Enter"))
    world._crashed = True
    assert world.ending == "browser crashed"


def test_a_browse_world_uses_the_browser_and_tells_what_fails():
    world = browsing(verbs=("press",))
    page = PageView("Then", "text", ())
    done: list[tuple[object, ...]] = []

    class Used:
        def __getattr__(self, name: str) -> Any:
            return lambda *given: done.append((name, *given))

        def seen(self, before: PageView, script: str) -> tuple[PageView, str | None]:
            return (before if before.title == "Form" and done[-1][0] != "answer" else page), None

        def hover(self, element: PageElement) -> None:
            raise CannotUse("another element covers it")

        def press(self, key: str) -> None:
            raise ConnectionError("gone")

    world._browser = Used()  # type: ignore[assignment]
    elements = world._page.elements
    asyncio.run(world.click(1))
    asyncio.run(world.type(2, "y" * MAX_TYPED))
    asyncio.run(world.select(3, " 10 "))
    assert done == [("click", elements[0]), ("type", elements[1], "y" * MAX_TYPED), ("select", elements[2], "10")]
    with pytest.raises(InvalidAction, match=f"the text has {MAX_TYPED + 1} characters: at most 200"):
        asyncio.run(world.type(2, "y" * (MAX_TYPED + 1)))
    with pytest.raises(InvalidAction, match=r"the browser could not do that \(another element covers it\)"):
        asyncio.run(world.hover(4))
    for made, said in (
        (world.click(5), "there is no element 5: there are 1 to 4"),
        (world.click(3), r"use select\[3\]"),
    ):
        with pytest.raises(InvalidAction, match=said):
            asyncio.run(made)
    world._dialog = "Sure?"
    assert asyncio.run(world.dismiss()) == "Page: Then\ntext\nElements:" and done[-1] == ("answer", False)
    assert (
        asyncio.run(world.press("tab")) == "The browser failed (ConnectionError)." and world.ending == "browser crashed"
    )


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ("<li backend_node_id='2'>a</div>b", {"0": "a b c", "1": "a", "2": "a"}),
        ("<li backend_node_id='2'>a</li>b</div>c", {"0": "a b c c", "1": "a b", "2": "a"}),
        ("<li backend_node_id='2'><i backend_node_id='3'>a</div>b</i>", {"0": "a b c", "1": "a", "2": "a", "3": "a"}),
        ("<div backend_node_id='2'>a</div>b</div>d", {"0": "a b d c", "1": "a b", "2": "a"}),
        ("a</u>b</div></div>d", {"0": "a b d c", "1": "a b"}),
        ("<i backend_node_id='2'/>a</div>b", {"0": "a b c", "1": "a", "2": ""}),
        ("<br backend_node_id='2'>a</br>b", {"0": "a b c", "1": "a b", "2": ""}),
    ],
)
def test_an_end_tag_closes_the_last_element_of_its_name_and_what_is_open_within_it(
    inner: str, words: dict[str, str]
) -> None:
    found = PageElements(f"<p backend_node_id='0'><div backend_node_id='1'>{inner}<b>c</b></p>d")
    said = {id: re.sub("^<[^>]*> ?", "", text) for id, text in found.items()}
    if "</div>" not in inner:
        words = {**words, "1": f"{words['1']} c"}
    assert said == words
