"""Ctrl-C and SIGTERM, in real processes: one sentence, an exit code of its own, nothing left running, and a way on."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from firsthand.errors import DownloadError
from firsthand.hub import model_lookup
from firsthand.runs.store import open_run
from firsthand.system import interruption
from firsthand.system.lock import is_held
from loopback import serve
from test_providers_hub import publish
from thorough import part

SLOW = """
import asyncio, pathlib

async def slow(task, ctx):
    pathlib.Path("begun").touch()
    await asyncio.sleep(600)
"""
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
BOTH = pytest.mark.parametrize(("number", "code"), SIGNALS)


def process(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "FIRSTHAND_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "firsthand", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def wait_for(file: Path, child: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < until and child.poll() is None, child.communicate()
        time.sleep(0.02)


@pytest.mark.slow
@BOTH
def test_a_run_says_how_to_go_on_and_is_marked_as_interrupted(tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "none.json").write_text("[]")
    words = (
        "arithmetic",
        "--model",
        "scripted:none.json",
        "--pattern",
        "slow.py",
        "--limit",
        "3",
        "--concurrency",
        "1",
    )
    child = process(tmp_path, "run", *words)
    wait_for(tmp_path / "begun", child)
    child.send_signal(number)
    _, told = child.communicate(timeout=60)
    with open_run("last", tmp_path / "home") as run:
        assert run.status == "interrupted" and run.database.read("SELECT status FROM run") == [("interrupted",)]
        assert told.strip().splitlines()[-1].endswith(f"attempts done: `firsthand run --resume {run.id}` finishes them")
    assert child.returncode == code and "Traceback" not in told


STUCK = """
import asyncio, atexit, pathlib, time

async def stuck(task, ctx):
    pathlib.Path("begun").touch()
    await asyncio.to_thread(time.sleep, 600)  # as a model that loads: no cancellation ends a thread
"""
LINGERS = """
def lingers():
    pathlib.Path("ending").touch()
    time.sleep(600)

