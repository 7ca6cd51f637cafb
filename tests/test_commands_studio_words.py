"""`studio export`, `import` and `account`: the file of a run, logs of others, and accounts by the words of the terminal."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firsthand.commands import studio, studio_transfer
from firsthand.errors import ConfigError
from firsthand.serve.http.bounded_protocol import HEADER_BYTES, BoundedProtocol
from firsthand.studio.studio_store import SqliteStore
from printed_tables import widen
from scored_runs import scored_run

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    widen(monkeypatch, studio_transfer)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_a_run_is_exported_once_with_the_attempts_that_were_asked_for(home: Path, tmp_path: Path, cli: Cli) -> None:
    tries = {f"t{n}": [{"exact": float(n > 0)}] for n in range(3)}
    run = scored_run(home, "one", {"ada": {"sums": tries}})
    run.close()
    code, out, _ = cli("studio", "export", run.id)
    assert (code, out) == (0, f"3 attempts in {run.id}.html\n") and Path(f"{run.id}.html").read_text().startswith("<!")
    code, _, err = cli("studio", "export", run.id)
    assert (code, err) == (2, f"firsthand: {run.id}.html is there already: give another file with --to\n")
    code, out, _ = cli("studio", "export", run.id, "--to", "w.html", "--filter", "is:wrong")
    assert (code, out) == (0, "1 attempt in w.html\n"), out
    code, _, err = cli("studio", "export", run.id, "--to", "n.html", "--filter", "agent=bob")
    told = f"no attempt of {run.id} matches the filter 'agent=bob': nothing was written"
    assert (code, err) == (2, f"firsthand: {told}\n") and not Path("n.html").exists()
    code, _, err = cli("studio", "export", run.id, "--to", "no/n.html")
    assert code == 1 and err == "firsthand: no/n.html cannot be written: No such file or directory\n"
    Path("link.html").symlink_to("target.html")
    code, _, err = cli("studio", "export", run.id, "--to", "link.html")
    assert code == 2 and "link.html is there already" in err and not Path("target.html").exists()


def test_what_was_left_out_of_an_export_is_counted(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from firsthand.studio import run_export

    run = scored_run(home, "one", {"ada": {"sums": {"t": [{"exact": 1.0}]}}})
    run.close()
    monkeypatch.setattr(run_export, "exported", lambda opened, text: (f"{opened.id} {text} \ud800", 1234, 2000))
    assert studio_transfer.export_run(run.id, Path("o.html"), "f", home) == 0
    assert capsys.readouterr().out == "1,234 attempts in o.html, 2,000 left out\n"
    assert Path("o.html").read_text() == f"{run.id} f \\ud800"


def test_logs_are_imported_by_their_kind_in_the_order_of_their_names(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from firsthand.bridges.inspect import eval_logs
    from firsthand.bridges.lm_eval import sample_lines

    asked: list[Any] = []
    monkeypatch.setattr(eval_logs, "import_eval", lambda file, at: asked.append((file.name, at)) or ("E", 1))
    monkeypatch.setattr(
        sample_lines, "import_samples", lambda file, at, models: asked.append((file.name, at)) or ("S", 1234)
    )
    (tmp_path / "logs" / "deep").mkdir(parents=True)
    for name in ("b.eval", "samples_a.jsonl", "deep/a.eval", "other.jsonl", "c.txt"):
        (tmp_path / "logs" / name).touch()
    assert studio.main(studio.Config(("import", "logs"))) == 0
    assert asked == [(name, home) for name in ("b.eval", "a.eval", "samples_a.jsonl")]
    assert capsys.readouterr().out == "1 sample in run E\n1 sample in run E\n1,234 samples in run S\n"
    asked.clear()
    assert studio_transfer.import_logs(Path("logs/other.jsonl"), home) == 0 and asked == [("other.jsonl", home)]
    (tmp_path / "none").mkdir()
    for path, told in (
        ("none", "none holds no logs: .eval files of Inspect or samples_*.jsonl of lm-eval were expected"),
        ("gone", "gone is not there: give an .eval log of Inspect, samples_*.jsonl of lm-eval, or their folder"),
    ):
        with pytest.raises(ConfigError) as refused:
            studio_transfer.import_logs(Path(path), home)
        assert str(refused.value) == told


def test_accounts_are_managed_and_each_change_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from firsthand.studio import accounts

    monkeypatch.setattr(accounts, "hashed", lambda password: f"hash of {password}")
    home.mkdir()

    closed: list[str] = []
    closing = SqliteStore.close
    monkeypatch.setattr(SqliteStore, "close", lambda self: closed.append("closed") or closing(self))

    def told(*line: str, role: str = "viewer", project: str = "") -> str:
        closed.clear()
        assert studio_transfer.manage_accounts(line, role, SqliteStore(home), project) == 0
        assert closed == ["closed"]
        return capsys.readouterr().out

    typed = io.StringIO("correct horse battery \nmore\n")
    monkeypatch.setattr("sys.stdin", typed)
    assert told("add", "bob", role="editor") == "bob is editor.\n"
    kept = SqliteStore(home).get(accounts.ACCOUNT, "bob")
    assert kept is not None and kept.body["hash"] == "hash of correct horse battery ", (
        "only the end of the line is left out"
    )
    said: list[str] = []
    passwords = ["another long one", "another long one", "another long one", "a different one!"]
    monkeypatch.setattr(studio_transfer.getpass, "getpass", lambda text: said.append(text) or passwords.pop(0))
    typed.isatty = lambda: True  # type: ignore[method-assign]
    assert told("add", "ada", role="admin", project="vision") == "ada is admin in vision.\n"
    assert said == ["Password: ", "Again: "]
    with pytest.raises(ConfigError, match=r"^the two passwords differ: begin again$"):
        studio_transfer.manage_accounts(("add", "cy"), "viewer", SqliteStore(home))
    assert told("role", "bob", role="annotator") == "bob is annotator.\n" and told("list") == "bob  annotator\n"
    assert told("list", project="vision") == "ada  admin\nbob  annotator\n"
    assert told("role", "ada", role="none", project="vision") == "ada has no role in vision.\n"
    narrow = studio_transfer.console()
    monkeypatch.setattr(studio_transfer, "console", lambda: narrow)
    wide = narrow.width
    narrow.width = 10
    key = told("key", "bob").removesuffix("\n")  # in one piece however narrow the terminal is
    narrow.width = wide
    assert accounts.Accounts(SqliteStore(home)).of_key(key) == accounts.User("bob", "annotator")
    assert told("remove", "bob") == "bob is removed, with its keys and sessions.\n" and told("list") == ""


def test_the_store_of_a_studio_is_its_own_or_a_database_or_a_project_of_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from firsthand.studio import postgres_store, project_store

    monkeypatch.setattr(postgres_store, "PostgresStore", lambda address: ("shared", address))
    monkeypatch.setattr(project_store, "ProjectStore", lambda shared, project: (shared, project))
    assert studio_transfer.store_of(home, "postgres://x") == ("shared", "postgres://x")
    assert studio_transfer.store_of(home, "postgres://x", "p") == (("shared", "postgres://x"), "p")
    home.mkdir()
    assert isinstance(studio_transfer.store_of(home, "", "p"), SqliteStore)
    asked: list[Any] = []
    monkeypatch.setattr(studio_transfer, "store_of", lambda *given: asked.append(given) or "store")
    monkeypatch.setattr(studio_transfer, "manage_accounts", lambda *given: asked.append(given) or 3)
    config = studio.Config(("account", "add", "ada"), role="admin", database="postgres://x", project="p", home=home)
    assert studio.main(config) == 3
    assert asked == [(home, "postgres://x", "p"), (("add", "ada"), "admin", "store", "p")]


def test_the_studios_server_trusts_no_proxy_and_keeps_no_log() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Answers nothing."""

    found = studio.server_of(app).config  # type: ignore[arg-type]
    assert issubclass(found.http, BoundedProtocol) and found.http.room is not None  # type: ignore[arg-type]
    assert (found.app, found.ws, found.lifespan) == (app, "none", "on")
    assert (found.access_log, found.server_header, found.proxy_headers, found.log_level) == (
        False,
        False,
        False,
        "critical",
    )
    assert (found.timeout_graceful_shutdown, found.h11_max_incomplete_event_size, found.loop) == (
        1,
        HEADER_BYTES,
        "asyncio",
    )
    listening = studio._listen(0, "127.0.0.1")
    assert listening.proto == socket.IPPROTO_TCP and listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    listening.close()
