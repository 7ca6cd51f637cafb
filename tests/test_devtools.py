"""The DevTools client against a program that speaks the protocol on descriptors 3 and 4, as Chromium does."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firsthand.errors import ConfigError
from firsthand.worlds.browsing import devtools
from firsthand.worlds.browsing.devtools import DevTools, DevToolsError

BROWSER = f"""#!{sys.executable}
import fcntl, json, os, sys
profile = next(each.split("=", 1)[1] for each in sys.argv if each.startswith("--user-data-dir="))
held = b""
def is_pipe_of_calls(each):
    try:
        return any(os.path.sameopenfile(each, end) for end in (3, 4))
    except OSError:
        return False
STARTED = {{
    "arguments": sys.argv[1:], "leads": os.getpgid(0) == os.getpid(), "variable": os.environ.get("FIRSTHAND_TOLD"),
    "devices": [os.fstat(each).st_rdev for each in range(3)],
    "modes": [fcntl.fcntl(each, fcntl.F_GETFL) & os.O_ACCMODE for each in range(3)],
    "pipes": sorted(filter(is_pipe_of_calls, map(int, os.listdir("/dev/fd")))),
}}
def say(body):
    os.write(4, json.dumps(body).encode() + b"\\0")
while read := os.read(3, 65536):
    *whole, held = (held + read).split(b"\\0")
    for each in map(json.loads, whole):
        number, method, given = each["id"], each["method"], each["params"]
        if method == "Browser.close":
            sys.exit()
        if method == "die":
            os.abort()
        if method == "event":
            say({{"method": "Page.came", "params": {{"n": given["n"]}}, "sessionId": each["sessionId"]}})
            say({{"method": "Page.came", "params": {{"n": 0}}, "sessionId": "another"}})
        if method == "refuse":
            say({{"id": number, "error": given.get("error", {{"message": "no such thing"}})}})
        elif method == "how":
            say({{"id": number, "result": STARTED | {{"asked": each}}}})
        elif method == "empty":
            say({{"id": number}})
        elif method != "silence":
            say({{"id": number, "result": {{"heard": given, "kept": open(profile + "/Default/Preferences").read()}}}})
"""


@pytest.fixture
def browser(tmp_path: Path) -> str:
    path = tmp_path / "browser"
    path.write_text(BROWSER)
    path.chmod(0o755)
    return str(path)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def has_ended(pid: int) -> bool:
    """True also for one that nobody has waited for yet: its new parent may be slow."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return listed[:1] in ("", "Z")


def descriptors() -> list[str]:
    return sorted(each.name for each in Path("/dev/fd").iterdir())


def soon(holds: Callable[[], bool], timeout_s: float = 5) -> bool:
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def test_calls_are_answered_refused_or_late_and_events_reach_their_session(browser: str):
    client = DevTools(browser, ["--flag"], {"download_restrictions": 3})
    events: list[tuple[str, object]] = []
    client.listen("mine", lambda method, told: events.append((method, told["n"])))
    assert client.call("any", a="é" * 70_000)["heard"]["a"] == "é" * 70_000
    assert client.call("any")["kept"] == '{"download_restrictions": 3}'
    assert client.call("event", "mine", n=7) and events == [("Page.came", 7)]
    with pytest.raises(DevToolsError, match="no such thing"):
        client.call("refuse")
    for error, told in (({"message": "é" * 299 + "abc"}, "é" * 299 + "a"), ({"code": -3}, "{'code': -3}"), ({}, "{}")):
        with pytest.raises(DevToolsError) as refused:
            client.call("refuse", error=error)
        assert str(refused.value) == told
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        client.call("silence", timeout_s=0.05)
    assert client.wait(client.send("silence"), unless=lambda: events) is None
    client.forget("mine")
    client.call("event", "mine", n=8)
    assert len(events) == 1 and client._asked == set() and client._answers == {}
    client.close()
    assert not running(client.pid) and not client.profile.exists()


def test_a_browser_that_dies_is_told_at_once_and_leaves_nothing(browser: str):
    client = DevTools(browser, [], {})
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="has ended"):
        client.call("die")
    with pytest.raises(ConnectionError):
        client.call("any")
    assert time.monotonic() - began < 3
    client.close()
    client.close()
    assert not running(client.pid) and not client.profile.exists()


