"""What is hidden from an answer, the tests and what they expect, in no memory, frame or file that it can reach."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the programs are those of Linux", allow_module_level=True)

from firsthand.sandbox.bubblewrap import SandboxRun, WarmWorker
from firsthand.sandbox.container import Container
from firsthand.sandbox.sandbox_limits import RunLimits
from namespaces import WHY_NOT

DOCKER = """#!/bin/sh
[ "$1" = rm ] && exit
while [ "$1" != python3 ]; do shift; done
shift
exec bwrap --unshare-user --unshare-pid --unshare-net --unshare-ipc --uid 65534 --gid 65534 --cap-drop ALL \
--ro-bind / / --tmpfs /tmp --ro-bind {prefix} {prefix} --proc /proc --dev /dev -- {python} "$@"
"""
LOOKS = r"""
import gc, os, re, sys
HIDDEN = re.compile(rb"hid[d]en-71a4")  # which does not find itself
def held():
    frame, found = sys._getframe(), []
    while frame:
        if HIDDEN.search(repr(frame.f_locals).encode()): found.append(frame.f_code.co_name)
        frame = frame.f_back
    for each in gc.get_objects():
        if type(each) in (dict, list, tuple) and HIDDEN.search(repr([v for v in (each.values() if type(each) is dict
                else each) if type(v) in (str, bytes)]).encode()): found.append("gc")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/maps") as file: spans = [line.split()[:2] for line in file]
            with open(f"/proc/{pid}/mem", "rb", 0) as memory:
                for span, rights in spans:
                    if not rights.startswith("rw"): continue
                    start, end = (int(each, 16) for each in span.split("-"))
                    try:
                        memory.seek(start)
                        if HIDDEN.search(memory.read(end - start)): found.append("memory " + pid)
                    except (OSError, ValueError, OverflowError): pass
        except OSError: pass
        try:
            with open(f"/proc/{pid}/fd/0", "rb", 0) as file: os.set_blocking(file.fileno(), False); text = file.read()
            if HIDDEN.search(text or b""): found.append("stdin " + pid)
        except OSError: pass
    return sorted(set(found))
at_load = held()
def f(x): return [at_load, held()]
"""
TESTS = "found = f(1)\nassert found == [[], []], found\n"


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
@pytest.mark.parametrize("tier", ["container", "bubblewrap"])
def test_no_memory_frame_or_file_that_an_answer_can_reach_holds_the_tests(tier: str, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text(DOCKER.format(python=sys.executable, prefix=sys.prefix))
    docker.chmod(0o755)
    given = {"setup": "kept = 'hidden-71a4 in the set-up'", "tests": f"# hidden-71a4\n{TESTS}" + "#" * 300_000,
             "names": ["f"], "proof": "hidden-71a4 proof"}  # fmt: skip
    runner = Container(docker=str(docker)) if tier == "container" else WarmWorker()
    try:
        run = SandboxRun("check", "", RunLimits(wall_s=20), stdin=json.dumps(given), files={"answer.py": LOOKS})
        report = runner.run(run)
    finally:
        runner.close()
    assert report.stdout == b"hidden-71a4 proof", report.stderr[-600:].decode()
