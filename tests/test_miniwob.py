"""MiniWoB++: the scripted player's reading of tasks, the files that a page may ask for, and real episodes (slow)."""

import asyncio
import importlib.util
import os
import re
import shutil
from pathlib import Path
from random import Random

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError, DataError, ToolError
from firsthand.patterns.thought_action import thought_action
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.trace import Trace
from firsthand.worlds.browsing.browse_world import BrowseWorld
from firsthand.worlds.browsing.browser_pool import BrowserPool
from firsthand.worlds.browsing.chromium import BROWSERS, PageElement, PageView
from firsthand.worlds.browsing.errands import ErrandStep
from firsthand.worlds.browsing.miniwob_pages import SCRIPTED, MiniWobVisit, kinds_in, pages_folder, steps_for
from firsthand.worlds.browsing.pages import step_on
from firsthand.worlds.players import play
from firsthand.worlds.world import InvalidAction, WorldCall

FOLDER = os.environ.get("FIRSTHAND_MINIWOB", "")
"""A folder `html` of MiniWoB++, where the package is not installed."""


@pytest.mark.parametrize(
    ("task", "steps"),
    [
        ("Click the button.", [("click", "Click Me!", "")]),
        ("Click button ONE, then click button TWO.", [("click", "ONE", ""), ("click", "TWO", "")]),
        ('Click on the "Yes" button.', [("click", "Yes", "")]),
        ('Click the button in the dialog box labeled "x".', [("click", "Close", "")]),
        ("Select nothing and click Submit.", [("click", "Submit", "")]),
        ("Select aB, c d and click Submit.", [("click", "aB", ""), ("click", "c d", ""), ("click", "Submit", "")]),
        ("Select Peru from the list and click Submit.", [("select", "options", "Peru"), ("click", "Submit", "")]),
        (
            'Enter the username "ann" and the password "x=1" into the text fields and press login.',
            [("type", "username", "ann"), ("type", "password", "x=1"), ("click", "Login", "")],
        ),
        ("Draw a circle centered around the marked point.", []),
    ],
)
def test_the_scripted_player_reads_a_task_by_its_words(task: str, steps: list[tuple[str, str, str]]):
    assert list(steps_for(task)) == steps


def test_a_step_takes_the_element_of_its_label_and_another_case_only_if_need_be():
    page = PageView(
        "t", "", tuple(PageElement(n, "button", label, "", ()) for n, label in enumerate(("yes", "Yes", "no")))
    )
    assert step_on(page, ErrandStep("click", "Yes")) == "click[2]"
    assert step_on(page, ErrandStep("click", "NO")) == "click[3]"
    assert step_on(page, ErrandStep("type", "gone", "a b")) == "type[0] a b"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    html = tmp_path / "html"
    for name, text in (
        ("core/core.js", "var core = {};"),
        ("miniwob/click-test.html", "<p>"),
        ("miniwob/drag.html", ""),
    ):
        (html / name).parent.mkdir(parents=True, exist_ok=True)
        (html / name).write_text(text)
    (tmp_path / "secret.txt").write_text("secret")
    (html / "core" / "out").symlink_to(tmp_path / "secret.txt")
    return html


def test_a_page_gets_the_files_of_its_folder_and_no_others(folder: Path):
    visit = MiniWobVisit(folder, "click-test", 0, 10)
    page, script = visit.answer("GET", "/miniwob/click-test.html", {}), visit.answer("GET", "/core/core.js", {})
    assert (page.status, page.body, page.kind) == (200, b"<p>", "text/html") and "javascript" in script.kind
    for path in ("/../secret.txt", "/miniwob/../../secret.txt", "/core/out", "/miniwob", "/none", "//etc/passwd"):
        assert visit.answer("GET", path, {}).status == 404, path
    assert visit.answer("POST", "/core/core.js", {}).status == 404


