"""Sparse autoencoders: their features as a dashboard shows them, and the features that fire on a text that is typed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from firsthand.errors import ConfigError, UnknownName
from firsthand.show.feature_page import measure_rows, token_text
from firsthand.studio.rendering import is_part, page, part
from firsthand.studio.studio_pages import StudioPage
from firsthand.studio.views.query_values import number_of, text_of

SORTS = ("density", "ablation", "rule")
MAX_INDEX = 1 << 24


class FeatureShelf(Protocol):
    """Autoencoders by name; `interp/sae_shelf.py` has those of folders."""

    @property
    def problems(self) -> Mapping[str, str]: ...
    def all(self) -> Sequence[Any]: ...
    def get(self, name: str) -> Any: ...
    def dashboard(self, name: str) -> Any: ...
    def is_gathering(self, name: str) -> bool: ...
    def gather(self, name: str) -> None: ...
    def report(self, name: str, index: int) -> Any: ...
    def read_text(self, name: str, text: str, at: int | None = None) -> Any: ...


def features_page(shelf: FeatureShelf) -> StudioPage:
    """The Studio's page of features."""

    def show(request: Request) -> Response:
        return page(request, "saes", title="Features", found=shelf.all())

    def one(request: Request) -> Response:
        sae = shelf.get(request.path_params["name"])
        problem = sae.problem or shelf.problems.get(sae.name, "")
        dashboard = None
        if not problem:
            dashboard = shelf.dashboard(sae.name)
        sort, wanted = text_of(request, "sort") or "density", text_of(request, "filter")
        if sort not in SORTS:
            raise ConfigError(f"sort is {sort!r}: one of {', '.join(SORTS)} was expected")
        return page(
            request,
            "parts/feature_rows" if is_part(request) else "sae",
            title=sae.name,
            sae=sae,
            problem=problem,
            dashboard=dashboard,
            rows=_sorted(_matching(dashboard.reports if dashboard else (), wanted), sort),
            sort=sort,
            sorts=SORTS,
            filter=wanted,
            measures=measure_rows(sae.facts),
            is_gathering=shelf.is_gathering(sae.name),
            printable=token_text,
        )

    def gathering(request: Request) -> Response:
        sae = shelf.get(request.path_params["name"])
        if not shelf.is_gathering(sae.name):
            return Response(status_code=200, headers={"hx-refresh": "true"})
        return page(request, "parts/gathering", sae=sae)

    def gather(request: Request) -> Response:
        name = request.path_params["name"]
        shelf.gather(name)
        return RedirectResponse(f"/features/{part(name)}", 303)

    def feature(request: Request) -> Response:
        name, index = request.path_params["name"], _index(request)
        dashboard = shelf.dashboard(name)
        if not any(each.index == index for each in (dashboard.reports if dashboard else ())):
            return RedirectResponse(f"/features/{part(name)}/live/{index}", 303)
        return _feature(request, name, index)

    def live_feature(request: Request) -> Response:
        return _feature(request, request.path_params["name"], _index(request))

    def _feature(request: Request, name: str, index: int) -> Response:
        if index >= MAX_INDEX:
            raise ConfigError("there is no feature of so high a number")
        dashboard = shelf.dashboard(name)
        return page(
            request,
            "parts/feature" if is_part(request) else "feature",
            title=f"{name}, feature {index}",
            sae=shelf.get(name),
            each=shelf.report(name, index),
            in_pane=is_part(request),
            steered=dashboard.steered if dashboard else {},
            prompt=dashboard.prompt if dashboard else "",
            printable=token_text,
            log1p=math.log1p,
        )

    def read(request: Request) -> Response:
        sae = shelf.get(request.path_params["name"])
        text = text_of(request, "text").replace("\r\n", "\n")
        at = number_of(request, "at", 0, most=MAX_INDEX) if request.query_params.get("at") else None
        reading = shelf.read_text(sae.name, text, at) if text else None
        return page(
            request, "feature_text", title=f"{sae.name} on a text", sae=sae, text=text, at=at, reading=reading,
            printable=token_text,
        )  # fmt: skip

    return StudioPage(
        "Features",
        "/features",
        [
            Route("/features", show),
            Route("/features/{name}", one),
            Route("/features/{name}", gather, methods=["POST"]),
            Route("/features/{name}/gathering", gathering),
            Route("/features/{name}/live", read),
            Route("/features/{name}/live/{index}", live_feature),
            Route("/features/{name}/{index}", feature),
        ],
    )


def _index(request: Request) -> int:
    """The number of a feature in an address; UnknownName for what is none."""
    text = str(request.path_params["index"])
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise UnknownName(f"no feature {text[:40]!r}: features have numbers")
    return int(text)


def _matching(reports: Sequence[Any], wanted: str) -> list[Any]:
    """The features with a word in their number, rule or top contexts' tokens."""
    word = wanted.strip().casefold()
    return [each for each in reports if not word or word in _words_of(each)]


def _words_of(each: Any) -> str:
    texts = ["".join(token.text for token in context) for context in each.bands["top"]]
    said = [str(each.index), each.rule.rule if each.rule else "", *each.promoted, *each.suppressed, *texts]
    return "\n".join(said).casefold()


def _sorted(reports: list[Any], sort: str) -> list[Any]:
    keys = {
        "density": lambda each: each.density,
        "ablation": lambda each: each.ablation.value if each.ablation and each.ablation.n else -math.inf,
        "rule": lambda each: each.rule.balanced_accuracy if each.rule else -math.inf,
    }
    return sorted(reports, key=keys[sort], reverse=True)
