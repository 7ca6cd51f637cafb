"""An autoencoder's folder from elsewhere names texts: they are read, and shown with its features, when somebody says so."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from firsthand.commands import interp_dashboard
from firsthand.errors import ConfigError
from firsthand.interp.opened_sae import OpenedSae
from firsthand.interp.sae_shelf import SaeShelf
from firsthand.interp.saes.sae_files import SavedSae, save_sae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sae_run import SaeRun, run_to_show, stored_run, write_run
from tiny import write_model

torch.set_num_threads(1)
SITE = "blocks.0.resid.post"
TOLD = "was made elsewhere and names the texts '{}', which may be private"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder whose run names texts of this machine."""
    private, public = tmp_path / "private", tmp_path / "public"
    for folder, word in ((private, "SECRET"), (public, "What")):
        folder.mkdir()
        for number in range(3):
            (folder / f"{number}.txt").write_text(f"{word} is {number} + 30? The answer is 42. " * 20)
    model = write_model(tmp_path / "model")
    place = save_sae(SavedSae(sae_of("relu", 32, 24, seed=5), str(model), SITE), tmp_path / "saes" / "theirs")
    run = {"model": "m", "site": SITE, "texts": [str(private)], "context": 16, "held_out_texts": 4}
    (place / "run.json").write_text(json.dumps(run))
    return place


def shown(opened: OpenedSae) -> str:
    """The pieces that features are shown on, as text."""
    return " ".join(opened._tokenizer.decode(ids) for ids in opened._held_out())


def test_texts_of_a_run_from_elsewhere_are_told_and_not_read(foreign: Path) -> None:
    private = foreign.parents[1] / "private"
    for at in (private, private / "0.txt"):
        (foreign / "run.json").write_text(json.dumps({"model": "m", "site": SITE, "texts": [str(at)]}))
        with pytest.raises(ConfigError) as refused:
            OpenedSae(foreign, pieces=4, shown=False).dashboard(count=2, ablate=0, steer=0)
        assert TOLD.format(at) in str(refused.value) and "add --trust" in str(refused.value)
    config = interp_dashboard.Config(foreign, features=2, pieces=4, ablate=0, steer=0)
    with pytest.raises(ConfigError, match="was made elsewhere"):
        interp_dashboard.run(replace(config, json=True))
    assert sorted(each.name for each in foreign.iterdir()) == ["cfg.json", "run.json", "sae_weights.safetensors"]


def test_texts_that_are_given_or_trusted_are_shown(foreign: Path) -> None:
    public = str(foreign.parents[1] / "public")
    given = shown(OpenedSae(foreign, pieces=4, texts=(public,), shown=False))
    assert "What" in given and "SECRET" not in given
    assert "SECRET" in shown(OpenedSae(foreign, pieces=4, trust=True, shown=False))
    own = OpenedSae(foreign, shown=False).read_text("What is 12?")
    assert "".join(own.words).endswith("What is 12?"), "a text of one's own needs neither"


def test_the_studio_reads_no_texts_of_a_run_from_elsewhere_but_what_its_option_says(foreign: Path) -> None:
    private, public = (str(foreign.parents[1] / name) for name in ("private", "public"))
    for spec in (str(foreign), str(foreign.parent), f"{foreign.parent}:trust=false"):
        shelf = SaeShelf([spec])
        with pytest.raises(ConfigError, match="was made elsewhere"):
            shelf.report("theirs", 0)
        shelf._gather("theirs")
        assert TOLD.format(private) in shelf.problems["theirs"] and shelf.dashboard("theirs") is None
    for spec, word in ((f"{foreign}:texts={public}", "What"), (f"{foreign.parent}:texts={public}", "What"),
                       (f"{foreign}:trust=true", "SECRET"), (f"{foreign.parent}:trust=true", "SECRET")):  # fmt: skip
        assert word in shown(SaeShelf([spec])._open("theirs"))
    with pytest.raises(ConfigError, match="has the trust 'yes': write true or false"):
        SaeShelf([f"{foreign}:trust=yes"])


def test_a_run_of_this_home_shows_its_own_texts_until_a_word_of_it_is_changed(foreign: Path) -> None:
    private = str(foreign.parents[1] / "private")
    run = SaeRun("m", SITE, texts=(private,), context=16, lr=3e-4, settings={"widths": [2, 8]})
    write_run(run, foreign)
    assert run_to_show(foreign) == stored_run(foreign) == run
    assert "SECRET" in shown(OpenedSae(foreign, pieces=4, shown=False))
    shutil.copytree(foreign, copy := foreign.parent / "copy")
    assert run_to_show(copy) == run
    body = json.loads((foreign / "run.json").read_text())
    for change in (
        {"texts": [private, private]},
        {"suffixes": [".pem"]},
        {"seal": "0" * 64},
        {"seal": None},
        {"seal": [1]},
    ):
        (foreign / "run.json").write_text(json.dumps({**body, **change}))
        with pytest.raises(ConfigError, match="was made elsewhere"):
            run_to_show(foreign)


def test_a_run_from_elsewhere_on_the_standard_library_needs_no_trust(foreign: Path) -> None:
    run = SaeRun("m", SITE)
    (foreign / "run.json").write_text(json.dumps(asdict(run)))
    assert run_to_show(foreign) == run


def test_texts_that_are_no_names_are_no_run(foreign: Path) -> None:
    for strange in ({"texts": [5]}, {"suffixes": [None]}):
        (foreign / "run.json").write_text(json.dumps({"model": "m", "site": SITE, **strange}))
        with pytest.raises(ConfigError, match="holds no run of `firsthand interp sae`"):
            stored_run(foreign)