def test_a_folder_beside_it_whose_name_begins_alike_is_not_served(folder: Path):
    beside = folder.parent / "html-private"
    beside.mkdir()
    (beside / "key.txt").write_text("key")
    visit = MiniWobVisit(folder, "click-test", 0, 10)
    assert visit.answer("GET", "/../html-private/key.txt", {}).status == 404
    (folder / "core" / "odd.zzz").write_bytes(b"\x00")
    odd = visit.answer("GET", "/core/odd.zzz", {})
    assert (odd.status, odd.body, odd.kind) == (200, b"\x00", "application/octet-stream")


class Page:
    """A browser that answers with given values and keeps what it is asked to run."""

    def __init__(self, *values):
        self.values, self.ran = list(values), []

    def run(self, code, wait=False):
        self.ran.append((code, wait))
        return self.values.pop(0)


def test_an_episode_begins_with_its_seed_waits_for_the_task_and_reads_the_first_reward(folder: Path):
    visit = MiniWobVisit(folder, "click-test", 7, 2.5)
    assert visit.first == "/miniwob/click-test.html"
    page = Page(None, False, None, True, "Click the button.")
    visit.begin(page)
    codes = [code for code, _ in page.ran]
    assert codes[0] == "core.EPISODE_MAX_TIME = 2500.0; Math.seedrandom(7); core.startEpisodeReal()"
    assert codes[1] == codes[3] == "WOB_TASK_READY" and page.ran[2][1] and "50" in codes[2] and len(codes) == 5
    assert visit.result() == {"task": "Click the button.", "done": False, "reward": 0.0, "raw_reward": 0.0}
    late = Page(None, *[False, None] * 50, "x")
    visit.begin(late)
    assert len(late.ran) == 102 and visit.task == "x"
    visit.follow(Page(None))
    assert not visit.is_done
    visit.follow(Page([False, 0, 0, None]))
    assert not visit.is_done
    visit.follow(Page([True, 0.5, 1, "done"]))
    assert visit.result() == {"task": "x", "done": True, "reward": 0.5, "raw_reward": 1.0} and visit.reason == "done"
    visit.follow(Page())  # the reward is not read again
    rng = Random(0)
    visit.task = '"one," two.'
    assert {visit.random_words(None, rng) for _ in range(20)} == {"one", "two"}
    visit.task = ""
    assert visit.random_words(None, rng) == "x" and visit.optimal(None) == "look"


def test_names_and_numbers_that_do_not_fit_are_told(folder: Path):
    assert kinds_in(pages_folder(str(folder))) == ["click-test", "drag"]
    made = catalog.benchmark(f"miniwob:data={folder}:kind=drag:tasks=2")
    assert [task.metadata["kind"] for task in made.tasks(3)] == ["drag", "drag"]
    assert made.tasks(3)[0].secret["seed"] != made.tasks(3)[1].secret["seed"] != made.tasks(4)[1].secret["seed"]
    spread = catalog.benchmark(f"miniwob:data={folder}:tasks=38").tasks(0)
    assert {task.metadata["kind"] for task in spread} == set(SCRIPTED) and len(spread) == 2 * len(SCRIPTED)
    with pytest.raises(ConfigError, match="did you mean click-test"):
        catalog.benchmark(f"miniwob:data={folder}:kind=click-tst")
    with pytest.raises(ConfigError, match="seconds 0"):
        catalog.benchmark(f"miniwob:data={folder}:seconds=0")
    with pytest.raises(DataError, match=r"has no core/core\.js"):
        catalog.benchmark(f"miniwob:data={folder.parent}")


