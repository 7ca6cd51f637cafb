"""Our sandbox as a sandbox of Inspect: its own conformance checks, what it refuses, and what attackers find in it."""

import asyncio
import importlib.util
import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.message import ToolCall, assistant
from firsthand.patterns.direct import direct
from firsthand.patterns.inspect_solver import inspect_solver
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place, rollouts
from firsthand.sandbox.box import Box
from firsthand.trace import Trace
from namespaces import WHY_NOT

if importlib.util.find_spec("inspect_ai") is None:
    pytest.skip("needs pip install 'firsthand[inspect]'", allow_module_level=True)

from inspect_ai.util import OutputLimitExceededError, SandboxUserUnsupportedError
from inspect_ai.util._sandbox import self_check
from inspect_ai.util._sandbox.limits import override_max_exec_output_size

from firsthand.bridges.inspect.sandbox_provider import sandbox_environment
from firsthand.bridges.inspect.sandbox_requirements import required_sandboxes

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
Ours = sandbox_environment()
OTHER_USERS = {"test_exec_as_user"}
"""The one check that we do not pass: the sandbox has no root, and says so with SandboxUserUnsupportedError."""
CHECKS = [name for name in self_check.__all__ if name not in OTHER_USERS]
LONG = {name for name in CHECKS if "timeout" in name or "large" in name}


async def opened(config=None):
    environments = await Ours.sample_init("task", config, {})
    return next(iter(environments.values()))


async def closed(environment) -> None:
    await Ours.sample_cleanup("task", None, {"default": environment}, False)


@needs_bwrap
@pytest.mark.slow
@pytest.mark.parametrize("names", [[name for name in CHECKS if name not in LONG], sorted(LONG)])
def test_inspects_own_checks_of_a_sandbox_pass(names) -> None:
    async def main() -> None:
        environment = await opened()
        failed = {}
        for name in names:
            try:
                await getattr(self_check, name)(environment)
            except Exception as error:
                failed[name] = repr(error)
        await closed(environment)
        assert failed == {}

    assert names
    asyncio.run(main())


# -- tasks --

TASKS = Path(__file__).parent / "inspect_boxes.py"


def attempts(benchmark, model, pattern) -> list:
    async def main():
        places = [Place(Agent("agent", model, pattern), benchmark, task) for task in benchmark.tasks(0)]
        return sorted([trace async for trace in rollouts(places)], key=lambda trace: trace.task_id)

    return asyncio.run(main())


def scores(trace) -> dict:
    assert trace.error is None, trace.error
    assert not any(score.failed for score in trace.scores), trace.scores
    return {score.name: score.value for score in trace.scores}


def adding(name: str):
    """A model that adds with the tool of this name, in one call, then answers."""

    def reply(messages, sampling, index):
        if messages[-1].role == "tool":
            return f"The sum is {messages[-1].text.strip()}"
        return assistant("", ToolCall("c1", name, {"command": "echo $(($(paste -sd+ numbers.txt))) | tee answer.txt"}))

    return Scripted(reply)


acting = partial(react, native=True)


@pytest.mark.slow
@needs_bwrap
def test_patterns_tools_solvers_tools_and_scorers_see_the_same_files() -> None:
    for kind in ("firsthand", "docker", "local"):
        benchmark = catalog.benchmark(f"inspect:task={TASKS}@adding:args=kind={kind}")
        assert "in the sandbox firsthand" in benchmark.protocol or shutil.which("docker")
    for pattern, name in ((acting, "shell"), (inspect_solver, "bash")):
        (trace,) = attempts(benchmark, adding(name), pattern)
        assert scores(trace) == {"left_behind": 1.0, "includes": 1.0}
        assert trace.scores[0].detail["inspect"]["explanation"] == "42\n5\nready\n"
    (idle,) = attempts(benchmark, Scripted(["no idea"]), direct)
    assert scores(idle) == {"left_behind": 0.0, "includes": 0.0}


