"""Every page of the Studio in Chromium: pictures in both themes at two widths, accessibility, overflow, weight, first paint.

    python bench/studio_screens.py [--to FOLDER] [--axe axe.min.js] [--only arena,runs]
    python bench/studio_screens.py --figures docs/studio    # the pictures of docs/studio.md, one each

The Studio serves the recorded example of `--demo` with what people add to it (votes, queues, data sets, prompts,
views), traces of a made-up shop, a tiny autoencoder, and an empty home. A page's weight is the gzip of all that its
first visit fetches; its first paint is Chromium's `first-contentful-paint` on loopback, the median of three loads. With
`--to`, each page becomes one picture: 1440 and 390 pixels wide, light and dark. A page is wider than its window if it
scrolls sideways at 390, 1440 or 2560 pixels. Needs the extra `browse`, Chromium, chromedriver and Pillow.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from PIL import Image
from selenium import webdriver

from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.studio.demo_home import demo_home

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # for the tiny autoencoder
FEATURE_TEXT = "What is 12 + 30? The answer is 42."
SIZES = ((1440, 900), (390, 900))
WIDEST = 2560
PASSWORD = "a long password"
FIGURES = {
    "runs": ("/", 620, False),
    "tree": ("/runs/{demo}/attempts/{attempt}?view=tree&span=1", 760, False),
    "compare": ("/compare?run={demo}", 720, True),
    "slices": ("/compare?run={demo}&a={demo}/direct&b={demo}/react&slice=level", 1100, True),
    "curves": ("/curves?{sweep}&group=kind", 1500, False),
}
"""Picture of docs/studio.md -> page, height in pixels, and whether it is dark."""
PAINT = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
IS_WIDE = "return document.documentElement.scrollWidth > innerWidth"
NANO = 1_000_000_000


def main() -> None:
    """Visit the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--axe", type=Path, help="axe.min.js of the npm package axe-core")
    parser.add_argument("--only", default="")
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--sae", type=Path, help="an autoencoder with features; without one, a tiny one is made")
    args = parser.parse_args()
    if args.figures is not None:
        take_figures(args.figures)
        return
    axe = args.axe.read_text() if args.axe else ""
    only = set(filter(None, args.only.split(",")))
    print("| page | weight, kB | first paint, ms | wider than its window | axe |")
    print("|---|---|---|---|---|")
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        empty = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fill(home)
        give_autoencoder(home, args.sae)
        browser = stack.enter_context(chromium())
        for name, url in chain(full(stack, browser, home, only), bare(stack, browser, empty, only)):
            report(browser, name, url, axe, args.to)


