"""A file that is read has an end, wherever its name comes from: pipes, devices and files of gigabytes are refused."""

from __future__ import annotations

import ast
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import firsthand
from firsthand.bridges.lm_eval.task_yaml import read_yaml
from firsthand.contamination.ngram_overlap import CorpusIndex
from firsthand.errors import FirsthandError
from firsthand.providers import cassette
from firsthand.runs.event_files import read_events
from firsthand.scorers.concerns.refusal_rule import read_labels
from firsthand.system.ordinary_file import read_bounded, read_ordinary, read_ordinary_text
from firsthand.tools.sql import SqlFile
from firsthand.train.scaling.scaling_points import read_points
from firsthand.worlds.browsing.mind2web import _records
from firsthand.worlds.household.alfworld_games import listed_games, read_game
from firsthand.worlds.knowledge.triples import read_triples
from firsthand.worlds.shell.os_items import _loaded
from firsthand.worlds.tau.tau_tasks import _contents

PACKAGE = (
    "benchmarks/concerns/fact_items.py", "benchmarks/paired_requests.py", "benchmarks/protocols/protocol.py",
    "boards/board_spec.py", "claims/architecture/rope_families.py", "claims/papers/transformer_ancestry.py",
    "commands/subcommands.py", "patterns/parts/judge_protocols.py", "reading/list_questions.py",
    "reading/reading_list.py", "reading/tour_steps.py", "sandbox/container.py", "sandbox/repository_workspace.py",
    "scorers/differential.py", "scorers/unit_tests.py", "show/html_page.py", "studio/rendering.py",
    "studio/run_export.py", "studio/studio_app.py", "kernels/code_cache.py",
    "benchmarks/long_context/ruler_sample.py",  # of an installed package
    "benchmarks/sources/tot_data.py",  # its prompts; the data are read by read_ordinary
    "kernels/numba_settings.py",  # the settings of numba, as numba reads them
    "system/source_definitions.py",
    "catalog.py", "config.py", "commands/completion.py",  # modules of Python that are, or are to be, imported
)  # fmt: skip
"""Reads files of packages."""
SYSTEM = (
    "engine/memory/available_memory.py", "measure/machine.py", "runs/system_metrics.py", "sandbox/bounded_process.py",
    "sandbox/memory_cgroup.py", "sandbox/memory_share.py", "tokens/grammar_process.py", "sandbox/bwrap_command.py",
    "scorers/programs/unit_runner.py",  # within the sandbox
)  # fmt: skip
"""Reads files of the kernel and the system's, by names that are ours."""
HOME = (
    "claims/fact_language.py", "hub/content_hash.py", "measure/machine_speeds.py", "measure/measurements.py",
    "reading/entry_documents.py", "reading/tour_progress.py", "studio/compiled_templates.py", "system/home_seal.py",
    "system/source_commit.py", "tools/mcp/approved_definitions.py", "tools/mcp/oauth_sign_in.py",
    "worlds/database/mariadb_engine.py", "cli.py", "hub/download.py", "ingest/cold_segments.py",
    "train/checkpoints.py", "train/model_folder.py",
)  # fmt: skip
"""Reads what firsthand has written, in the data home or a folder of its own making."""
USER = (
    "commands/models_quantize.py",  # 4 MB of it
    "commands/tokens.py", "train/documents.py",  # line by line
    "providers/scripted.py", "system/bounded_toml.py",  # so many bytes
)  # fmt: skip
"""Reads, within a bound, what the user names, and takes pipes: `<(command)` and /dev/stdin."""
DATA_FREE = "sandbox/programs/"
"""Programs that run inside a sandbox."""


def test_a_pipe_or_a_device_in_the_place_of_a_file_of_strangers_is_one_sentence(tmp_path: Path) -> None:
    index = tmp_path / "index"
    CorpusIndex.build(text(tmp_path / "corpus.txt"), index)
    reads: dict[str, Callable[[Path], object]] = {
        "a.yaml": read_yaml, "index/bits.npy": lambda _: CorpusIndex(index), "game.json": read_game,
        "list.json": lambda path: list(listed_games(path)), "m.json": _records, "t.json": _contents, "o.json": _loaded,
        "t.nt": lambda path: list(read_triples(path)), "t.nt.gz": lambda path: list(read_triples(path)), "a.db": SqlFile,
    }  # fmt: skip
    for name, read in reads.items():
        path = tmp_path / name
        for make in (os.mkfifo, partial(os.symlink, "/dev/zero")):
            path.unlink(missing_ok=True)
            make(path)
            assert "it is no ordinary file but a " in told(lambda read=read, path=path: read(path), path), name
    os.mkfifo(tmp_path / "events")
    assert "no ordinary file" in told(lambda: list(read_events(tmp_path / "events")), tmp_path / "events")


def test_an_endless_file_that_the_user_names_is_read_up_to_a_bound(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="it is larger than 1,000 bytes"):
        read_bounded(Path("/dev/zero"), 1000)
    with pytest.raises(FirsthandError, match="is larger than 67108864 bytes"):
        read_points(Path("/dev/zero"))
    for read in (read_labels, lambda path: cassette.open_model(str(path))):
        big = tmp_path / "big"
        with big.open("wb") as file:
            file.truncate((1 << 28) + 1)
        with pytest.raises(FirsthandError, match="larger than 256 MiB"):
            read(big)