atexit.register(lingers)
"""
STUCK_RUN = ("run", "arithmetic", "--model", "scripted:echo", "--pattern", "stuck.py", "--limit", "1")


@pytest.mark.slow
@BOTH
def test_one_signal_ends_a_run_that_waits_for_a_thread(tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    child = process(tmp_path, *STUCK_RUN)
    wait_for(tmp_path / "begun", child)
    child.send_signal(number)
    try:
        _, told = child.communicate(timeout=60)  # the thread sleeps for ten minutes
    finally:
        child.kill()
    assert child.returncode == code and "Traceback" not in told
    assert told.strip().splitlines()[-1].endswith("finishes them") and "firsthand run --resume" in told


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_ends_a_run_that_waits_for_a_thread(tmp_path: Path) -> None:
    """The terminal sends SIGINT to the whole group in its foreground."""
    (tmp_path / "stuck.py").write_text(STUCK)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        environment = {**os.environ, "FIRSTHAND_HOME": str(tmp_path / "home"), "COLUMNS": "200"}
        os.execvpe(sys.executable, [sys.executable, "-m", "firsthand", *STUCK_RUN], environment)
    told, until, pressed = b"", time.monotonic() + 120, False
    try:
        while time.monotonic() < until:
            if not pressed and (tmp_path / "begun").exists():
                os.write(terminal, b"\x03")
                pressed = True
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    piece = os.read(terminal, 65536)
                except OSError:  # its other end is closed
                    break
                told += piece
    finally:
        with suppress(ProcessLookupError):
            if time.monotonic() >= until:
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 130, told
    assert b"firsthand run --resume" in told and b"Traceback" not in told


@pytest.mark.slow
@pytest.mark.parametrize(("number", "codes"), [(signal.SIGINT, (130, -2)), (signal.SIGTERM, (143, -15))])
def test_a_second_signal_ends_at_once_what_takes_long_to_end(
    tmp_path: Path, number: int, codes: tuple[int, ...]
) -> None:
    (tmp_path / "stuck.py").write_text(STUCK + LINGERS)
    child = process(tmp_path, *STUCK_RUN)
    wait_for(tmp_path / "begun", child)
    child.send_signal(number)
    wait_for(tmp_path / "ending", child)
    time.sleep(interruption.SAME_SIGNAL_S)
    child.send_signal(number)
    try:
        _, told = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode in codes and "Traceback" not in told and "Exception ignored" not in told


def in_background(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A command as a script begins it in the background: with SIGINT ignored."""
    environment = {**os.environ, "FIRSTHAND_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "firsthand", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
def test_sigterm_ends_a_command_in_the_background_which_ctrl_c_does_not(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    child = in_background(tmp_path, *STUCK_RUN)
    wait_for(tmp_path / "begun", child)
    child.send_signal(signal.SIGINT)
    time.sleep(1)
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    try:
        _, told = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 143 and "Traceback" not in told
    assert told.strip().splitlines()[-1].endswith("finishes them") and "firsthand run --resume" in told


TRIAL = """
import pathlib, signal, time
{first}
pathlib.Path("begun").touch()
try:
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path("kept").touch()
"""


def sweep_of(folder: Path, first: str = "") -> subprocess.Popen[str]:
    (folder / "trial.py").write_text(TRIAL.format(first=first))
    words = (f"{sys.executable} trial.py", "--set", "lr=1", "--metric", "loss", "--out", "sweep")
    child = in_background(folder, "sweep", *words)
    wait_for(folder / "begun", child)
    return child


def has_ended(folder: Path) -> bool:
    until = time.monotonic() + 20
    while is_held(folder / "sweep" / "trials" / "0000.lock"):
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
def test_a_trial_of_a_sweep_in_the_background_is_asked_to_end_and_keeps_what_it_has(tmp_path: Path) -> None:
    child = sweep_of(tmp_path)
    assert is_held(tmp_path / "sweep" / "trials" / "0000.lock")
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 143 and "firsthand sweep --resume sweep" in told
    assert (tmp_path / "kept").exists() and has_ended(tmp_path)


@pytest.mark.slow
def test_a_second_sigterm_leaves_no_trial_behind(tmp_path: Path) -> None:
    child = sweep_of(tmp_path, "signal.signal(signal.SIGINT, signal.SIG_IGN)")
    child.send_signal(signal.SIGTERM)
    time.sleep(interruption.SAME_SIGNAL_S + 0.2)
    began = time.monotonic()
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode in (143, -signal.SIGTERM) and time.monotonic() - began < 3
    assert has_ended(tmp_path)


@pytest.fixture
def ignored() -> Iterator[None]:
    """SIGINT is ignored, and SIGTERM has not come yet."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN), signal.getsignal(signal.SIGTERM), interruption._received[:]
    interruption._received.clear()
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])
    interruption._received[:] = before[2]


def ignores_sigint() -> bool:
    """Whether a program that is started now does."""
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_programs_that_must_hear_sigint_do_and_this_process_ignores_it_throughout(ignored: None) -> None:
    assert ignores_sigint()
    with interruption.interruptible_programs():
        signal.raise_signal(signal.SIGINT)
        assert not ignores_sigint()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with interruption.interruptible_programs():
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_is_heard_as_ctrl_c_where_that_is_ignored_and_while_a_program_is_started(ignored: None) -> None:
    signal.signal(signal.SIGTERM, interruption._terminate)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)  # at once: it is the same
    assert signal.getsignal(signal.SIGTERM) is interruption._terminate
    interruption._received.clear()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt), interruption.interruptible_programs():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    interruption._received[0] -= interruption.SAME_SIGNAL_S
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "a third one ends the process"


@pytest.mark.slow
def test_a_runner_waits_for_its_threads_unless_it_was_interrupted() -> None:
    done: list[str] = []

    def slowly() -> None:
        time.sleep(0.3)
        done.append("done")

    async def leaves_it() -> None:
        asyncio.get_running_loop().run_in_executor(None, slowly)

    interruption.run(leaves_it())
    assert done == ["done"]

    async def pressed() -> None:
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 5)
        await asyncio.sleep(0.1)
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(60)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interruption.run(pressed())
    assert time.monotonic() - began < 4 and not interruption.leaving()  # a program of its own may go on


CLOSING = """
import asyncio, signal, threading, time
from firsthand.engine.core.engine_thread import EngineWorker
from firsthand.system import interruption
from firsthand.system.lock import is_held

class Compiling:
    has_work = True
    def step(self):
        time.sleep({seconds})
        return []

async def pressed():
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(60)

if {by_leave}:
    interruption.install()
worker = EngineWorker(Compiling())
time.sleep(0.2)
try:
    interruption.run(pressed())
except KeyboardInterrupt:
    pass
began = time.monotonic()
worker.close()
print("waited" if time.monotonic() - began > 1 else "at once", flush=True)
if {by_leave}:
    interruption.leave(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by_leave", "told", "code"), [(True, "at once", 130), pytest.param(False, "waited", 0, marks=pytest.mark.slow)]
)
def test_an_interrupted_command_does_not_wait_for_the_engines_step(by_leave: bool, told: str, code: int) -> None:
    script = CLOSING.format(seconds=600 if by_leave else 2, by_leave=by_leave)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == (told, code), done.stderr


@pytest.mark.slow
def test_sigterm_twice_at_once_is_one(tmp_path: Path) -> None:
    """`timeout` sends it to the process and to its group: what is done is kept all the same."""
    (tmp_path / "slow.py").write_text(SLOW)
    child = process(tmp_path, "run", "arithmetic", "--model", "scripted:echo", "--pattern", "slow.py", "--limit", "1")
    wait_for(tmp_path / "begun", child)
    for _ in range(2):
        child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 143 and "firsthand run --resume" in told


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), part(SIGNALS, 2))
def test_a_training_run_says_how_to_go_on_and_does(tmp_path: Path, number: int, code: int) -> None:
    folder = tmp_path / "run"
    child = process(
        tmp_path, "train", "toy_reasoner", "--steps", "100000", "--checkpoint-every", "1", "--out", str(folder)
    )
    until = time.monotonic() + 300
    while not list(folder.glob("checkpoints/*")):
        assert time.monotonic() < until and child.poll() is None
        time.sleep(0.1)
    child.send_signal(number)
    _, told = child.communicate(timeout=120)
    assert child.returncode == code and "Traceback" not in told
    assert told.strip().splitlines()[-1] == (
        f"firsthand: interrupted: `firsthand train --resume {folder}` goes on from the newest checkpoint"
    )
    steps = max(int("".join(filter(str.isdigit, each.name))) for each in folder.glob("checkpoints/*"))
    again = process(tmp_path, "train", "--resume", str(folder), "--steps", str(steps + 25))
    _, told = again.communicate(timeout=300)
    assert again.returncode == 0, told


