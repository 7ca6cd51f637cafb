"""`rag label`: the lines of a file that a critic labels, and those that are named."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corpus_tiny import TEXTS, wide_home, write_index
from firsthand.commands import rag_label
from firsthand.errors import ConfigError, DataError, TransientError
from firsthand.retrieval.reflection import critic_labels


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with wide_home(tmp_path, monkeypatch):
        yield tmp_path


def test_lines_of_answers_are_pairs_of_texts() -> None:
    assert rag_label._pair('{"instruction": "q", "output": "a", "prompt": "p", "completion": "c"}') == ("q", "a")
    assert rag_label._pair('{"instruction": "q", "output": " ", "prompt": "p", "completion": "c"}') == ("p", "c")
    assert rag_label._pair('{"prompt": " p ", "completion": "c"}') == (" p ", "c")
    assert rag_label._pair('{"instruction": " ", "output": "a", "prompt": "p", "completion": "c"}') == ("p", "c")
    wrong = ['{"instruction": "q"}', '{"instruction": 1, "output": "a"}', '{"prompt": "", "completion": "c"}']
    wrong += ["[1]", "{", "[" * 9999]
    for line in wrong:
        with pytest.raises(DataError) as refused:
            rag_label._pair(line)
        assert (
            str(refused.value)
            == "an object with `instruction` and `output` was expected, both texts that are not empty"
        )


def test_every_line_is_labelled_by_the_critic_or_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = write_index(home / "d.index", TEXTS, vectors=False)
    asked: list[Any] = []
    written: list[int] = []

    async def label(question: str, answer: str, retriever: Any, critic: Any, settings: Any) -> str:
        if answer == "later":
            raise TransientError("busy")
        hits = await retriever(SimpleNamespace(text="mill", where={}, vectors=()), settings.k)
        asked.append((question, answer, len(hits), critic.model.name, settings.k, settings.threshold))
        written.append(config.out.read_text().count("\n") if config.out is not None else 0)
        if answer == "bad":
            raise ConfigError("the critic refuses")
        return f"[x]{answer}é"

    monkeypatch.setattr(critic_labels, "label", label)
    (home / "s.json").write_text('{"": "yes"}')
    monkeypatch.setattr(rag_label.interruption, "run", asyncio.run)
    rows = ['{"instruction": "q1", "output": "a1"}', " ", '{"prompt": "q2", "completion": "bad"}', "no"]
    rows.append('{"prompt": "q3", "completion": "a3"}')
    data, out = home / "a.jsonl", home / "out.jsonl"
    data.write_text("\n".join(rows))
    config = rag_label.Config(data, str(index), "scripted:s.json", out, k=2, threshold=0.75, search="lexical")
    assert rag_label.run(config) == 3
    told, err = capsys.readouterr()
    assert told == f"2 answers labelled, 2 failed: {out}\n" and err.splitlines() == [
        f"firsthand: failed: {data}:3: the critic refuses",
        f"firsthand: failed: {data}:4: an object with `instruction` and `output` was expected, both texts that are not "
        "empty",
    ]
    assert out.read_text() == '{"instruction": "q1", "output": "[x]a1é"}\n{"instruction": "q3", "output": "[x]a3é"}\n'
    assert asked == [(q, a, 1, "scripted:s.json", 2, 0.75) for q, a in (("q1", "a1"), ("q2", "bad"), ("q3", "a3"))]
    assert written == [0, 1, 1], "each line is in the file before the next one is asked for"
    with pytest.raises(ConfigError, match=r"out\.jsonl is there already: give another file, or remove it"):
        rag_label.Config(data, str(index), "scripted:s.json", out)
    for missing in ({"data": data}, {"out": home / "n"}):
        with pytest.raises(ConfigError, match="label needs two files"):
            rag_label.Config(**missing)  # type: ignore[arg-type]
    out.unlink()
    data.write_text(rows[0])
    assert rag_label.run(config) == 0 and capsys.readouterr().out == f"1 answer labelled, 0 failed: {out}\n"
    out.unlink()
    data.write_text("no\n")
    assert rag_label.run(config) == 3 and not out.exists()
    assert capsys.readouterr().out == "0 answers labelled, 1 failed\n"
    data.write_text('{"prompt": "q", "completion": "later"}\n')
    with pytest.raises(TransientError, match="busy"):
        rag_label.run(config)
    assert not out.exists(), "an empty file would be refused by the next try"
    data.write_text(f'{rows[0]}\n{{"prompt": "q", "completion": "later"}}\n')
    with pytest.raises(TransientError, match="busy"):
        rag_label.run(config)
    assert out.read_text() == '{"instruction": "q1", "output": "[x]a1é"}\n', "what was labelled is kept"
    out.unlink()
    data.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"a\.jsonl cannot be read: "):
        rag_label.run(config)