def test_a_browser_that_does_not_start_is_told_in_one_sentence(tmp_path: Path):
    path = tmp_path / "browser"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    with pytest.raises(ConfigError, match="does not start: the browser has ended; run it by hand"):
        DevTools(str(path), [], {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "why"), [("exit 1", "the browser has ended"), ("wait", "the browser did not answer within 0.5 s")]
)
def test_a_browser_that_does_not_start_leaves_no_process_and_no_folder(
    tmp_path: Path, monkeypatch, does: str, why: str
):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(devtools, "START_TIMEOUT_S", 0.5 if does == "wait" else 20)
    monkeypatch.setattr(devtools, "END_TIMEOUT_S", 0.01)
    path = tmp_path / "browser"
    path.write_text(f"#!/bin/sh\nsleep 60 3<&- 4>&- &\necho $$ $! > {tmp_path}/ids\n{does}\n")
    path.chmod(0o755)
    before = descriptors()
    with pytest.raises(ConfigError) as refused:
        DevTools(str(path), [], {})
    assert str(refused.value) == f"{path} does not start: {why}; run it by hand to see why"
    browser, helper = map(int, (tmp_path / "ids").read_text().split())
    assert soon(lambda: not running(browser) and has_ended(helper))
    assert list((tmp_path / "temporary").iterdir()) == []
    assert soon(lambda: descriptors() == before)


def test_a_browser_is_started_alone_with_its_pipes_and_nothing_else(browser: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIRSTHAND_TOLD", "é")
    before = descriptors()
    started = DevTools(browser, ["--one", "--two=é"], {})
    told = started.call("how", a=False, b=0, c="", d=[], e=None, f=1)
    nothing = Path(os.devnull).stat().st_rdev
    assert told == {
        "arguments": ["--one", "--two=é", "--remote-debugging-pipe", f"--user-data-dir={started.profile}", "about:blank"],
        "leads": True, "variable": "é", "devices": [nothing] * 3, "modes": [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY],
        "pipes": [3, 4],
        "asked": {"id": 2, "method": "how", "params": {"a": False, "b": 0, "c": "", "d": [], "e": None, "f": 1}},
    }  # fmt: skip
    assert started.call("how", "mine")["asked"] == {"id": 3, "method": "how", "params": {}, "sessionId": "mine"}
    assert started.call("empty") == {}
    started.close()
    assert soon(lambda: descriptors() == before)


@pytest.mark.slow
def test_the_profile_of_a_killed_process_goes_at_the_next_start_and_others_stay(browser: str, tmp_path: Path):
    starts = "import sys; from firsthand.worlds.browsing.devtools import DevTools; DevTools(sys.argv[1], [], {})"
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment = {**os.environ, "TMPDIR": str(folder)}

    def start(then: str) -> subprocess.Popen[str]:
        code = f"{starts}; {then}"
        command = [sys.executable, "-c", code, browser]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)

    def profiles() -> set[Path]:
        return set(folder.glob("firsthand-chromium-*"))

    def age() -> None:
        for each in profiles():
            os.utime(each, (0, 0), follow_symlinks=False)

    lives = start("print('up', flush=True); input()")
    assert lives.stdout is not None and lives.stdout.readline() == "up\n"
    kept = profiles()
    killed = start("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert killed.wait() == -signal.SIGTERM and len(left := profiles() - kept) == 1
    start("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").wait()
    assert left < profiles() and len(profiles()) == 3, (
        "a profile that is younger than a minute may be about to be locked"
    )
    (folder / "firsthand-chromium-elsewhere").symlink_to(tmp_path)
    age()
    assert start("import os; os._exit(0)").wait() == 0
    assert kept < profiles() and not left & profiles() and len(profiles()) == 3 and tmp_path.exists()
    lives.communicate("\n")


def test_only_folders_that_are_older_than_a_minute_and_locked_by_nobody_are_removed(tmp_path: Path):
    ages_s = {"a-old": 61, "b-locked": 61, "c-young": 50, "d-file": 61, "e-old": 3600, "f-ahead": -3600}
    for name, age_s in ages_s.items():
        path = tmp_path / f"{devtools.PROFILE}{name}"
        if name == "d-file":
            path.write_text("kept")
        else:
            (path / "Default").mkdir(parents=True)
            (path / "Default" / "Preferences").write_text("{}")
        os.utime(path, (0, time.time() - age_s))
    (tmp_path / "another").mkdir()
    os.utime(tmp_path / "another", (0, 0))
    before = descriptors()
    held = os.open(tmp_path / f"{devtools.PROFILE}b-locked", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    try:
        devtools._remove_abandoned(tmp_path)
    finally:
        os.close(held)
    assert sorted(each.name.removeprefix(devtools.PROFILE) for each in tmp_path.iterdir()) == [
        "another", "b-locked", "c-young", "d-file", "f-ahead"
    ]  # fmt: skip
    assert descriptors() == before
    devtools._remove_abandoned(tmp_path)
    assert not (tmp_path / f"{devtools.PROFILE}b-locked").exists()
    devtools._remove_abandoned(tmp_path / "missing")
