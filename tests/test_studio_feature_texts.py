"""Pages of sparse autoencoders over a shelf whose every number is known: what they show, and what they ask of the shelf."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand.errors import ConfigError, UnknownName
from firsthand.interp.feature_files import FeatureDashboard, FeatureReport, ShadedToken, SteeredText
from firsthand.interp.rule_explanations import RuleExplanation
from firsthand.interp.sae_shelf import ShelvedSae
from firsthand.stats.intervals import Interval
from firsthand.studio.access import Access
from firsthand.studio.studio_app import create_app
from firsthand.studio.views.feature_views import features_page
from studio_page_outline import asked
from studio_small_home import PORT, post


def feature(
    index: int, density: float, rule: tuple[str, float] | None, ablation: float | None, word: str
) -> FeatureReport:
    """A feature that fires on a word, and is next to the one before it."""
    return FeatureReport(
        index, density, 2.0 + index, (3, 1),
        {"top": [[ShadedToken("a\n", 0, False), ShadedToken(word, 9, True)]], "random tokens": []},
        [f"up{index}"], [f"down{index}"], [(index - 1, 0.25)],
        None if rule is None else RuleExplanation(*rule, 0.5),
        None if ablation is None else Interval(ablation, -1, 1, 4), None if ablation is None else Interval(0.125, -1, 1, 4),
    )  # fmt: skip


REPORTS = [feature(3, 0.25, ("is a digit", 0.75), None, "seven"), feature(8, 0.5, None, 0.5, "Moon"),
           feature(5, 0.125, ("is upper", 0.875), -0.25, "sun")]  # fmt: skip


@dataclass
class Shelf:
    """A shelf that remembers what it was asked."""

    saes: dict[str, ShelvedSae]
    boards: dict[str, FeatureDashboard]
    problems: dict[str, str] = field(default_factory=dict)
    gathering: set[str] = field(default_factory=set)
    told: list[Any] = field(default_factory=list)

    def all(self) -> list[ShelvedSae]:
        return list(self.saes.values())

    def get(self, name: str) -> ShelvedSae:
        if name not in self.saes:
            raise UnknownName(f"no autoencoder {name!r}")
        return self.saes[name]

    def dashboard(self, name: str) -> FeatureDashboard | None:
        return self.boards.get(name)

    def is_gathering(self, name: str) -> bool:
        return name in self.gathering

    def gather(self, name: str) -> None:
        self.told.append(("gather", name))

    def report(self, name: str, index: int) -> FeatureReport:
        return next((each for each in REPORTS if each.index == index), feature(index, 0.5, None, None, f"live{index}"))

    def read_text(self, name: str, text: str, at: int | None = None) -> Any:
        self.told.append(("read", name, text, at))
        words = text.split()
        if at is not None and at >= len(words):
            raise ConfigError(f"the text has no token {at}")
        tokens = [ShadedToken(word, number, number == 1) for number, word in enumerate(words)]
        firing = [SimpleNamespace(index=8, maximum=1.5, firing=2, tokens=tokens)]
        return SimpleNamespace(words=words, counts=list(range(10, 10 + len(words))), active=3 if at is None else 1,
                               features=firing, explained=0.875)  # fmt: skip


@pytest.fixture
def shelf() -> Shelf:
    facts = {"measures": {"loss_recovered": 0.5, "l0": 4.0, "dead": 0.125}, "training_tokens": 12_345}
    whole = ShelvedSae(
        "one", Path("one"), "m-small", "blocks.0", "topk", 4800, 8, facts, is_gathered=True, is_outdated=True
    )
    bare = ShelvedSae("a b", Path("b"), problem="its weights are gone", facts={"measures": 3})
    board = FeatureDashboard(
        4800, 98_765, REPORTS, "Once", {8: [SteeredText(-1.0, " less"), SteeredText(2.0, " more")]}
    )
    return Shelf({"one": whole, "a b": bare, "raw": replace(whole, name="raw", is_outdated=False)}, {"one": board})


@pytest.fixture
def client(shelf: Shelf, tmp_path: Path) -> Iterator[TestClient]:
    access = Access()
    access.port = PORT
    page = features_page(shelf)
    assert (page.title, page.path) == ("Features", "/features")
    with TestClient(create_app(tmp_path, access, pages=[page]), base_url=f"http://127.0.0.1:{PORT}") as made:
        made.get("/enter", params={"code": access.new_code()})
        yield made


PAGES = {
    "/features": (
        "Features Sparse autoencoders autoencoder model site kind latents tokens trained on loss recovered L0 dead "
        "features one(/features/one) m-small blocks.0 topk 4,800 12,345 0.500 4.0 0.125 gathered a "
        "b(/features/a%20b) its weights are gone 0 - - - - not yet raw(/features/raw) m-small blocks.0 topk 4,800 "
        "12,345 0.500 4.0 0.125 gathered"
    ),
    "/features/one": (
        "Features(/features) / one topk of 4,800 latents, trained on blocks.0 of m-small. Measured on held-out "
        "text loss recovered 0.500 l0 4.000 dead 0.125 [get /features/one/live Features that fire on a text "
        "{text=} Read The first text loads the model, which takes some seconds.] Features The weights are newer "
        "than these features: gather them again. 3 of 4,800 features, evenly spaced by density, on 98,765 held-out "
        "tokens. Any other opens from a text, or by number in the address. [get /features/one Search {filter=} "
        "order sort: *density ablation effect rule accuracy Show ] 3 features feature density strongest context "
        "rule accuracy (null) ablation, nats 8(/features/one/8) 50.000% a↵Moon fires too seldom - +0.500 "
        "3(/features/one/3) 25.000% a↵seven is a digit 0.75 (0.50) - 5(/features/one/5) 12.500% a↵sun is upper "
        "0.88 (0.50) -0.250 [post /features/one Gather features again Runs the model on held-out text, some "
        "minutes on two cores, and keeps features.json in the folder, as firsthand interp dashboard does. ]"
    ),
    "/features/one?sort=rule&filter=%20DIGIT": (
        "Features(/features) / one topk of 4,800 latents, trained on blocks.0 of m-small. Measured on held-out "
        "text loss recovered 0.500 l0 4.000 dead 0.125 [get /features/one/live Features that fire on a text "
        "{text=} Read The first text loads the model, which takes some seconds.] Features The weights are newer "
        "than these features: gather them again. 3 of 4,800 features, evenly spaced by density, on 98,765 held-out "
        "tokens. Any other opens from a text, or by number in the address. [get /features/one Search {filter= "
        "DIGIT} order sort: density ablation effect *rule accuracy Show ] 1 feature found feature density "
        "strongest context rule accuracy (null) ablation, nats 3(/features/one/3) 25.000% a↵seven is a digit 0.75 "
        "(0.50) - [post /features/one Gather features again Runs the model on held-out text, some minutes on two "
        "cores, and keeps features.json in the folder, as firsthand interp dashboard does. ]"
    ),
    "+/features/one?sort=ablation": (
        "3 features feature density strongest context rule accuracy (null) ablation, nats 8(/features/one/8) "
        "50.000% a↵Moon fires too seldom - +0.500 5(/features/one/5) 12.500% a↵sun is upper 0.88 (0.50) -0.250 "
        "3(/features/one/3) 25.000% a↵seven is a digit 0.75 (0.50) -"
    ),
    "/features/a%20b": (
        "Features(/features) / a b of 0 latents, trained on a site that its file does not name of a model that its "
        "file does not name. its weights are gone Features"
    ),
    "/features/raw": (
        "Features(/features) / raw topk of 4,800 latents, trained on blocks.0 of m-small. Measured on held-out "
        "text loss recovered 0.500 l0 4.000 dead 0.125 [get /features/raw/live Features that fire on a text "
        "{text=} Read The first text loads the model, which takes some seconds.] Features [post /features/raw No "
        "features are gathered yet. Gather features Runs the model on held-out text, some minutes on two cores, "
        "and keeps features.json in the folder, as firsthand interp dashboard does. ]"
    ),
    "/features/one/8": (
        "Features(/features) / one(/features/one) / Feature 8 On held-out text Fires too seldom for a rule. "
        "Ablated, the next tokens' loss changes by +0.500 nats (a random direction: +0.125), mean of 4 contexts. "
        "Maximum 10.00. (picture) Raises up8 Lowers down8 Nearest features: 7(/features/one/7) (0.25) steered, in "
        "multiples of the maximum -1 Once less +2 Once more top a↵Moon random tokens Bands show weak activations "
        "too: a feature that is clear at the top alone is not that clear. A rule is no more than its held-out "
        "accuracy above its null."
    ),
    "+/features/one/5": (
        "Feature 5(/features/one/5) Rule on held-out text: balanced accuracy 0.88, null 0.50. Ablated, the next "
        "tokens' loss changes by -0.250 nats (a random direction: +0.125), mean of 4 contexts. Maximum 7.00. "
        "(picture) Raises up5 Lowers down5 Nearest features: 4(/features/one/4) (0.25) top a↵sun random tokens "
        "Bands show weak activations too: a feature that is clear at the top alone is not that clear. A rule is no "
        "more than its held-out accuracy above its null."
    ),
    "/features/one/live/77": (
        "Features(/features) / one(/features/one) / Feature 77 On held-out text Fires too seldom for a rule. "
        "Maximum 79.00. (picture) Raises up77 Lowers down77 Nearest features: 76(/features/one/76) (0.25) top "
        "a↵live77 random tokens Bands show weak activations too: a feature that is clear at the top alone is not "
        "that clear. A rule is no more than its held-out accuracy above its null."
    ),
    "/features/one/live?text=Hi+you+all&at=2": (
        "Features(/features) / one(/features/one) / Features on a text [get /features/one/live Text {text=Hi you "
        "all} Read ] The number below a token says how many features fire on it: choose a token to see those "
        "alone. The reconstruction explains 88% of the activations' variance. Hi- "
        "you11(/features/one/live?text=Hi+you+all&at=1) *all12(/features/one/live?text=Hi+you+all&at=2) 1 feature "
        "fires on all all tokens(/features/one/live?text=Hi+you+all) Shades are relative to each feature's "
        "strongest token here. feature strength tokens text 8(/features/one/8) 1.50 2 Hiyouall Choose a feature to "
        "see its contexts here. The first reads the held-out text, which takes half a minute."
    ),
    "/features/raw/live?text=Hi+you": (
        "Features(/features) / raw(/features/raw) / Features on a text [get /features/raw/live Text {text=Hi you} "
        "Read ] The number below a token says how many features fire on it: choose a token to see those alone. The "
        "reconstruction explains 88% of the activations' variance. Hi- you11(/features/raw/live?text=Hi+you&at=1) "
        "3 features fire The strongest 1. Shades are relative to each feature's strongest token here. feature "
        "strength tokens text 8(/features/raw/8) 1.50 2 Hiyou Choose a feature to see its contexts here. The first "
        "reads the held-out text, which takes half a minute."
    ),
    "/features/raw/live": (
        "Features(/features) / raw(/features/raw) / Features on a text [get /features/raw/live Text {text=} Read ]"
    ),
}


def test_autoencoders_and_features_are_shown_with_all_their_numbers(client: TestClient) -> None:
    for key, says in PAGES.items():
        assert asked(client, key, {}) == (says, 200), key


def test_a_text_is_read_as_it_was_typed_with_one_line_end(client: TestClient, shelf: Shelf) -> None:
    for query, status in (
        ({"text": "one\r\ntwo\nthree\r"}, 200), ({"text": "a b", "at": "1"}, 200), ({"text": "a b", "at": "0"}, 200),
        ({"text": ""}, 200), ({"at": "2"}, 200), ({"text": "x", "at": str(1 << 30)}, 400),
    ):  # fmt: skip
        assert client.get("/features/one/live", params=query).status_code == status
    assert shelf.told == [
        ("read", "one", "one\ntwo\nthree\r", None), ("read", "one", "a b", 1), ("read", "one", "a b", 0),
        ("read", "one", "x", 1 << 24),
    ]  # fmt: skip


def test_features_are_gathered_waited_for_and_found_or_read_live(client: TestClient, shelf: Shelf) -> None:
    asked_for = post(client, "/features/a%20b")
    assert (asked_for.status_code, asked_for.headers["location"], shelf.told) == (
        303,
        "/features/a%20b",
        [("gather", "a b")],
    )
    done = client.get("/features/raw/gathering")
    assert (done.status_code, done.headers.get("hx-refresh"), done.text) == (200, "true", "")
    shelf.gathering.add("raw")
    waiting = client.get("/features/raw/gathering")
    assert "hx-refresh" not in waiting.headers and asked(client, "/features/raw/gathering", {}) == (
        "Features are being gathered…",
        200,
    )
    assert 'hx-get="/features/raw/gathering"' in waiting.text
    page, status = asked(client, "/features/raw", {})
    assert status == 200 and page.endswith("Features Features are being gathered…")
    shelf.gathering.clear()
    shelf.problems["raw"] = "the model is gone"
    assert "the model is gone" in asked(client, "/features/raw", {})[0]
    for path, place in (("/features/one/4", "/features/one/live/4"), ("/features/raw/8", "/features/raw/live/8")):
        moved = client.get(path, follow_redirects=False)
        assert (moved.status_code, moved.headers["location"]) == (303, place)
    assert client.get("/features/one/8", follow_redirects=False).status_code == 200
    assert asked(client, f"/features/one/live/{(1 << 24) - 1}", {})[1] == 200
    for key, says, status in (
        (f"/features/one/live/{1 << 24}", "there is no feature of so high a number", 400),
        ("/features/one?sort=size", "sort is 'size': one of density, ablation, rule was expected", 400),
        ("/features/none", "no autoencoder 'none'", 404),
        ("/features/one/live?text=a&at=x", "at is 'x': a whole number was expected", 400),
    ):
        assert asked(client, key, {}) == (f"Problem {says} All runs(/)", status)


def test_an_autoencoder_with_a_problem_shows_that_and_no_features(client: TestClient, shelf: Shelf) -> None:
    shelf.boards["a b"] = shelf.boards["one"]
    shelf.problems |= {"one": "its texts are gone", "a b": "another problem"}
    for key, says in (("/features/one", "its texts are gone"), ("/features/a%20b", "its weights are gone")):
        page, status = asked(client, key, {})
        assert status == 200 and says in page and "another" not in page and "strongest context" not in page, key
    part, _ = asked(client, "+/features/one", {})
    assert "Moon" not in part and "seven" not in part
    moved = client.get("/features/a%20b/4", follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (303, "/features/a%20b/live/4")
    shelf.saes["x#y?"] = replace(shelf.saes["raw"], name="x#y?")
    moved = client.get("/features/x%23y%3F/4", follow_redirects=False)
    assert moved.headers["location"] == "/features/x%23y%3F/live/4"
    assert post(client, "/features/x%23y%3F").headers["location"] == "/features/x%23y%3F"
    shelf.boards["raw"] = replace(shelf.boards["one"], prompt="")
    steered, _ = asked(client, "/features/raw/live/8", {})
    assert "steered, in multiples of the maximum" in steered and "Once" not in steered
    assert "Once" not in asked(client, "/features/raw/live/9", {})[0]
