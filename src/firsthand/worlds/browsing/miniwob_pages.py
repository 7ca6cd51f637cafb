"""MiniWoB++'s pages, begun and rewarded by their own scripts (Shi et al., 2017; Liu et al., 2018).

The pages come from the package `miniwob` or from a folder with its HTML files. An episode begins as the package begins it:
the page's random numbers get the seed, then `core.startEpisodeReal()` makes the problem. Left out: FlightWoB.
"""

from __future__ import annotations

import importlib.util
import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

from firsthand.errors import DataError, MissingExtra
from firsthand.message import Json
from firsthand.system.ordinary_file import read_ordinary
from firsthand.worlds.browsing.chromium import WRITTEN_AS, Chromium, PageView
from firsthand.worlds.browsing.errands import ErrandStep
from firsthand.worlds.browsing.pages import step_on
from firsthand.worlds.browsing.site import Answer

_REWARD = "[WOB_DONE_GLOBAL, WOB_REWARD_GLOBAL, WOB_RAW_REWARD_GLOBAL, WOB_REWARD_REASON]"
VISIBLE = (
    r"""(() => {
const writtenAs = """
    + WRITTEN_AS
    + r""";
const elements = [], found = [], area = document.getElementById('wrap') || document.body;
const roots = [area, ...document.querySelectorAll('body > .ui-dialog, body > .ui-datepicker, body > .ui-menu')];
const own = e => [...e.childNodes].filter(c => c.nodeType === 3).map(c => c.data).join(' ').trim();
const inputs = {checkbox: 'check box', radio: 'radio button', button: 'button', submit: 'button', reset: 'button',
  image: 'button', file: 'thing'};
const shapes = ['circle', 'rect', 'polygon', 'path', 'text', 'img', 'canvas'];
for (const e of roots.flatMap(root => [...root.querySelectorAll('*')])) {
  const b = e.getBoundingClientRect(), tag = e.tagName.toLowerCase(), style = getComputedStyle(e);
  if (!b.width || !b.height || e.matches(':disabled') || style.visibility === 'hidden' || e.closest('#query')) continue;
  let kind = {a: 'link', button: 'button', select: 'choice', textarea: 'text field'}[tag];
  if (tag === 'input') kind = inputs[e.type] || 'text field';
  if (!kind && e.closest('a, button, label, select')) continue;
  if (!kind && (own(e) || shapes.includes(tag) || style.cursor === 'pointer' || e.onclick)) kind = 'thing';
  if (!kind) continue;
  const named = e.labels && e.labels.length ? e.labels[0].innerText : '';
  const label = e.getAttribute('aria-label') || named || (tag === 'select' ? '' : e.innerText || own(e)) || e.placeholder
    || e.title || e.id || (typeof e.className === 'string' ? e.className : e.className.baseVal) || tag;
  const colour = shapes.includes(tag) && style.fill !== 'none' ? ` (${tag} ${e.getAttribute('fill') || style.fill})` : '';
  const held = kind.match(/field|choice/) ? e.value : '';
  const value = ['checkbox', 'radio'].includes(e.type) ? (e.checked ? 'yes' : 'no') : held;
  const options = tag === 'select' ? [...e.options].filter(o => !o.matches(':disabled')).map(o => o.text) : [];
  const form = writtenAs(e) ? ` (${e.type}: ${writtenAs(e)})` : '';
  found.push([elements.push(e) - 1, kind, (label.trim() + colour).slice(0, 200) + form, value || '', options]);
}
window.firsthandElements = elements;
const asked = document.getElementById('query'), text = roots.map(e => e.innerText).join('\n');
return [asked ? asked.textContent.replace(/\s+/g, ' ').trim() : document.title, text, found];
})()"""
)
"""The page with all that is shown on it: controls, and things with a text, a shape or a pointer. Its title is the task."""

_RULES: tuple[tuple[str, str], ...] = (
    (
        r'Enter the username "(?P<a>.+)" and the password "(?P<b>.+)" into',
        "type:username={a}|type:password={b}|click:Login",
    ),
    (r'Enter the password "(?P<a>.+)" into both', "type:password={a}|type:verify={a}|click:Submit"),
    (r'Enter "(?P<a>.+)" into the text field and press Submit', "type:tt={a}|click:Submit"),
    (r"Click button ONE, then click button TWO", "click:ONE|click:TWO"),
    (r"Click button (?P<a>\w+)\.", "click:{a}"),
    (r'Click on the "(?P<a>.+)" button', "click:{a}"),
    (r'Click on the link "(?P<a>.+)"', "click:{a}"),
    (r"Click on (?P<a>Tab #\d)", "click:{a}"),
    (r'Close the dialog box by clicking the "x"|dialog box labeled "x"', "click:Close"),
    (r'dialog box labeled "(?P<a>.+)"', "click:{a}"),
    (r"Click the button\.", "click:Click Me!"),
    (r"Select (?P<a>.+) from the list and click Submit", "select:options={a}|click:Submit"),
    (r"Select (?P<a>.+) and click Submit", "each:{a}|click:Submit"),
    (r"Focus into the textbox", "click:tt"),
    (r"Focus into the (?P<a>\d)\w\w input textbox", "click:tt{a}"),
)
"""The tasks that the scripted player reads, and its steps: a verb, an element's label, and what is typed or chosen."""
SCRIPTED = (
    "choose-list", "click-button", "click-button-sequence", "click-checkboxes", "click-checkboxes-large",
    "click-checkboxes-transfer", "click-dialog", "click-dialog-2", "click-link", "click-option", "click-tab", "click-test",
    "click-test-2", "enter-password", "enter-text", "enter-text-dynamic", "focus-text", "focus-text-2", "login-user",
)  # fmt: skip
"""The types of task that the scripted player wins."""