DROPPED = """
import os, signal, time, weakref
from firsthand.system import interruption
class Held: pass
held = Held()
told = weakref.ref(held, lambda _: os.kill(os.getpid(), signal.SIGINT))
interruption.install()
interruption.install()
try:
    del held
    time.sleep(30)
    print("never heard")
except KeyboardInterrupt:
    print("heard")
class Broken:
    def __del__(self): raise ValueError("another error")
broken = Broken()
del broken
"""


def test_ctrl_c_in_a_callback_of_a_weak_reference_is_not_lost() -> None:
    """Python drops what is raised there; other errors are still reported."""
    done = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "heard"
    assert done.stderr.count("another error") == 1 and "KeyboardInterrupt" not in done.stderr


def test_ctrl_c_while_python_imports_is_no_traceback(tmp_path: Path) -> None:
    code = """
import sys
class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == "firsthand.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed())
from firsthand.__main__ import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (130, "firsthand: interrupted", "")


def test_sigterm_is_left_to_whoever_handles_it() -> None:
    code = """
import signal
from firsthand.system import interruption
from firsthand.system.lock import is_held
signal.signal(signal.SIGTERM, mine := lambda number, frame: None)
interruption.install()
assert signal.getsignal(signal.SIGTERM) is mine
signal.signal(signal.SIGTERM, signal.SIG_DFL)
interruption.install()
try:
    signal.raise_signal(signal.SIGTERM)
    raise SystemExit("nothing came")
except KeyboardInterrupt:
    assert interruption.terminated()
interruption.exit_at_once()
assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is signal.SIG_DFL
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not interruption.terminated()


@pytest.mark.slow
def test_a_mistyped_name_leaves_no_training_run_behind(tmp_path: Path) -> None:
    for words in (("train", "pretrain", "nowhere.txt"), ("train", "--resume")):
        child = process(tmp_path, *words)
        _, told = child.communicate(timeout=120)
        assert child.returncode in (1, 2) and "Traceback" not in told
        assert (
            told.strip()
            .splitlines()[-1]
            .startswith(("firsthand: there is no file or folder nowhere.txt", "firsthand: --resume needs"))
        )
    assert not list((tmp_path / "home").glob("runs/*/run.sqlite"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (signal.SIGTERM, 143, "0.5 MB of hf:org/name are kept: `firsthand models pull` goes on from there"),
        pytest.param(signal.SIGINT, 130, "0.5 MB of hf:org/name are kept", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, "", marks=pytest.mark.slow),
    ],
)
def test_a_pull_that_is_interrupted_says_what_is_kept_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, told: str
) -> None:
    body = b"GGUF" + os.urandom(1_000_000)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        publish(site, {"config.json": b"{}", "model.safetensors": body})
        site.stall_after = 500_000
        child = process(tmp_path, "models", "pull", "hf:org/name")
        until = time.monotonic() + 60
        while model_lookup.partial_bytes("hf:org/name") < 500_000:
            assert time.monotonic() < until and child.poll() is None, child.communicate()
            time.sleep(0.02)
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
        assert (child.returncode, out) == (code, "") and told in err and "Traceback" not in err
        assert model_lookup.installed() == [] and model_lookup.partial_bytes("hf:org/name") == 500_002
        site.stall_after = None
        folder = model_lookup.pull("hf:org/name")
        assert site.asked[-1][1] == "bytes=500000-"
    assert (folder / "model.safetensors").read_bytes() == body and model_lookup.partial_bytes("hf:org/name") == 0


@pytest.mark.slow
def test_a_part_that_was_damaged_is_noticed_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"GGUF" + os.urandom(100_000)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        publish(site, {"config.json": b"{}", "model.safetensors": body})
        site.cut_after = [10**6, 10**6, *[10_000] * 4]
        with pytest.raises(DownloadError, match="broke off"):
            model_lookup.pull("hf:org/name")
        [part] = (tmp_path / "home").rglob("model.safetensors.part")
        part.write_bytes(bytes([part.read_bytes()[0] ^ 255]) + part.read_bytes()[1:])
        site.cut_after.clear()
        folder = model_lookup.pull("hf:org/name")
    assert (folder / "model.safetensors").read_bytes() == body