def take_figures(to: Path) -> None:
    """Take the pictures of the guide, over the recorded example: FIGURES, and the arena before a vote."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fill(home)
        browser = stack.enter_context(chromium())
        models = "scripted:amber.json,scripted:cobalt.json"
        base = stack.enter_context(studio(browser, home, "--model", models))
        runs = {info.id: info for info in store.list_runs(home)}
        demo = next(id for id in runs if "demo" in id)
        with store.open_run(demo, home) as run:
            attempt = next(each.place for each in run.rows() if each.agent == "react")
        sweep = "&".join(f"run={id}" for id in sorted(runs) if "sweep" in id)
        for name, (path, height, is_dark) in FIGURES.items():
            sized(browser, 1280, height, is_dark=is_dark)
            browser.get(base + path.format(demo=demo, attempt=attempt, sweep=sweep))
            until(lambda: "Scores are computed" not in browser.page_source)
            time.sleep(1.0)
            taken(browser, to / f"{name}.png")
        sized(browser, 1280, 700, is_dark=False)
        browser.get(f"{base}/arena")
        browser.find_element("css selector", "textarea").send_keys("2 + 2?")
        browser.find_element("css selector", "form.ask button").click()
        until(lambda: browser.find_element("css selector", "[data-vote=a]").is_enabled())
        browser.find_element("css selector", "[data-vote=a]").click()
        time.sleep(1.0)
        taken(browser, to / "arena.png")


def taken(browser: Any, file: Path) -> None:
    """Keep a picture of what is in view, in 96 colours."""
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    picture.quantize(96, dither=Image.Dither.NONE).save(file, optimize=True)
    print(file)


def full(stack: ExitStack, browser: Any, home: Path, only: set[str]) -> Iterator[tuple[str, str]]:
    """The pages of a home that holds something, and those of accounts."""
    models = "scripted:amber.json,scripted:cobalt.json"
    base = stack.enter_context(studio(browser, home, "--model", models))
    runs = {info.id: info for info in store.list_runs(home)}
    demo = next(id for id in runs if "demo" in id)
    sweep = "&".join(f"run={id}" for id in sorted(runs) if "sweep" in id)
    with store.open_run(demo, home) as run:
        failed = next(each.place for each in run.rows() if each.agent == "react")
        place = next(each.place for each in run.rows() if each.agent == "cot")
    pair = f"run_a={demo}&a={place}&run_b={demo}&b={failed}"
    people(browser, base, demo)
    shop(base)
    pages = {
        "runs": "/", "runs-filtered": "/?filter=has%3Acurves", "run": f"/runs/{demo}",
        "conversation": f"/runs/{demo}/attempts/{failed}", "tree": f"/runs/{demo}/attempts/{failed}?view=tree&span=2",
        "raw": f"/runs/{demo}/attempts/{failed}?view=raw",
        "compare": f"/compare?run={demo}", "pair": f"/compare/attempts?{pair}",
        "grid": f"/compare/grid?run={demo}", "curves": f"/curves?{sweep}", "traces": "/traces",
        "trace": f"/traces/{7:032x}", "trace-tree": f"/traces/{7:032x}?view=tree", "days": "/traces/by/days",
        "sessions": "/traces/by/sessions",
        "arena": "/arena", "board": "/arena/board", "playground": "/playground",
        "queues": "/queues", "queue": "/queues/sums",
        "queue-item": "/queues/sums/next?as=ada", "data-sets": "/data-sets", "data-set": "/data-sets/kept",
        "features": "/features", "autoencoder": "/features/small", "feature": f"/features/small/{feature_of(home)}",
        "feature-text": f"/features/small/live?text={quote(FEATURE_TEXT)}",
        "prompts": "/prompts", "prompt": "/prompts/tutor", "views": "/views", "problem": "/runs/nosuch",
    }  # fmt: skip
    yield from ((name, base + path) for name, path in pages.items() if not only or name in only)
    if not only or only & {"sign-in", "audit"}:
        made = [
            sys.executable,
            "-m",
            "firsthand",
            "studio",
            "account",
            "add",
            "ada",
            "--role",
            "admin",
            "--home",
            str(home),
        ]
        subprocess.run(made, input=f"{PASSWORD}\n", text=True, check=True, stdout=subprocess.DEVNULL)
        with studio(browser, home, "--host", "127.0.0.2", "--no-receive") as wide:
            yield "sign-in", f"{wide}/sign-in"
            browser.get(f"{wide}/sign-in")
            browser.find_element("name", "name").send_keys("ada")
            browser.find_element("name", "password").send_keys(PASSWORD)
            browser.find_element("css selector", "main button").click()
            until(lambda: "/sign-in" not in browser.current_url)
            yield "audit", f"{wide}/audit"


def bare(stack: ExitStack, browser: Any, home: Path, only: set[str]) -> Iterator[tuple[str, str]]:
    """The pages of an empty home."""
    paths = [
        "",
        "compare",
        "compare/grid",
        "curves",
        "traces",
        "traces/by/days",
        "traces/by/sessions",
        "traces/by/users",
    ]
    paths += ["arena", "arena/board", "playground", "queues", "data-sets", "prompts", "features"]
    pages = {f"empty-{path.replace('/', '-') or 'runs'}": f"/{path}" for path in [*paths, "views"]}
    chosen = {name: path for name, path in pages.items() if not only or name in only}
    if chosen:
        base = stack.enter_context(studio(browser, home))
        yield from ((name, base + path) for name, path in chosen.items())


def report(browser: Any, name: str, url: str, axe: str, to: Path | None) -> None:
    """Print the row of a page and keep its picture."""
    sized(browser, *SIZES[0], is_dark=False)
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    paints = []
    for _ in range(3):
        browser.get(url)
        until(lambda: browser.execute_script("return document.readyState") == "complete")
        paints.append(until(lambda: browser.execute_script(PAINT)))
    browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": False})
    time.sleep(0.5)  # parts that a page asks for when it is there
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    client = httpx.Client(cookies={each["name"]: each["value"] for each in browser.get_cookies()}, timeout=60)
    bodies = [client.get(each).content for each in {url, *fetched} if "/events" not in each]
    weight = sum(len(gzip.compress(body, 6)) for body in bodies) / 1000
    found: list[str] = []
    pictures = []
    wide = False
    for is_dark in (False, True):
        for width, height in SIZES:
            sized(browser, width, height, is_dark=is_dark)
            browser.get(url)
            until(lambda: "Scores are computed" not in browser.page_source)
            time.sleep(0.4)
            wide |= browser.execute_script(IS_WIDE)
            if axe:
                found += violations(browser, axe)
            pictures.append(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB"))
    sized(browser, WIDEST, 1400, is_dark=False)
    browser.get(url)
    wide |= browser.execute_script(IS_WIDE)
    said = "; ".join(dict.fromkeys(found)) or ("none" if axe else "not asked")
    print(
        f"| {name} | {weight:.0f} | {statistics.median(paints):.0f} | {'yes' if wide else 'no'} | {said} |", flush=True
    )
    if to is not None:
        to.mkdir(parents=True, exist_ok=True)
        side_by_side(pictures).save(to / f"{name}.png", optimize=True)


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """The pictures of a page, light above dark, at half their size and in 96 colours."""
    small = [each.resize((each.width // 2, each.height // 2), Image.Resampling.LANCZOS) for each in pictures]
    whole = Image.new("RGB", (small[0].width + small[1].width + 8, 2 * small[0].height + 8), "#888888")
    for number, each in enumerate(small):
        whole.paste(each, ((small[0].width + 8) * (number % 2), (small[0].height + 8) * (number // 2)))
    return whole.quantize(96, dither=Image.Dither.NONE)


def violations(browser: Any, axe: str) -> list[str]:
    """The rules of axe-core that the page breaks, with the first elements."""
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    browser.execute_script(axe)
    return list(
        browser.execute_async_script(
            "const done = arguments[arguments.length - 1]; axe.run().then(r => done(r.violations.map(v => "
            "v.id + ': ' + v.nodes.map(n => n.target.join(' ')).slice(0, 3).join(', '))))"
        )
    )


def sized(browser: Any, width: int, height: int, *, is_dark: bool) -> None:
    """Give the page a width and a theme."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


