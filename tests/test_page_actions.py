"""Actions on the numbered elements of a page: the grammar of what is possible, and each refusal word by word."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from dealt_random import Dealt
from firsthand.worlds.browsing.browse_world import BrowseWorld, _described
from firsthand.worlds.browsing.browser_pool import BrowserPool
from firsthand.worlds.browsing.chromium import KEY_CODES, PageElement, PageView
from firsthand.worlds.world import InvalidAction

ELEMENTS = (
    PageElement(4, "button", "Go", "", ()),
    PageElement(5, "text field", "Name", "old", ()),
    PageElement(6, "choice", "Hour", "9", ("Nine", "", "STRASSE", "Ünder")),
    PageElement(9, "check box", "On", "yes", ()),
)
RADIOS = (PageElement(0, "radio button", "a", "yes", ()), PageElement(1, "radio button", "b", "no", ()))
HELP = "write click[n], type[n] text, select[n] option, accept, dismiss or look, where n is the number of an element"


class Site:
    """A site with its own words, that is never done."""

    clicks, view = ("link", "button"), "the view"
    verbs: tuple[str, ...] = ()
    is_done = False

    def follow(self, browser: Any) -> None:
        """Nothing arrives."""

    def optimal(self, page: PageView) -> str:
        return f"click[{len(page.elements)}]"

    def result(self) -> dict[str, Any]:
        return {"right": True}

    def random_words(self, page: PageView, rng: Any) -> str:
        return f"word of {page.title}"


class Browser:
    """Keeps what is done with which elements."""

    def __init__(self, dialog: str | None = None) -> None:
        self.done: list[Any] = []
        self.dialog = dialog

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.done.append((name, *given))

    def seen(self, before: PageView, script: str) -> tuple[PageView, str | None]:
        return before, self.dialog

    def answer(self, accept: bool) -> None:
        self.dialog = None
        self.done.append(("answer", accept))


def page(
    *, verbs: tuple[str, ...] = (), dialog: str | None = None, elements: Any = ELEMENTS
) -> tuple[BrowseWorld, Browser]:
    world, browser = BrowseWorld(Site, BrowserPool()), Browser(dialog)  # type: ignore[arg-type]
    world.site = Site()  # type: ignore[assignment]
    world.site.verbs = verbs  # type: ignore[misc]
    world._dialog, world._crashed, world._page = dialog, False, PageView("Title", "text", elements)
    world._browser = browser  # type: ignore[assignment]
    return world, browser


def refused(made: Any) -> str:
    with pytest.raises(InvalidAction) as error:
        asyncio.run(made)
    return str(error.value)


def test_an_action_that_does_not_fit_its_element_says_which_one_does() -> None:
    world, browser = page(verbs=("hover", "drag", "press"))
    assert refused(world.click(2)) == "element 2 is a text field: use type[2]"
    assert refused(world.click(3)) == "element 3 is a choice: use select[3]"
    assert refused(world.click(4)) == "element 4 is a check box: use click[4]", "the site takes no clicks on it"
    assert refused(world.type(1, "x")) == "element 1 is a button: use click[1]"
    assert refused(world.select(2, "Nine")) == "element 2 is a text field: use type[2]"
    for number in (0, 5, -1):
        assert refused(world.hover(number)) == f"there is no element {number}: there are 1 to 4"
    assert refused(world.drag(1, 5)) == refused(world.drag(5, 1)) == "there is no element 5: there are 1 to 4"
    assert refused(world.type(2, "y" * 201)) == "the text has 201 characters: at most 200 are typed"
    told = "is no option of Hour: there are Nine, , STRASSE, Ünder"
    assert (
        refused(world.select(3, "z" * 41)) == f"{'z' * 40!r} {told}" and refused(world.select(3, "9")) == f"'9' {told}"
    )
    keys = ", ".join(KEY_CODES)
    told = f"cannot be pressed: there are {keys}, where no dialog is open"
    assert refused(world.press("k" * 21)) == f"{'k' * 20!r} {told}" and refused(world.press("")) == f"'' {told}"
    for answer in (world.accept, world.dismiss):
        assert refused(answer()) == f"no dialog is open: {HELP}"
    assert browser.done == []
    moves = [
        world.click(1), world.type(2, "y" * 200), world.select(3, " strasse "), world.select(3, ""), world.hover(4),
        world.drag(1, 4), world.press("aRROWleft"),
    ]  # fmt: skip
    shown = "Page: Title\ntext\nElements:\n[1] button 'Go'\n[2] text field 'Name' = old\n"
    shown += "[3] choice 'Hour' = 9 (options: Nine, STRASSE, Ünder)\n[4] check box 'On' = yes"
    assert [asyncio.run(each) for each in moves] == [shown] * 7 and asyncio.run(world.look()) == shown
    go, name, hour, on = ELEMENTS
    assert browser.done == [
        ("click", go), ("type", name, "y" * 200), ("select", hour, "STRASSE"), ("select", hour, ""), ("hover", on),
        ("drag", go, on), ("press", "ArrowLeft"),
    ]  # fmt: skip
    browser.done.clear()
    for text in ("NINE", "nInE", "\tNine\n", "nine", "Straße", "strasse ", "STRASSE", "ÜNDER", "ünder", "   "):
        asyncio.run(world.select(3, text))
    wanted = ["Nine"] * 4 + ["STRASSE"] * 3 + ["Ünder"] * 2 + [""]
    assert browser.done == [("select", hour, each) for each in wanted], "its case and the blanks around it do not count"
    twice, browser = page(elements=(PageElement(1, "choice", "x", "", ("a", "A")),))
    asyncio.run(twice.select(1, "A"))
    assert browser.done[0][2] == "A", "of those that differ in case alone the one that is meant"
    assert refused(world.select(3, "Ni ne")).startswith("'Ni ne' is no option of Hour")
    for key, named in (("ENTER", "Enter"), ("tab", "Tab"), ("arrowup", "ArrowUp")):
        browser.done.clear()
        world._browser = browser  # type: ignore[assignment]
        asyncio.run(world.press(key))
        assert browser.done == [("press", named)]
    assert _described(PageElement(0, "link", "it's", "v", ())) == 'link "it\'s"'
    assert _described(PageElement(0, "choice", "a", "", ("b",))) == "choice 'a' =  (options: b)"


def test_a_dialog_is_answered_before_anything_else() -> None:
    world, browser = page(dialog="Sure? " + "x" * 80)
    for made in (world.click(1), world.type(9, "x"), world.hover(0)):
        assert refused(made) == f"a dialog is open (Sure? {'x' * 74}): write accept or dismiss"
    assert "cannot be pressed" in refused(world.press("Enter"))
    assert world.admissible() == ["accept", "dismiss"] and world.optimal() == "accept"
    assert asyncio.run(world.look()) == f"A dialog asks: Sure? {'x' * 80}\nPossible actions: accept, dismiss"
    assert [world.random(Dealt(at)) for at in (0, 1)] == ["accept", "dismiss"]
    asyncio.run(world.dismiss())
    assert browser.done == [("answer", False)] and world._dialog is None and world.admissible() is None
    world._dialog = ""
    asyncio.run(world.accept())
    assert browser.done[1:] == [("answer", True)] and world.optimal() == "click[4]"
    assert asyncio.run(world.result()) == {"right": True} and world.ending is None
    world.site.is_done = True  # type: ignore[misc]
    assert world.ending == "done"
    world._crashed = True
    assert world.ending == "browser crashed"


def test_a_text_action_is_read_by_its_verb_and_number() -> None:
    plain, _ = page()
    full, _ = page(verbs=("hover", "drag", "press"))
    reads = {
        "click[12]": ("click", {"number": 12}), " CLICK  [ 3 ]  words": ("click", {"number": 3}),
        "type[2]": ("type", {"number": 2, "text": ""}), "Type[2] a\nb ": ("type", {"number": 2, "text": "a\nb"}),
        "select[1]  x y ": ("select", {"number": 1, "option": "x y"}), "LOOK[]": ("look", {}), "accept": ("accept", {}),
    }  # fmt: skip
    for world in (plain, full):
        assert {text: world.read(text) for text in reads} == reads
    more = {
        "hover[7]": ("hover", {"number": 7}), "Drag[1] [02]": ("drag", {"number": 1, "onto": 2}),
        "press Arrowleft": ("press", {"key": "Arrowleft"}), "drag[1] 9999": ("drag", {"number": 1, "onto": 9999}),
    }  # fmt: skip
    assert {text: full.read(text) for text in more} == more
    for text in (*more, "click[12345]", "click 3", "go", "x" * 61, "accept it"):
        with pytest.raises(InvalidAction) as error:
            plain.read(text)
        assert str(error.value) == f"{text[:60]!r} is no action: {HELP}"
    with pytest.raises(InvalidAction, match=r"of an element; also hover, drag, press$"):
        full.read("press no such")
    for onto in ("", "x", "10000", "²", "-1"):
        with pytest.raises(InvalidAction) as error:
            full.read(f"drag[1] {onto}")
        told = "is no element to drag onto: write drag[n] m, both numbers of elements"
        assert str(error.value) == f"{onto!r} {told}"
    assert [move.__name__ for move in plain.moves] == ["click", "type", "select", "accept", "dismiss", "look"]
    hover, _ = page(verbs=("hover",))
    assert [move.__name__ for move in hover.moves][2:4] == ["select", "hover"]


def test_the_grammar_has_each_verb_with_the_numbers_it_fits() -> None:
    plain, _ = page()
    assert plain.form == r"(click\[(1)\]|type\[(2)\] [^\n]{1,100}|select\[(3)\] [^\n]{1,60}|look)"
    full, _ = page(verbs=("hover", "drag", "press"))
    keys = "|".join(KEY_CODES)
    assert full.form == (
        r"(click\[(1)\]|type\[(2)\] [^\n]{1,100}|select\[(3)\] [^\n]{1,60}|hover\[(1|2|3|4)\]"
        rf"|drag\[(1|2|3|4)\] [0-9]{{1,3}}|press ({keys})|look)"
    )
    empty, _ = page(verbs=("hover", "drag", "press"), elements=())
    assert empty.form == "(look)" and plain.form is not None and re.fullmatch(plain.form, "click[1]")
    assert empty.random(Dealt(1)) == "dismiss"


def test_random_actions_fit_the_kind_of_the_element() -> None:
    class Numbers(Dealt):
        def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
            self.asked.append(start)
            return self.places.pop(0)

    world, _ = page()
    drawn = Numbers(0)
    assert world.random(drawn) == "click[1]" and drawn.asked == [4]
    assert world.random(Numbers(1)) == "type[2] word of Title" and world.random(Numbers(3)) == "click[4]"
    assert world.random(Numbers(2, 2)) == "select[3] STRASSE" and world.random(Numbers(2, 1)) == "select[3] "
    bare, _ = page(elements=(PageElement(0, "choice", "x", "", ()),))
    assert bare.random(Numbers(0, 0)) == "select[1] "


def test_whether_a_radio_button_is_chosen_is_shown() -> None:
    assert [_described(each) for each in RADIOS] == ["radio button 'a' = yes", "radio button 'b' = no"]
    assert _described(PageElement(0, "thing", "a", "x", ())) == "thing 'a'"


def test_a_dialog_without_text_is_a_dialog() -> None:
    world, browser = page(verbs=("hover", "drag", "press"), dialog="")
    for made in (world.click(1), world.type(2, "x"), world.select(3, "Nine"), world.hover(1), world.drag(1, 2)):
        assert refused(made) == "a dialog is open (): write accept or dismiss"
    assert "where no dialog is open" in refused(world.press("Enter"))
    assert asyncio.run(world.look()) == world.render() == "A dialog asks: \nPossible actions: accept, dismiss"
    assert (world.admissible(), world.optimal(), browser.done) == (["accept", "dismiss"], "accept", [])
    assert [world.random(Dealt(at)) for at in (0, 1)] == ["accept", "dismiss"]