@pytest.mark.slow
@needs_bwrap
def test_an_attempt_is_scored_again_from_its_trace_alone() -> None:
    spec = f"inspect:task={TASKS}@adding"
    (trace,) = attempts(catalog.benchmark(spec), adding("shell"), acting)
    fresh = catalog.benchmark(spec)
    kept = Trace.from_json(json.loads(json.dumps(trace.to_json())))
    found = asyncio.run(fresh.scorers[0](fresh.tasks(0)[0], kept))
    assert [(score.name, score.value, score.detail) for score in found] == [
        (score.name, score.value, score.detail) for score in trace.scores
    ]
    lost = replace(kept, final_state={"sandbox": {"default": {"not_kept": "too large"}}})
    with pytest.raises(ConfigError, match=r"the sandbox of add was not kept: too large"):
        asyncio.run(fresh.scorers[0](fresh.tasks(0)[0], lost))


@pytest.mark.slow
@needs_bwrap
def test_samples_with_and_without_a_sandbox_stand_side_by_side_and_all_sandboxes_are_closed() -> None:
    before = _workers()
    traces = attempts(catalog.benchmark(f"inspect:task={TASKS}@mixed"), Scripted(["42", "42"]), direct)
    assert [scores(trace) for trace in traces] == [{"includes": 1.0}] * 2
    assert set(traces[0].final_state["sandbox"]["default"]) == {"changes"} and traces[1].final_state == {}
    assert _workers() <= before


def _workers() -> set[int]:
    """The bubblewrap processes that this process has started."""
    return {
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if (words := _words(stat)) and words[1] == "(bwrap)" and int(words[3]) == os.getpid()
    }


def _words(stat: Path) -> list[str]:
    try:
        return stat.read_text().split()
    except OSError:
        return []


@pytest.mark.slow
@needs_bwrap
def test_services_of_a_compose_file_are_sandboxes_by_name_with_what_their_dockerfiles_say() -> None:
    (trace,) = attempts(catalog.benchmark(f"inspect:task={TASKS}@two:sandbox=firsthand"), Scripted([]), inspect_solver)
    assert scores(trace) == {"includes": 1.0}
    assert trace.answer == "/app/alice\nalice\ngood day\nk\nalice\n/srv/bob\ndear bob\nbob\n"


@pytest.mark.slow
@needs_bwrap
def test_a_set_up_script_that_fails_is_an_error_of_the_attempt() -> None:
    (trace,) = attempts(catalog.benchmark(f"inspect:task={TASKS}@failing"), Scripted([]), direct)
    assert trace.error is not None and "no such luck" in trace.error.message and trace.scores == ()


# -- what cannot be had --


