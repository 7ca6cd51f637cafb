"""What `firsthand train` and the fine-tuning of `firsthand rag decide` make of their words, runs and failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand import catalog
from firsthand.commands import rag_decide, train
from firsthand.errors import ConfigError, DataError
from firsthand.experiment.rag_decision import FactChange, FactQuestion
from firsthand.train import training_run

Cli = Callable[..., tuple[int, str, str]]

RECIPE = '''
"""A recipe of one's own."""
from dataclasses import dataclass, field
from firsthand.errors import DataError
from firsthand.train.training_run import LoopSettings

@dataclass(frozen=True)
class Config:
    """Of own."""
    text: str = field(default="a", metadata={"positional": True})
    """What to do."""
    tools: tuple[str, ...] = ()
    """Tools."""
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=3))

def own(config, run):
    """Does nothing."""
    if config.text == "refuse":
        raise DataError("no such text")
    if config.text == "late":
        (run.folder / "checkpoints").mkdir()
        raise DataError("a bad line")
    if config.text == "measured":
        run.track.log({"loss": 0.5}, step=1)
        raise DataError("a bad line")
    if config.text == "stop":
        (run.folder / "checkpoints" / "1").mkdir(parents=True)
        raise KeyboardInterrupt
    if config.text == "wait":
        (run.folder / "checkpoints").mkdir()
        raise KeyboardInterrupt
    (run.folder / "model").mkdir(exist_ok=True)
    (run.folder / "told.txt").write_text(f"{config.text} {config.loop.steps} {config.tools} {run.is_resumed}")
    return run.folder / "model"
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe in a file, and a data home."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(RECIPE)
    return str(tmp_path / "own.py")


@pytest.mark.slow
def test_a_recipe_gets_its_settings_and_a_mistake_leaves_no_folder(own: str, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "a b"
    code, said, _ = cli("train", own, "--out", str(out), "hello", "--steps", "5")
    assert code == 0 and said == f"{train._outcome(out / 'model', out)}\n"
    assert (out / "told.txt").read_text() == "hello 5 () False"
    code, _, err = cli("train", own, "refuse", "--out", "new")
    assert code != 0 and "no such text" in err and not Path("new").exists()
    Path("mine").mkdir()
    assert cli("train", own, "refuse", "--out", "mine")[0] != 0 and Path("mine").is_dir()
    for text in ("late", "measured"):
        assert cli("train", own, text, "--out", text)[0] != 0 and Path(text).is_dir(), "what it had made is kept"
        code, _, err = cli("train", own, text, "--out", text)
        again = f"go on with `firsthand train --resume {text}`, or give another `--out`"
        assert (code, err) == (2, f"firsthand: {text} holds a run already: {again}\n")
    code, _, err = cli("train", own, "wait", "--out", "w x")
    again = "\nfirsthand: interrupted: `firsthand train --resume 'w x'` begins again: no checkpoint was written yet\n"
    assert code == 130 and err.endswith(again)
    code, _, err = cli("train", own, "stop", "--out", "s")
    assert code == 130 and err.endswith("`firsthand train --resume s` goes on from the newest checkpoint\n")
    assert cli("train", own, "kept")[0] == 0
    texts = {path.parent.name[16:-5]: path.read_text() for path in (tmp_path / "home" / "runs").glob("*/told.txt")}
    assert texts == {"own": "kept 3 () False"}


def test_a_resumed_run_has_its_stored_settings_and_its_loop_may_be_given_anew(
    own: str, tmp_path: Path, cli: Cli
) -> None:
    assert cli("train", own, "hello", "--out", "r", "--tools", "calculator")[0] == 0
    told = Path("r/told.txt")

    def resumed(*words: str) -> str:
        assert cli("train", "--resume", "r", *words)[0] == 0
        return told.read_text()

    assert resumed() == "hello 3 ('calculator',) True" and resumed("--steps", "7").startswith("hello 7 ")
    assert resumed("loop.steps=8").startswith("hello 8 ") and resumed("--loop.steps", "9").startswith("hello 9 ")
    assert resumed("--loop.steps=2").startswith("hello 2 ")
    code, _, err = cli("train", "--resume", "r", "--text", "other")
    assert code == 2 and "--text" in err and told.read_text().startswith("hello 2 ")
    code, _, err = cli("train", "--resume", "r", "--out", "q")
    assert code == 2 and "--resume goes on with a run's own recipe in its own folder" in err
    body = json.loads(Path("r", training_run.SETTINGS).read_text())
    Path("r", training_run.SETTINGS).write_text(
        json.dumps({**body, "settings": {**body["settings"], "tools": ["./x.py"]}})
    )
    told.unlink()
    code, _, err = cli("train", "--resume", "r")
    assert code == 2 and "r was made elsewhere and names the recipe" in err and "--trust" in err and not told.exists()
    assert cli("train", "--resume", "r", "--trust")[0] == 0 and told.read_text() == "hello 2 ('./x.py',) True"


def test_a_recipe_needs_its_settings_beside_it(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "bare.py").write_text("def bare(config, run):\n    '''Bare.'''\n")
    code, _, err = cli("train", str(tmp_path / "bare.py"))
    assert code == 2 and "has no dataclass `Config` beside its function: define one" in err
    (tmp_path / "odd.py").write_text("class Config:\n    pass\n\ndef odd(config, run):\n    '''Odd.'''\n")
    assert cli("train", str(tmp_path / "odd.py"))[0] == 2
    assert train.config_of("doctor") is train.DoctorConfig and train.config_of("sft").__module__.endswith("recipes.sft")
    lines = train._overview().splitlines()
    known = catalog.names("recipe")
    at = lines.index("recipes:")
    assert len(lines) == at + 1 + len(known)
    width = max(map(len, known))
    assert lines[at + 1 :] == [f"  {name:<{width}}  {line}" for name, line in known.items()]


# -- rag decide --


@dataclass
class Trained:
    """Stands for the training and the model that it makes."""

    code: int = 0
    words: list[str] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)

    def dispatch(self, words: list[str]) -> int:
        self.words = words
        self.rows = [json.loads(line) for line in Path(words[1]).read_text().splitlines()]
        print("progress")
        return self.code


