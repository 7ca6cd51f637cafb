"""`firsthand run --on ray`: on a cluster of several nodes on this machine, with workers and nodes killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.cluster.spread.ray_workers import Share, WorkerSlot, expect_cluster, shares
from firsthand.commands.run import Config
from firsthand.errors import ConfigError
from firsthand.experiment.on_cluster import is_local, uses_files
from firsthand.runs.store import Run, open_run
from run_process import held, results, start
from test_run_killed import PATTERNS, check_records, interrupted_tools, prepare

STORE_BYTES = 80 << 20


# -- without Ray --


def node(name: str, cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


def test_there_is_a_worker_for_each_machine_or_each_gpu() -> None:
    nodes = [
        node("head", 0),
        node("a", 8),
        node("b", 4, 2),
        node("gone", 64, alive=False),
        {"NodeID": "c", "Alive": True},
    ]
    assert shares(nodes, None, gpus=False) == {WorkerSlot("a", 0): Share(8, 0), WorkerSlot("b", 0): Share(4, 0)}
    assert shares(nodes, None, gpus=True) == {WorkerSlot("b", 0): Share(2, 1), WorkerSlot("b", 1): Share(2, 1)}


def test_workers_are_spread_over_the_machines() -> None:
    nodes = [node("a", 4), node("b", 1)]
    assert shares(nodes, 3, gpus=True) == {
        WorkerSlot("a", 0): Share(2, 0),
        WorkerSlot("a", 1): Share(2, 0),
        WorkerSlot("b", 0): Share(1, 0),
    }
    assert sum(share.cpus for share in shares(nodes, 5, gpus=False).values()) == 5
    with pytest.raises(ConfigError, match="workers is 6, and the cluster has room for 5, one for each CPU"):
        shares(nodes, 6, gpus=False)
    assert len(shares(nodes, 6, gpus=False, strict=False)) == 5
    with pytest.raises(ConfigError, match="no machine of the Ray cluster has a CPU to give"):
        shares([node("head", 0)], None, gpus=False)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"on": "dask"}, "on is 'dask': give ray, or ray:HOST:PORT"),
        ({"workers": 2}, "workers are those of a cluster"),
        ({"on": "ray", "workers": 0}, "workers is 0: give 1 or more"),
        ({"on": "ray", "watch": True}, "watch and on do not go together"),
        ({"on": "ray", "replay": "last"}, "replay and on do not go together"),
    ],
)
def test_settings_that_clash_with_a_cluster_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Config(benchmarks=("arithmetic",), **settings)


def test_the_working_folder_travels_if_something_in_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    (tmp_path / "notes").mkdir()
    assert not uses_files(Config(benchmarks=("arithmetic:tasks=3",), model=("scripted:echo",)))
    for given in ({"pattern": ("self_consistency(mine.py:other):samples=3",)}, {"tools": ("files:notes",)}):
        assert uses_files(Config(benchmarks=("arithmetic",), model=("scripted:echo",), **given))
    assert not uses_files(Config(benchmarks=("arithmetic",), pattern=(str(tmp_path / "mine.py"),)))


def test_a_model_that_runs_in_the_worker_may_use_its_gpu() -> None:
    assert is_local("smollm2") and is_local("/models/a.gguf") and is_local("hf:org/name")
    assert not is_local("openai:llama@http://localhost/v1") and not is_local("scripted:echo")


@pytest.mark.slow
def test_no_cluster_and_no_ray_are_one_line(tmp_path: Path) -> None:
    words = ["run", "arithmetic", "--model", "scripted:echo", "--on", "ray"]
    code = f"import sys; sys.modules['ray'] = None\nfrom firsthand.cli import main\nsys.exit(main({words!r}))"
    environment = {**os.environ, "FIRSTHAND_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stderr == "firsthand: --on ray needs the package 'ray': pip install 'firsthand[cluster]'\n"
    assert done.returncode == 1 and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_one_line_at_once() -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 "):
        expect_cluster("127.0.0.1:1")
    with pytest.raises(ConfigError, match="'somewhere' is no address of a Ray cluster: give HOST:PORT"):
        expect_cluster("somewhere")


# -- on a cluster --


class Cluster:
    """Three nodes on this machine: one that only leads, and two that work."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
        self.ray = RayCluster(initialize_head=True, head_node_args=head)
        self.session: str = self.ray.head_node.get_session_dir_path()
        self.nodes = [self.add(), self.add()]

    def add(self) -> Any:
        return self.ray.add_node(num_cpus=2, object_store_memory=STORE_BYTES)

    def kill_node(self) -> None:
        self.ray.remove_node(self.nodes.pop(), allow_graceful=False)

    def processes(self) -> dict[int, str]:
        """The cluster's processes by id, with the title of each: those of its session and their children."""
        found, parents = {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                status = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if status[0] != "Z":
                found[int(folder.name)], parents[int(folder.name)] = title, int(status[1])
        ours = {pid for pid, title in found.items() if self.session in title}
        return {pid: title for pid, title in found.items() if pid in ours or parents[pid] in ours}

    def workers(self) -> list[int]:
        return [pid for pid, title in self.processes().items() if title.startswith("ray::Actor")]

    def shutdown(self) -> None:
        self.ray.shutdown()
        until(lambda: not self.processes(), 30)


def until(fact: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray")
    started = Cluster()
    yield started
    started.shutdown()  # which checks that it leaves no process behind


def prepared(folder: Path, wait_s: float = 1.5) -> list[str]:
    """A folder as `test_run_killed` has it, whose tool notes its calls in this folder wherever it runs."""
    words = prepare(folder, "scripted")
    note = folder / "note.py"
    note.write_text(note.read_text().replace('"noted"', repr(str(folder / "noted"))))
    words[words.index("--concurrency") + 1] = "2"
    return [word.replace("steps.py", f"steps.py:wait-s={wait_s}") for word in words]


def expected(tmp_path: Path, wait_s: float = 1.5) -> dict[str, Any]:
    folder = tmp_path / "local"
    words = prepared(folder, wait_s)
    words[words.index("--concurrency") + 1] = "8"
    _, err = (child := start(folder, *words)).communicate(timeout=120)
    assert child.returncode == 0, err
    with open_run("last", folder / "home") as run:
        return results(run)


def check(run: Run, folder: Path, wanted: dict[str, Any]) -> None:
    assert run.status == "done" and len(wanted) == 4 * 2 * len(PATTERNS)
    found, in_doubt = results(run), interrupted_tools(run)
    check_records(run, folder)
    assert found.keys() == wanted.keys()
    assert [id for id in wanted if id not in in_doubt and found[id] != wanted[id]] == []
    noted = (folder / "noted").read_text().splitlines()
    assert 8 - len(in_doubt) <= len(noted) <= 8


@pytest.mark.slow
def test_a_run_whose_worker_and_node_are_killed_is_that_of_one_machine(tmp_path: Path, cluster: Cluster) -> None:
    folder = tmp_path / "spread"
    child = start(folder, *prepared(folder, wait_s=3.0), "--on", f"ray:{cluster.ray.address}")
    until(lambda: held(folder, "traces") >= 1 and len(cluster.workers()) == 2)
    killed = cluster.workers()[0]
    os.kill(killed, signal.SIGKILL)
    until(lambda: len(cluster.workers()) == 2 and killed not in cluster.workers())  # another one is there
    before = held(folder, "traces")
    until(lambda: held(folder, "traces") > before)
    cluster.kill_node()
    _, err = child.communicate(timeout=240)
    cluster.nodes.append(cluster.add())
    assert child.returncode == 0, err
    assert err.count("was lost") >= 1 and err.count(" to others") >= 1, err  # both losses may be told in one
    with open_run("last", folder / "home") as run:
        check(run, folder, expected(tmp_path, wait_s=3.0))


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_on_a_cluster_or_without_one(tmp_path: Path, cluster: Cluster) -> None:
    folder = tmp_path / "spread"
    on = ["--on", f"ray:{cluster.ray.address}"]
    child = start(folder, *prepared(folder), *on)
    until(lambda: held(folder, "traces") >= 2)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 130 and "attempts done: `firsthand run --resume" in err and "Traceback" not in err
    until(lambda: not cluster.workers())
    before = held(folder, "traces")
    child = start(folder, "--resume", *on, "--workers", "1", "--concurrency", "3")
    until(lambda: held(folder, "traces") >= before + 3)
    child.kill()
    child.communicate()
    until(lambda: not cluster.workers())
    child = start(folder, "--resume")
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    with open_run("last", folder / "home") as run:
        check(run, folder, expected(tmp_path))
        assert run.config["on"] == on[1]


@pytest.mark.slow
def test_what_a_cluster_cannot_do_is_one_line(tmp_path: Path, cluster: Cluster) -> None:
    folder = tmp_path / "refused"
    words, on = prepared(folder), ["--on", f"ray:{cluster.ray.address}"]
    for more, sentence in (
        ([*on, "--workers", "9"], "workers is 9, and the cluster has room for 4"),
        ([*on, "--approve", "external=ask"], "a tool asks before it is called, and on a cluster nobody can be asked"),
    ):
        child = start(folder, *words, *more)
        _, err = child.communicate(timeout=60)
        assert sentence in err and err.count("\n") == 1 and child.returncode == 2