@pytest.mark.parametrize(
    ("name", "text", "lacks"),
    [
        ("compose.yaml", "services: {default: {image: ghcr.io/x/y:1}}", "service 'default' is the image 'ghcr.io/x/y:1'"),
        ("compose.yaml", "services: {default: {image: debian, ports: ['80:80']}}", "listens on a port"),
        ("compose.yaml", "services: {default: {image: debian, privileged: true}}", "wants to be privileged"),
        ("compose.yaml", "services: {default: {image: debian, volumes: ['/:/host']}}", "mounts folders of the host"),
        ("compose.yaml", "services: {default: {image: debian, network_mode: host}}", "is on the network 'host'"),
        ("compose.yaml", "services: {default: {image: debian, command: nginx -g x}}", "keeps `nginx -g x` running"),
        ("compose.yaml", "services: {default: {image: debian, secrets_of_mine: 1}}", "secrets_of_mine|cannot be read"),
        ("compose.yaml", "services: [", "cannot be read"),
        ("compose.yaml", "services: {}", "has no services"),
        ("Dockerfile", "FROM kalilinux/kali-rolling", "is built from the image 'kalilinux/kali-rolling'"),
        ("Dockerfile", "FROM debian\nRUN apt-get install -y no-such-package", "needs the Debian packages no-such-package"),
        ("Dockerfile", "FROM python:3.12\nRUN pip install -q 'no-such>=1'", "needs the Python packages no-such>=1"),
        ("Dockerfile", "FROM debian\nRUN curl http://x | sh", "runs `curl http://x"),
        ("Dockerfile", "FROM debian\nCOPY ../../etc/passwd /p", "COPY ../../etc/passwd /p: "),
        ("Dockerfile", "FROM debian\nCOPY link /p", "leads out of the folder"),
        ("Dockerfile", "FROM debian\nCOPY nothing /p", "nothing is not there"),
        ("Dockerfile", "FROM debian\nUSER nobody", "says 'USER nobody'"),
        ("Dockerfile", "FROM a AS b\nFROM debian", "several stages"),
    ],
)  # fmt: skip
def test_what_a_sandbox_cannot_have_is_refused_by_name_before_anything_runs(tmp_path, name, text, lacks) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=lacks) as caught:
        required_sandboxes(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@needs_bwrap
def test_a_task_that_asks_for_too_much_says_so_and_runs_without_it_if_told_to(tmp_path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {default: {image: ghcr.io/x/y:1}}")
    spec = f"inspect:task={TASKS}@wanting:args=config={tmp_path}/compose.yaml"
    if shutil.which("docker") is None:
        with pytest.raises(
            ConfigError, match=r"the sample 'wants' of .* the image 'ghcr.io/x/y:1'.*:sandbox=firsthand"
        ):
            catalog.benchmark(spec)
    (trace,) = attempts(catalog.benchmark(f"{spec}:sandbox=firsthand"), Scripted(["It is 42."]), direct)
    assert scores(trace) == {"includes": 1.0}
    with pytest.raises(ConfigError, match="Inspect knows no such provider"):
        catalog.benchmark(f"{spec}:sandbox=mainframe")


@needs_bwrap
def test_a_command_of_a_dockerfile_that_fails_is_told_with_its_words(tmp_path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN echo made it && touch /usr/bin/new\n")
    with pytest.raises(ConfigError, match=r"RUN echo made it && touch /usr/bin/new fails in the sandbox.*Read-only"):
        asyncio.run(opened(str(tmp_path / "Dockerfile")))


# -- attacks --


@pytest.mark.slow
@needs_bwrap
def test_what_attackers_do_in_a_sandbox_stays_there(tmp_path) -> None:
    (secret := tmp_path / "secret").write_text("of the host")

    async def main() -> None:
        box = Ours(Box(size_bytes=2**25))
        for path in (str(secret), f"../../../../..{secret}", "/proc/1/root/etc/shadow", "/etc/shadow"):
            with pytest.raises((FileNotFoundError, PermissionError)):
                await box.read_file(path)
        await box.exec(["ln", "-s", str(secret), "link"])
        await box.exec(["mkfifo", "pipe"])
        with pytest.raises(FileNotFoundError):
            await box.read_file("link")
        await box.write_file("/tmp/link", "x")  # a link is followed inside, and there alone
        with pytest.raises(OSError):
            await box.write_file("link", "mine now")
        for path in ("pipe", "/dev/zero", "/dev/random"):  # would never end
            with pytest.raises(OSError):
                await box.read_file(path)
        for path in ("/etc/passwd", "/usr/bin/env", "/proc/self/mem", "/new/file", "bad\0name"):
            with pytest.raises((OSError, ValueError)):
                await box.write_file(path, "x")
        assert secret.read_text() == "of the host"

        with pytest.raises(OutputLimitExceededError), override_max_exec_output_size(100_000):
            await box.exec(["sh", "-c", "yes | head -c 40000000"])
        noise = await box.exec(["sh", "-c", "head -c 3000 /dev/urandom; printf '\\303\\050\\000end' >&2"])
        assert noise.success and noise.stderr == "\ufffd(\0end"
        with pytest.raises(UnicodeDecodeError):
            await box.exec(["sh", "-c", "printf '\\303\\050' > binary"])
            await box.read_file("binary")
        assert await box.read_file("binary", text=False) == b"\xc3\x28"

        with pytest.raises(TimeoutError):
            await box.exec(["sh", "-c", "trap '' TERM INT; while :; do :; done"], timeout=1)
        with pytest.raises(TimeoutError):  # the limit of processes holds it until its time is up
            bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
            await box.exec(["python3", "-c", bomb], timeout=1)
        hungry = await box.exec(["python3", "-c", "x = b'1' * 5 * 2**30"], timeout=20)
        assert not hungry.success
        full = await box.exec(["sh", "-c", "head -c 12000000 /dev/zero > a; cp a b; cp a c; cp a d"], timeout=30)
        assert not full.success and "No space" in full.stderr
        await box.exec(["sh", "-c", "rm a b c d"])
        await box.exec(["sh", "-c", "sleep 300 & setsid sleep 300 & :"])
        assert "sleep" not in (await box.exec(["sh", "-c", "cat /proc/[0-9]*/comm"])).stdout

        for words in (["no-such-program"], [""], ["a\0b"]):
            assert (await box.exec(words)).returncode in (126, 127)
        assert (await box.exec(["true"], cwd="no/such/folder")).returncode == 126
        with pytest.raises(SandboxUserUnsupportedError):
            await box.exec(["true"], user="root")
        with pytest.raises(NotImplementedError, match="no process outlives its command"):
            await box.exec_remote(["server"])

        # what it does to its own folders leaves the sandbox in working order
        await box.exec(["sh", "-c", "rm -rf /tmp /root /workspace /home; rm -rf /tmp/* /tmp/shm; ln -s / /tmp/shm"])
        await box.exec(
            ["sh", "-c", "printf 'import os; os._exit(0)' | tee /tmp/work/json.py base64.py os.py; chmod 0 /tmp"]
        )
        assert (await box.exec(["echo", "still here"])).stdout == "still here\n"
        await box.write_file("last", "word")
        assert await box.read_file("last") == "word"
        await closed(box)

    asyncio.run(main())


@pytest.mark.slow
@needs_bwrap
def test_a_snapshot_holds_what_changed_and_no_more_than_is_allowed() -> None:
    async def main() -> None:
        async with Box() as box, Box() as other:
            for each in (box, other):
                await each.write("kept", b"as it was")
                await each.write("/data/gone", b"was here")
            seen = await box.seen()
            await box.exec(
                ["sh", "-c", "rm /data/gone; mkdir -p d/e; printf '\\377' > d/e/f; chmod 711 d; ln -s kept l; mkfifo p"]
            )
            await box.exec(["sh", "-c", "echo hidden > closed; chmod 0 closed"])
            changes = await box.snapshot(seen)
            await other.restore(changes)
            look = [
                "sh",
                "-c",
                "cd /workspace; ls -l d l closed | cut -c1-10; readlink l; ls /data; cat kept; chmod 400 closed; cat closed",
            ]
            there, here = (await other.exec(look)).stdout, (await box.exec(look)).stdout
            assert there == here and "hidden" in here and "gone" not in here
            assert await other.read("d/e/f") == b"\xff"
            await box.exec(["sh", "-c", "head -c 9000000 /dev/urandom > big"])
            with pytest.raises(ValueError, match="more than 4194304 bytes"):
                await box.snapshot(seen)

    asyncio.run(main())


@needs_bwrap
def test_a_command_cannot_plant_what_later_reads_and_writes_import() -> None:
    """A `base64.py` beside our own program forged every later exec, read and write."""
    plant = (
        "mkdir -p /tmp/work; for d in /tmp/work $HOME /tmp .; do "
        "for m in base64 hashlib json stat zlib signal shutil typing; do "
        "echo 'import sys; sys.stdout.write(\"ok whole:forged\"); sys.exit(0)' > $d/$m.py; done; done; ls /tmp/work"
    )

    async def main() -> tuple[str, bytes, str]:
        async with Box() as box:
            planted = await box.exec(["sh", "-c", plant])
            await box.write("a.txt", b"real")
            return planted.stdout, await box.read("a.txt"), (await box.exec(["echo", "hi"])).stdout

    planted, content, said = asyncio.run(main())
    assert "base64.py" in planted and content == b"real" and said == "hi\n"
