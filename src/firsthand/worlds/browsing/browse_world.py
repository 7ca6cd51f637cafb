"""An errand on a web site as a World: the page as text with numbered elements, and actions on these numbers."""

from __future__ import annotations

import re
import threading
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

from firsthand.loop.concurrency import in_thread
from firsthand.message import Json
from firsthand.worlds.browsing.browser_pool import BrowserPool
from firsthand.worlds.browsing.chromium import KEY_CODES, CannotUse, Chromium, PageElement, PageView
from firsthand.worlds.browsing.site import Site
from firsthand.worlds.world import InvalidAction, WorldCall

MAX_TEXT = 3_000
MAX_TYPED = 200
HOLDING = ("text field", "check box", "radio button", "choice")
"""The kinds of element that hold a value."""
_ACTION = re.compile(r"(click|type|select|hover|drag)\s*\[\s*(\d{1,4})\s*\]\s*(.*)", re.IGNORECASE | re.DOTALL)
_PRESS = re.compile(r"press\s+(\w{1,20})", re.IGNORECASE)
_HELP = "write click[n], type[n] text, select[n] option, accept, dismiss or look, where n is the number of an element"


class BrowseWorld:
    """One errand in a browser. `World` describes the interface; `open` waits where all browsers are in use."""

    examples = ("look", "click[2]")
    max_wait_s = None  # it waits for a browser as long as other attempts take

    def __init__(self, visit: Callable[[], Site], pool: BrowserPool) -> None:
        """A function that begins a visit, and the browsers to take one from."""
        self.visit, self.pool = visit, pool
        self._browser: Chromium | None = None
        self._page = PageView("", "", ())
        self._address = ""
        self._lock = threading.Lock()
        self._closed = False

    async def open(self) -> None:
        """Take a browser, and open the first page of the site."""
        self.site = self.visit()
        self._crashed, self._closed, self._page = False, False, PageView("", "", ())
        self._dialog: str | None = None
        await in_thread(self._begin)

    def _begin(self) -> None:
        self._address = self.pool.server.begin(self.site)
        try:
            self._visit()
        except Exception:  # a browser that has died since it was kept
            self._let_go(works=False)
            self._visit()

    def _visit(self) -> None:
        """Take a browser to the first page; nothing once the attempt was cancelled and the world closed."""
        browser = self.pool.take()
        with self._lock:
            if not self._closed:
                self._browser = browser
        if self._browser is not browser:
            return self.pool.give_back(browser)
        browser.visit(self._address)
        self.site.begin(browser)
        self._see(browser)

    def _see(self, browser: Chromium) -> None:
        self._page, self._dialog = browser.seen(self._page, self.site.view)

    def _follow(self, browser: Chromium) -> None:
        self._see(browser)
        self.site.follow(browser)

    async def close(self) -> None:
        """Give the browser back."""
        self.pool.server.end(self._address)
        with self._lock:
            self._closed = True
        await in_thread(lambda: self._let_go(works=not self._crashed))

    def _let_go(self, works: bool) -> None:
        """Give the browser back, or end one that does not work; nothing if there is none."""
        with self._lock:
            browser, self._browser = self._browser, None
        if browser is not None:
            self.pool.give_back(browser) if works else self.pool.end(browser)

    @property
    def ending(self) -> str | None:
        """`done` once something was sent, `browser crashed` if it did."""
        return "browser crashed" if self._crashed else "done" if self.site.is_done else None

    @property
    def form(self) -> str | None:
        """An action with the number of an element of the page that it can be done to."""
        elements = list(enumerate(self._page.elements, 1))
        kinds = {
            r"click\[%s\]": [number for number, each in elements if each.kind in self.site.clicks],
            r"type\[%s\] [^\n]{1,100}": [number for number, each in elements if each.kind == "text field"],
            r"select\[%s\] [^\n]{1,60}": [number for number, each in elements if each.kind == "choice"],
            r"hover\[%s\]": [number for number, _ in elements if "hover" in self.site.verbs],
            r"drag\[%s\] [0-9]{1,3}": [number for number, _ in elements if "drag" in self.site.verbs],
        }
        possible = [each % f"({'|'.join(map(str, numbers))})" for each, numbers in kinds.items() if numbers]
        possible += [f"press ({'|'.join(KEY_CODES)})"] if elements and "press" in self.site.verbs else []
        return f"({'|'.join([*possible, 'look'])})"

    @property
    def moves(self) -> Sequence[Callable[..., Awaitable[str]]]:
        """Click, type, select, what else the site takes, the answers to a dialog, and look."""
        others = (each for each in (self.hover, self.drag, self.press) if each.__name__ in self.site.verbs)
        return (self.click, self.type, self.select, *others, self.accept, self.dismiss, self.look)

    def read(self, action: str) -> WorldCall:
        """The move that a text action means."""
        text = action.strip()
        if text.lower().rstrip("[]") in ("accept", "dismiss", "look"):
            return WorldCall(text.lower().rstrip("[]"), {})
        if "press" in self.site.verbs and (pressed := _PRESS.fullmatch(text)) is not None:
            return WorldCall("press", {"key": pressed[1]})
        found = _ACTION.fullmatch(text)
        if found is None or (found[1].lower() in ("hover", "drag") and found[1].lower() not in self.site.verbs):
            more = f"; also {', '.join(self.site.verbs)}" if self.site.verbs else ""
            raise InvalidAction(f"{text[:60]!r} is no action: {_HELP}{more}")
        verb, given = found[1].lower(), {"number": int(found[2])}
        if verb in ("click", "hover"):
            return WorldCall(verb, given)
        if verb == "drag":
            onto = found[3].strip().strip("[]")
            if not (onto.isascii() and onto.isdecimal() and len(onto) < 5):
                raise InvalidAction(
                    f"{found[3][:40]!r} is no element to drag onto: write drag[n] m, both numbers of elements"
                )
            return WorldCall(verb, {**given, "onto": int(onto)})
        return WorldCall(verb, {**given, ("text" if verb == "type" else "option"): found[3].strip()})

    def admissible(self) -> Sequence[str] | None:
        """The answers to an open dialog; None otherwise, as texts are free."""
        return ["accept", "dismiss"] if self._dialog is not None else None

    def render(self) -> str:
        """The page in text, as the agent sees it."""
        if self._dialog is not None:
            return f"A dialog asks: {self._dialog}\nPossible actions: accept, dismiss"
        lines = [f"[{number}] {_described(each)}" for number, each in enumerate(self._page.elements, 1)]
        text = self._page.text[:MAX_TEXT]
        return "\n".join([f"Page: {self._page.title}", text, "Elements:", *lines])

    async def result(self) -> Json:
        """The site's report of the page as it is now: what was done may take effect after the last action was answered."""
        if self._browser is not None and not (self._crashed or self.site.is_done):
            await self._use(lambda browser: None)
        return self.site.result()

    def optimal(self) -> str:
        """The next step of the site's own player; a dialog is accepted."""
        return "accept" if self._dialog is not None else self.site.optimal(self._page)

    def random(self, rng: Random) -> str:
        """An action on one of the elements."""
        if self._dialog is not None or not self._page.elements:
            return rng.choice(("accept", "dismiss"))
        number = rng.randrange(len(self._page.elements))
        element = self._page.elements[number]
        if element.kind == "choice":
            return f"select[{number + 1}] {rng.choice(element.options or ('',))}"
        if element.kind == "text field":
            return f"type[{number + 1}] {self.site.random_words(self._page, rng)}"
        return f"click[{number + 1}]"

    async def click(self, number: int) -> str:
        """Click a link, a button, a check box or another thing that can be clicked.

        Args:
            number: The number of the element on the page.
        """
        element = self._element(number, self.site.clicks)
        return await self._use(lambda browser: browser.click(element))

    async def type(self, number: int, text: str) -> str:
        """Type into a text field, in place of what it holds.

        Args:
            number: The number of the element on the page.
            text: The text.
        """
        element = self._element(number, ("text field",))
        if len(text) > MAX_TYPED:
            raise InvalidAction(f"the text has {len(text)} characters: at most {MAX_TYPED} are typed")
        return await self._use(lambda browser: browser.type(element, text))

    async def select(self, number: int, option: str) -> str:
        """Choose an option.

        Args:
            number: The number of the element on the page.
            option: The option's text; another case is taken where only one option is meant.
        """
        element = self._element(number, ("choice",))
        said = option.strip()
        alike = {each for each in element.options if each.casefold() == said.casefold()}
        if said not in alike and len(alike) != 1:
            what = "is more than one option" if alike else "is no option"
            raise InvalidAction(f"{option[:40]!r} {what} of {element.label}: there are {', '.join(element.options)}")
        wanted = said if said in alike else alike.pop()
        return await self._use(lambda browser: browser.select(element, wanted))

    async def hover(self, number: int) -> str:
        """Move the mouse over an element.

        Args:
            number: The number of the element on the page.
        """
        element = self._element(number)
        return await self._use(lambda browser: browser.hover(element))

    async def drag(self, number: int, onto: int) -> str:
        """Drag an element onto another one.

        Args:
            number: The number of the element on the page.
            onto: The number of the element where it is let go.
        """
        element, target = self._element(number), self._element(onto)
        return await self._use(lambda browser: browser.drag(element, target))

    async def press(self, key: str) -> str:
        """Press a key.

        Args:
            key: Enter, Tab, Escape, Backspace, Delete, ArrowLeft, ArrowUp, ArrowRight or ArrowDown.
        """
        named = next((each for each in KEY_CODES if each.casefold() == key.casefold()), None)
        if self._dialog is not None or named is None:
            raise InvalidAction(
                f"{key[:20]!r} cannot be pressed: there are {', '.join(KEY_CODES)}, where no dialog is open"
            )
        return await self._use(lambda browser: browser.press(named))

    async def look(self) -> str:
        """Look at the page as it is now."""
        return await self._use(lambda browser: None)

    async def accept(self) -> str:
        """Accept the dialog that is open."""
        return await self._answer(True)

    async def dismiss(self) -> str:
        """Dismiss the dialog that is open."""
        return await self._answer(False)

    async def _answer(self, accept: bool) -> str:
        if self._dialog is None:
            raise InvalidAction(f"no dialog is open: {_HELP}")
        return await self._use(lambda browser: browser.answer(accept))

    def _element(self, number: int, kinds: Sequence[str] | None = None) -> PageElement:
        """The element of a number; InvalidAction if there is none, or if it is of none of the kinds."""
        if self._dialog is not None:
            raise InvalidAction(f"a dialog is open ({self._dialog[:80]}): write accept or dismiss")
        if not 1 <= number <= len(self._page.elements):
            raise InvalidAction(f"there is no element {number}: there are 1 to {len(self._page.elements)}")
        element = self._page.elements[number - 1]
        if kinds is not None and element.kind not in kinds:
            verb = {"choice": "select", "text field": "type"}.get(element.kind, "click")
            raise InvalidAction(f"element {number} is a {element.kind}: use {verb}[{number}]")
        return element

    async def _use(self, act: Callable[[Chromium], Any]) -> str:
        """The page after an act in the browser; what fails there is told, and a crash ends the attempt."""
        browser = self._browser
        assert browser is not None, "the world is open"

        def work() -> None:
            try:
                act(browser)
            except CannotUse:
                self._follow(browser)
                raise
            self._follow(browser)

        try:
            await in_thread(work)
        except CannotUse as error:
            raise InvalidAction(f"the browser could not do that ({error}): look at the page again") from None
        except Exception as error:
            name = type(error).__name__
            self._crashed = True
            return f"The browser failed ({name})."
        return self.render()


def _described(element: PageElement) -> str:
    held = f" = {element.value}" if element.kind in HOLDING else ""
    options = f" (options: {', '.join(each for each in element.options if each)})" if element.options else ""
    return f"{element.kind} {element.label!r}{held}{options}"