def test_a_model_is_tuned_on_the_documents_and_on_questions_that_are_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from firsthand.experiment import rag_decision

    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    trained = Trained()
    monkeypatch.setattr(train, "dispatch", trained.dispatch)
    monkeypatch.setattr(catalog, "model", lambda name: ("model of", name))
    monkeypatch.setattr(rag_decision, "training_rows", lambda texts, more: [texts, *(each.question for each in more)])
    more = tmp_path / "more.jsonl"
    more.write_text('{"question": "B?", "answer": "b"}\n{"question": "C?", "answer": "c"}\n')
    config = rag_decide.Config(
        Path("d"), Path("q"), model="m", lora=True, train_questions=more, epochs=2.5, arms=("RAG",)
    )  # fmt: skip
    model, seconds = rag_decide._tuned(config, {"a.md": "text"}, [FactQuestion("1", "A?", "a", ())])
    folder = trained.words[-1]
    assert model == ("model of", f"{folder}/model") and seconds >= 0 and trained.rows == [{"a.md": "text"}, "B?", "C?"]
    assert Path(folder).parent == tmp_path / "runs" and Path(folder).name.startswith("decide-lora-")
    assert " ".join(trained.words) == (
        f"sft {folder}.jsonl --model m --adapter lora --epochs 2.5 --batch-size 4 --lr 1e-3 --too-long cut --holdout 0 "
        f"--out {folder}"
    )
    out, err = capsys.readouterr()
    assert (out, err) == ("", "progress\n")
    with pytest.raises(
        ConfigError, match=r"the question 'C\?' is asked and trained on: leave it out of train_questions"
    ):
        rag_decide._tuned(config, {}, [FactQuestion("1", "C?", "a", ())])
    trained.code = 2
    with pytest.raises(ConfigError, match="the fine-tuning failed: see its messages above, or leave --lora out"):
        rag_decide._tuned(config, {"a.md": "text"}, [])


@pytest.mark.parametrize(("change", "share"), [("20%", 0.2), ("0.2", 0.2), (" 0 ", 0.0), ("100%", 1.0), ("1", 1.0)])
def test_a_share_of_changed_facts_is_a_percentage_or_a_fraction(change: str, share: float) -> None:
    assert rag_decide.Config(Path("d"), Path("q"), change=change).changed_share() == pytest.approx(share)


def test_options_of_a_decision_are_checked_and_documents_must_be_indexed() -> None:
    for given, said in [
        ({"change": "101%"}, "change is '101%': give a share such as 20% or 0.2, or 0 for none"),
        ({"change": "-0.1"}, "change is '-0.1'"), ({"change": "some"}, "change is 'some'"), 
        ({"change": "9%%"}, "change is '9%%'"), ({"k": 0}, "k is 0: give 1"),
        ({"max_chars": 0}, "max_chars is 0"), ({"concurrency": 0}, "concurrency is 0"), ({"limit": 0}, "limit is 0"),
        ({"train_questions": Path("x")}, "train_questions are for fine-tuning: give --lora too"),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            rag_decide.Config(Path("d"), Path("q"), **given)  # type: ignore[arg-type]
    asked = [FactQuestion("1", "Q?" * 40, "a", ("a.md", "b.md"))]
    rag_decide._check_documents(asked, {"a.md": "", "b.md": ""})
    with pytest.raises(DataError, match=rf"question '{'Q.' * 30}' names the document 'b.md', which was not indexed"):
        rag_decide._check_documents(asked, {"a.md": ""})
    change = SimpleNamespace(question=FactQuestion("7", "Q?", "old", ("a", "b")), new="new", document="b")
    found: Any = change
    assert rag_decide._with_answer(found) == FactQuestion("7", "Q?", "new", ("b",)) and FactChange is not None
    arms = ["closed book", "RAG", "long context", "oracle context", "LoRA", "LoRA + RAG"]
    assert [rag_decide._update(arm, 2.0, 9.0) for arm in arms] == [None, 2, 0, 0, 9, 2]
