"""The entries of the navigation, and pages that other rooms add to the Studio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.routing import Route


@dataclass(frozen=True)
class StudioPage:
    """An entry of the navigation.

    A page of another room comes with its routes: `create_app(..., pages=[StudioPage("Models", "/models", routes)])`. They
    go through the same access checks, need the role that `accounts.needed_role` gives their paths, and render templates
    of `studio/templates` with `rendering.page`.
    """

    title: str
    path: str
    routes: Sequence[Route] = ()

    def is_open(self, path: str) -> bool:
        """True if the page with this path, or one below it, is shown."""
        return path == self.path or (self.path != "/" and path.startswith(f"{self.path}/"))


OWN_PAGES = tuple(
    StudioPage(title, path)
    for title, path in (
        ("Runs", "/"),
        ("Compare", "/compare"),
        ("Curves", "/curves"),
        ("Traces", "/traces"),
        ("Arena", "/arena"),
        ("Playground", "/playground"),
        ("Queues", "/queues"),
        ("Data sets", "/data-sets"),
        ("Prompts", "/prompts"),
    )
)