def test_a_pipe_that_the_user_names_is_read(tmp_path: Path) -> None:
    labels = '# v1\r\nassistant_response,objective,human_score\r\n"no\r\nnever",q,1\r\n'
    assert read_labels(piped(labels)) == [("no\nnever", "q", True)]
    assert len(read_points(piped("parameters,tokens,loss\n1e6,1e8,3\n2e6,2e8,2.5\n"))) == 2
    model = cassette.open_model(str(piped('{"prompt": "a\u2028", "replies": ["b"]}\n')))
    assert model._recordings == {"a\u2028": ("b",)}


def test_ordinary_files_and_links_to_them_are_read_up_to_their_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("é\r\nb".encode())
    (tmp_path / "link").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / "link"):
        assert read_ordinary(path, 5) == "é\r\nb".encode() and read_ordinary_text(path, 5) == "é\nb"
        with pytest.raises(OSError, match="it is larger than 4 bytes"):
            read_ordinary(path, 4)
    with pytest.raises(OSError, match="Is a directory"):
        read_ordinary(tmp_path)
    with pytest.raises(UnicodeDecodeError):
        read_ordinary_text(tmp_path / "a", encoding="ascii")


def test_an_index_s_bits_are_mapped_and_not_read(tmp_path: Path) -> None:
    index = CorpusIndex.build(text(tmp_path / "corpus.txt"), tmp_path / "index")
    again = CorpusIndex(tmp_path / "index")
    assert isinstance(again.bits, np.memmap) and not again.bits.flags.writeable
    np.testing.assert_array_equal(again.bits, index.bits)


def test_what_reads_by_name_is_the_package_s_the_home_s_the_system_s_or_the_user_s() -> None:
    root = Path(firsthand.__file__).parent
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if reads_by_name(path.read_text("utf-8"))}
    found = {name for name in found if not name.startswith(DATA_FREE)}
    assert found - {*PACKAGE, *SYSTEM, *HOME, *USER} == set(), "read them by firsthand.system.ordinary_file"
    assert {*PACKAGE, *SYSTEM, *HOME, *USER} - found == set()
    for line in (
        "a.read_text()",
        "open(a)",
        "a.open()",
        "a.open(encoding='ascii')",
        "a.open('rb')",
        "gzip.open(a)",
        "np.load(a / b)",
    ):
        assert reads_by_name(line) is (line != "a.open()"), line
    assert not any(
        map(reads_by_name, ("a.open('wb')", "os.open(a, b)", "gzip.open(raw)", "np.memmap(file, b)", "await a.open()"))
    )


def reads_by_name(program: str) -> bool:
    """True if a program reads a file by its path: read_text, read_bytes, np.load, np.memmap, or open in a mode to read."""
    if not any(word in program for word in ("read_text", "read_bytes", "open(", "np.load", "np.memmap", "np.fromfile")):
        return False
    return any(isinstance(node, ast.Call) and is_read(node) for node in ast.walk(ast.parse(program)))


def is_read(call: ast.Call) -> bool:
    match call.func:
        case ast.Name("open"):
            owner, name = "", "open"
        case ast.Attribute(value, ("read_text" | "read_bytes" | "open" | "load" | "memmap" | "fromfile") as name):
            owner = ast.unparse(value)
        case _:
            return False
    first = call.args[0] if call.args else None
    if name in ("load", "memmap", "fromfile"):
        return owner == "np" and not isinstance(first, ast.Name)
    if name != "open":
        return not owner.startswith(("self._open", "inside", "shelf"))
    if owner in ("gzip", "bz2", "lzma"):
        return ast.unparse(first or call) != "raw"
    modes = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    if any(each[:1] in "wxa" and not each.strip("wxabt+") for each in modes if each):
        return False
    options = {each.arg for each in call.keywords}
    if owner.split(".")[0] in ("os", "archive", "rooted") or owner == "self.rooted" or options & {"closefd", "pwd"}:
        return False
    return not owner or bool(modes or options)


def text(path: Path) -> Path:
    path.write_text("a b c d e f g h i j k l m n o p q r s t\n" * 3)
    return path


def told(read: Callable[[], object], path: Path) -> str:
    """The error of reading; fails if it waits for somebody to write into a pipe."""
    said: list[str] = []

    def tries() -> None:
        try:
            read()
        except (FirsthandError, OSError) as error:
            said.append(str(error))

    thread = threading.Thread(target=tries, daemon=True)
    thread.start()
    thread.join(20)
    if thread.is_alive():
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))  # whoever waits for a writer gets one
        pytest.fail(f"{path} was waited for")
    return said[0] if said else ""


def piped(content: str) -> Path:
    """The name of a pipe that holds a text."""
    out, into = os.pipe()
    os.write(into, content.encode())
    os.close(into)
    return Path(f"/dev/fd/{out}")
