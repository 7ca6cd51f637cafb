"""The DevTools client against a program that speaks the protocol on descriptors 3 and 4, as Chromium does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firsthand.errors import ConfigError
from firsthand.worlds.browsing.devtools import DevTools, DevToolsError

BROWSER = f"""#!{sys.executable}
import json, os, sys
profile = next(each.split("=", 1)[1] for each in sys.argv if each.startswith("--user-data-dir="))
held = b""
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
            say({{"id": number, "error": {{"message": "no such thing"}}}})
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


def test_calls_are_answered_refused_or_late_and_events_reach_their_session(browser: str):
    devtools = DevTools(browser, ["--flag"], {"download_restrictions": 3})
    events: list[tuple[str, object]] = []
    devtools.listen("mine", lambda method, told: events.append((method, told["n"])))
    assert devtools.call("any", a="é" * 70_000)["heard"]["a"] == "é" * 70_000
    assert devtools.call("any")["kept"] == '{"download_restrictions": 3}'
    assert devtools.call("event", "mine", n=7) and events == [("Page.came", 7)]
    with pytest.raises(DevToolsError, match="no such thing"):
        devtools.call("refuse")
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        devtools.call("silence", timeout_s=0.05)
    assert devtools.wait(devtools.send("silence"), unless=lambda: events) is None
    devtools.forget("mine")
    devtools.call("event", "mine", n=8)
    assert len(events) == 1 and devtools._asked == set() and devtools._answers == {}
    devtools.close()
    assert not running(devtools.pid) and not devtools.profile.exists()


def test_a_browser_that_dies_is_told_at_once_and_leaves_nothing(browser: str):
    devtools = DevTools(browser, [], {})
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="has ended"):
        devtools.call("die")
    with pytest.raises(ConnectionError):
        devtools.call("any")
    assert time.monotonic() - began < 3
    devtools.close()
    devtools.close()
    assert not running(devtools.pid) and not devtools.profile.exists()


def test_a_browser_that_does_not_start_is_told_in_one_sentence(tmp_path: Path):
    path = tmp_path / "browser"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    with pytest.raises(ConfigError, match="does not start: the browser has ended; run it by hand"):
        DevTools(str(path), [], {})


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