def steps_for(task: str) -> Iterator[ErrandStep]:
    """The steps of the scripted player at a task, by its words; none for a task that it cannot read."""
    for pattern, steps in _RULES:
        if (found := re.search(pattern, task)) is not None:
            for step in steps.split("|"):
                verb, _, rest = step.partition(":")
                label, _, value = rest.partition("=")
                given = found.groupdict()
                if verb != "each":
                    yield ErrandStep(verb, label.format(**given), value.format(**given))  # type: ignore[arg-type]
                elif given["a"] != "nothing":
                    yield from (ErrandStep("click", each) for each in given["a"].split(", "))
            return


class MiniWobVisit:
    """A `Site`: one episode of a type of task."""

    view = VISIBLE
    clicks: Sequence[str] = ("link", "button", "check box", "radio button", "text field", "thing")
    verbs: Sequence[str] = ("hover", "drag", "press")

    def __init__(self, folder: Path, kind: str, seed: int, seconds: float) -> None:
        """The folder of the HTML files, the type of task, its seed, and the seconds until the page ends the episode."""
        self.folder, self.kind, self.seed, self.seconds = folder, kind, seed, seconds
        self.first = f"/miniwob/{kind}.html"
        self.is_done, self.reward, self.raw_reward, self.task = False, 0.0, 0.0, ""
        self.reason: object = None
        self._steps: Iterator[ErrandStep] | None = None

    def answer(self, method: str, path: str, given: Mapping[str, str]) -> Answer:
        """A file of the folder."""
        file = (self.folder / path.lstrip("/")).resolve()
        if method != "GET" or not file.is_relative_to(self.folder.resolve()) or not file.is_file():
            return Answer(404, b"There is no such page.")
        return Answer(200, read_ordinary(file), mimetypes.guess_type(file.name)[0] or "application/octet-stream")

    def begin(self, browser: Chromium) -> None:
        """Set the seed and begin the episode."""
        browser.run(
            f"core.EPISODE_MAX_TIME = {1000 * self.seconds}; Math.seedrandom({self.seed}); core.startEpisodeReal()"
        )
        for _ in range(50):
            if browser.run("WOB_TASK_READY"):
                break
            browser.run("new Promise(done => setTimeout(done, 50))", wait=True)
        self.task = str(browser.run("core.getUtterance().utterance || core.getUtterance()"))

    def follow(self, browser: Chromium) -> None:
        """Read the reward, once there is one."""
        if not self.is_done and (told := browser.run(_REWARD)) is not None:
            self.is_done, self.reward, self.raw_reward, self.reason = bool(told[0]), *map(float, told[1:3]), told[3]

    def result(self) -> Json:
        """The task's words, and the package's rewards: with the time that it took, and without."""
        return {"task": self.task, "done": self.is_done, "reward": self.reward, "raw_reward": self.raw_reward}

    def optimal(self, page: PageView) -> str:
        """The next step for the task's words; `look` where it cannot be read."""
        if self._steps is None:
            self._steps = steps_for(self.task)
        step = next(self._steps, None)
        return "look" if step is None else step_on(page, step)

    def random_words(self, page: PageView, rng: Random) -> str:
        """A word of the task."""
        return rng.choice(self.task.split() or ["x"]).strip('".,')


def pages_folder(data: str) -> Path:
    """The folder with `miniwob` and `core`: `data`, or the installed package's; an error that says what to install."""
    if data:
        folder = Path(data).expanduser()
        if not (folder / "core" / "core.js").is_file():
            raise DataError(f"{folder} has no core/core.js: give the folder html of MiniWoB++")
        return folder
    found = importlib.util.find_spec("miniwob")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra("miniwob", "miniwob", "the benchmark miniwob")
    return Path(found.submodule_search_locations[0]) / "html"


def kinds_in(folder: Path) -> list[str]:
    """The types of task, by name."""
    return sorted(path.stem for path in (folder / "miniwob").glob("*.html"))
