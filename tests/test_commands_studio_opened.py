"""What `firsthand studio` opens, exports and imports: autoencoders of two places, an address, logs in order."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from firsthand.bridges.inspect import eval_logs
from firsthand.bridges.lm_eval import sample_lines
from firsthand.commands import studio, studio_transfer
from firsthand.errors import ConfigError
from firsthand.interp import sae_shelf
from scored_runs import scored_run


def test_autoencoders_are_those_that_are_named_and_those_of_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def shelf(texts: tuple[str, ...]) -> None:
        asked.append(texts)
        raise KeyError

    monkeypatch.setattr(sae_shelf, "SaeShelf", shelf)
    (tmp_path / "named").mkdir()
    named = str(tmp_path / "named")
    for given, there in (((), False), ((named,), False), ((), True), ((named,), True)):
        if there:
            (tmp_path / "home" / "saes").mkdir(parents=True, exist_ok=True)
        with pytest.raises(KeyError):
            studio._serve(studio.Config(sae=given), tmp_path / "home", {})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert studio.Config(sae=("~/named", "~/named:model=m")).sae == ("~/named", "~/named:model=m")
    own = str(tmp_path / "home" / "saes")
    assert asked == [(), (named,), (own,), (named, own)]


def test_an_address_that_all_reach_is_no_name_and_one_that_is_taken_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    for host, names in (("::", ()), ("0.0.0.0", ()), ("127.0.0.1", ()), ("10.0.0.7", ("10.0.0.7",))):
        assert studio._names(studio.Config(host=host)) == names
    closed: list[int] = []

    class Socket(socket.socket):
        def close(self) -> None:
            closed.append(self.fileno())
            super().close()

    with studio._listen(0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(socket, "socket", Socket)
        with pytest.raises(ConfigError) as refused:
            studio._listen(port)
        assert str(refused.value) == f"127.0.0.1:{port} cannot be opened: Address already in use; give another --port"
        assert len(closed) == 1 and closed[0] >= 0
    with pytest.raises(ConfigError, match="name each model once"):
        studio.Config(model=("a", "b", "a"))
    assert studio.Config(model=("a", "b")).model == ("a", "b")


def test_a_run_without_attempts_is_exported_whole_and_a_filter_that_fits_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with scored_run(tmp_path, "none", {"ada": {}}) as run:
        name = run.id
    target = tmp_path / "out.html"
    with pytest.raises(ConfigError) as refused:
        studio_transfer.export_run(name, target, " has:error", tmp_path)
    assert str(refused.value) == f"no attempt of {name} matches the filter ' has:error': nothing was written"
    assert not target.exists()
    assert studio_transfer.export_run(name, target, "  ", tmp_path) == 0, "blanks are no filter"
    assert capsys.readouterr().out == f"0 attempts in {target}\n" and target.read_text().startswith("<!")
    with pytest.raises(ConfigError, match="is there already: give another file with --to"):
        studio_transfer.export_run(name, target, "", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert studio_transfer.export_run(name, None, "", tmp_path) == 0 and Path(f"{name}.html").is_file()


def test_logs_of_a_folder_are_imported_by_path_whatever_wrote_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(eval_logs, "import_eval", lambda file, home: told.append((file.name, home)) or ("e", 1))
    monkeypatch.setattr(
        sample_lines, "import_samples", lambda file, home, models: told.append((file.name, home)) or ("s", 2000)
    )
    home = tmp_path / "home"
    for name in ("b/z.eval", "b/samples_y.jsonl", "a/samples_q.jsonl", "c.eval", "b/other.jsonl", "samples.jsonl"):
        (tmp_path / "logs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "logs" / name).touch()
    assert studio_transfer.import_logs(tmp_path / "logs", home) == 0
    assert told == [(name, home) for name in ("samples_q.jsonl", "samples_y.jsonl", "z.eval", "c.eval")]
    assert capsys.readouterr().out.splitlines() == [
        "2,000 samples in run s", "2,000 samples in run s", "1 sample in run e", "1 sample in run e"
    ]  # fmt: skip
    told.clear()
    assert studio_transfer.import_logs(tmp_path / "logs/b/other.jsonl", home) == 0 and told == [("other.jsonl", home)]
    (tmp_path / "empty").mkdir()
    for path, why in (
        (tmp_path / "empty", "holds no logs: .eval files"),
        (tmp_path / "gone", "is not there: give an .eval"),
    ):
        with pytest.raises(ConfigError, match=why):
            studio_transfer.import_logs(path, home)