def test_dragging_hovering_and_keys_are_read_where_the_site_takes_them():
    world = BrowseWorld(lambda: MiniWobVisit(Path(), "drag-box", 0, 10), BrowserPool())
    world.site, world._crashed, world._dialog = world.visit(), False, None
    world._page = PageView("Drag", "", (PageElement(0, "thing", "s", "", ()), PageElement(1, "thing", "L", "", ())))
    assert [move.__name__ for move in world.moves][3:6] == ["hover", "drag", "press"]
    assert world.read("drag[1] 2") == world.read("DRAG [1] [2]") == WorldCall("drag", {"number": 1, "onto": 2})
    assert world.read("hover[2]") == WorldCall("hover", {"number": 2})
    assert world.read("press tab") == WorldCall("press", {"key": "tab"})
    assert world.form is not None
    for action in ("hover[2]", "drag[1] 2", "press Tab", "click[1]"):
        assert re.fullmatch(world.form, action), action
    assert not re.fullmatch(world.form, "press F5") and not re.fullmatch(world.form, "hover[3]")
    with pytest.raises(InvalidAction, match=r"is no element to drag onto: write drag\[n\] m"):
        world.read("drag[1] the box")
    with pytest.raises(InvalidAction, match="there are Enter, Delete"):
        asyncio.run(world.press("F5"))
    with pytest.raises(InvalidAction, match="there is no element 3"):
        asyncio.run(world.drag(1, 3))


@pytest.mark.slow
@pytest.mark.skipif(not (FOLDER or importlib.util.find_spec("miniwob")), reason="MiniWoB++ is not installed")
@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="chromium is not installed")
class TestEpisodes:
    """Real pages in a real browser."""

    def test_the_scripted_player_wins_and_wrong_clicks_and_time_are_rewarded_as_the_page_does(self) -> None:
        benchmark = catalog.benchmark(f"miniwob:tasks={len(SCRIPTED)}:data={FOLDER}")

        def seen(trace: Trace) -> str:
            return "".join(call.detail["result"] for call in trace.calls if call.kind == "tool")

        by_kind = {task.metadata["kind"]: task for task in benchmark.tasks(0)}
        for kind in ("click-checkboxes", "choose-list", "login-user", "click-dialog-2", "click-option"):
            trace = asyncio.run(play(benchmark, by_kind[kind], "optimal"))
            assert trace.value() == 1 and 0.9 < (trace.value("reward") or 0) <= 1, (kind, trace.final_state)
        task = by_kind["click-test-2"]

        def acts(*actions: str, name: str = "miniwob") -> Trace:
            agent = Agent(
                "a", Scripted([f"Action: {each}" for each in actions]), thought_action, {"constrained": False}
            )
            return asyncio.run(rollout(agent, task, benchmark=benchmark))

        wrong = acts("look", "click[2]")
        by_mouse = {"drag-box": ("drag[1] 2", "press Tab", "hover[2]", "click[3]"), "drag-items": ("drag[1] 4",)}
        for kind, actions in by_mouse.items():
            dragged = catalog.benchmark(f"miniwob:kind={kind}:tasks=1:data={FOLDER}")
            agent = Agent("a", Scripted([f"Action: {a}" for a in actions]), thought_action, {"constrained": False})
            trace = asyncio.run(rollout(agent, dragged.tasks(0)[0], benchmark=dragged))
            assert trace.value() == 1, (kind, seen(trace))
        assert wrong.value() == 0 and wrong.value("reward") == -1 and wrong.final_state["ended"] == "done"
        idle = asyncio.run(play(benchmark, task, "idle"))
        assert idle.value() == 0 and idle.value("reward") == 0
        same, other = acts("look"), asyncio.run(play(benchmark, by_kind["enter-text"], "random", seed=3))
        assert seen(same).split("\n[the")[0] in seen(wrong) and seen(same) != seen(other)[: len(seen(same))]
        late = catalog.benchmark(f"miniwob:kind=click-test:seconds=0.2:tasks=1:data={FOLDER}")

        async def waits() -> dict[str, object]:
            environment = late.environment(late.tasks(0)[0])  # type: ignore[misc]
            await environment.open()
            await asyncio.sleep(1)
            with pytest.raises(ToolError, match="covers it"):
                await environment.act("click[1]")  # type: ignore[attr-defined]
            state = await environment.final_state()
            await environment.close()
            return state

        state = asyncio.run(waits())
        assert state["ended"] == "done" and state["result"]["reward"] == -1  # type: ignore[index]
