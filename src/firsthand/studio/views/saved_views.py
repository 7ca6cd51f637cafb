"""Saved views: addresses of filtered lists, comparisons and plots, by name."""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from firsthand.errors import ConfigError
from firsthand.studio.rendering import page
from firsthand.studio.studio_store import StudioStore
from firsthand.studio.views.form_fields import posted, version_of

VIEW = "view"
MAX_ADDRESS_CHARS = 8000
_ADDRESS = re.compile(r"/(?![/\\])[^\s\\]*")


def routes(store: StudioStore) -> list[Route]:
    """The list, and what saves and removes a view."""

    def show(request: Request) -> Response:
        return page(request, "saved_views", title="Saved views", views=store.items(VIEW), taken=None)

    def save(request: Request, form: dict[str, str]) -> Response:
        place = form.get("address", "")
        if len(place) > MAX_ADDRESS_CHARS or not _ADDRESS.fullmatch(place):
            raise ConfigError(
                f"address is {place[:60]!r}: a page of the Studio was expected, such as /?filter=has:error"
            )
        name, version = form.get("name", "").strip(), version_of(form, "0")
        body = {"address": quote(place, safe="/?&=%:+,;@!$'()*~[]#")}
        try:
            store.put(VIEW, name, body, version=version)
        except ConfigError:
            found = store.get(VIEW, name)
            if found is None:
                raise
            if found.body != body:
                views = store.items(VIEW)
                return page(
                    request, "saved_views", status=409, title="Saved views", views=views, taken=found, place=place
                )
        return RedirectResponse("/views", 303)

    def remove(request: Request, form: dict[str, str]) -> Response:
        store.remove(VIEW, form.get("name", ""))
        return RedirectResponse("/views", 303)

    return [
        Route("/views", show),
        Route("/views", posted(save), methods=["POST"]),
        Route("/views/remove", posted(remove), methods=["POST"]),
    ]