@contextmanager
def studio(browser: Any, home: Path, *words: str) -> Iterator[str]:
    """The Studio over a home, open in the browser; its address."""
    command = [sys.executable, "-m", "firsthand", "studio", "--no-open", "--home", str(home), *words]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+?(?=[,\s]|$)", process.stdout.readline())
        assert found is not None
        until(lambda: httpx.get(found[0].partition("/enter")[0], timeout=5).status_code)
        browser.get(found[0])
        yield re.match(r"http://[^/]+", found[0])[0]  # type: ignore[index]
    finally:
        process.terminate()
        process.wait()


def until(is_so: Any) -> Any:
    """The first true value, within half a minute."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if found := is_so():
                return found
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise SystemExit("a page did not come in time")


def fill(home: Path) -> None:
    """Put the recorded example, a sweep and two scripted models into a home."""
    with demo_home() as demo:
        shutil.copytree(demo / "runs", home / "runs", ignore=shutil.ignore_patterns("index*"))
    for number in range(4):
        with store.create(home, {"lr": 10.0**-number, "kind": "ab"[number % 2]}, f"sweep{number}") as run:
            track = Track(run)
            for step in range(200):
                track.log({"loss": (number + 1) / (step + 1) + 0.02 * (step * 7 % 5), "reward": step / 200}, step=step)
            track.flush()
            run.finish("done")
    for name, answer in (("amber", "It is four, as two and two are four."), ("cobalt", "Four.")):
        (home / f"{name}.json").write_text(json.dumps({"": answer}))


def give_autoencoder(home: Path, sae: Path | None) -> None:
    """Put an autoencoder with features into a home, as `small`."""
    if sae is None:
        from sae_tiny import autoencoder_of

        autoencoder_of(home)
    else:
        shutil.copytree(sae, home / "saes" / "small", ignore=shutil.ignore_patterns("checkpoints"))


def feature_of(home: Path) -> int:
    """The feature of the autoencoder that stands first in its file."""
    return int(json.loads((home / "saes" / "small" / "features.json").read_text())["reports"][0]["index"])


def people(browser: Any, base: str, run: str) -> None:
    """Do what people do: vote, make a queue, a data set and a prompt, and save a view."""
    cookies = {each["name"]: each["value"] for each in browser.get_cookies()}
    client = httpx.Client(base_url=base, cookies=cookies, headers={"origin": base}, timeout=60)

    def post(path: str, **fields: Any) -> httpx.Response:
        answer = client.post(path, data=fields)
        assert answer.status_code in (200, 303), answer.text
        return answer

    for number in range(4):
        round_ = post("/arena/rounds", prompt="2 + 2?").json()["round"]
        with client.stream("GET", f"/arena/rounds/{round_}/events") as stream:
            next(line for line in stream.iter_lines() if '"ready"' in line or '"problem"' in line)
        post(f"/arena/rounds/{round_}/vote", winner=("a", "b", "b", "tie")[number], reason="clear")
        post(f"/arena/rounds/{round_}/reveal")
    post("/queues", name="sums", run=run, filter="agent=react", score="clear", raters="1")
    post("/data-sets", name="kept", run=run, filter="is:wrong agent=cot")
    post("/prompts", name="tutor", text="You are a patient tutor.")
    post("/prompts", name="tutor", text="You are a patient tutor. Check your sum.", after="1")
    post("/views", name="runs with curves", address="/?filter=has%3Acurves")
    post(f"/runs/{run}/note", text="Three patterns, one seed.\nreact counts on the calculator.", version="0")


def shop(base: str) -> None:
    """Send the traces of a shop's assistant, some of them failed."""
    for trace in range(1, 13):
        start = time.time_ns() - (13 - trace) * 60 * NANO
        is_failed = trace % 4 == 3
        said = [{"role": "user", "parts": [{"type": "text", "content": "Is there green tea left?"}]}]
        answer = [{"role": "assistant", "parts": [{"type": "text", "content": "Yes, three packets."}]}]
        called: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "scripted",
            "gen_ai.input.messages": json.dumps(said),
            "gen_ai.output.messages": json.dumps(answer),
            "gen_ai.usage.input_tokens": 240,
            "gen_ai.usage.output_tokens": 18,
        }
        spans = [
            span(trace, 1, 0, "answer a customer", start, 2.4, **{"session.id": f"chat-{trace % 3}", "user.id": "ada"}),
            span(trace, 2, 1, "chat scripted", start, 1.1, **called),
            span(trace, 3, 1, "execute_tool stock", start + NANO, 0.8, "the stock service is down" if is_failed else None,
                 **{"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "stock",
                    "gen_ai.tool.call.arguments": '{"item": "green tea"}', "gen_ai.tool.call.result": "3"}),
        ]  # fmt: skip
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
        body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}
        httpx.post(f"{base}/v1/traces", json=body, timeout=60).raise_for_status()


def span(
    trace: int, number: int, parent: int, name: str, start: int, took_s: float, error: str | None = None, **held: Any
) -> dict[str, Any]:
    """A span in OTLP's JSON."""
    body: dict[str, Any] = {
        "traceId": f"{trace:032x}", "spanId": f"{number:016x}", "name": name, "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + int(took_s * NANO)),
        "attributes": [
            {"key": key, "value": {"intValue": each} if isinstance(each, int) else {"stringValue": each}}
            for key, each in held.items()
        ],
    }  # fmt: skip
    if parent:
        body["parentSpanId"] = f"{parent:016x}"
    if error is not None:
        body["status"] = {"code": 2, "message": error}
    return body


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
