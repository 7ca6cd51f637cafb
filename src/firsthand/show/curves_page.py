"""Makes a page of a tracked run: its curves, the texts and files it kept, and where it came from."""

from __future__ import annotations

from collections.abc import Sequence

from firsthand.runs.track import Track
from firsthand.show.curves import HEIGHT, LEFT, TOP, WIDTH, curve_picture
from firsthand.show.html_page import page_html

MAX_TEXTS = 40
"""The page shows the latest texts, at most this many."""
MAX_TEXT = 4000
"""Characters of a text that the page shows."""


def curves_html(track: Track, names: Sequence[str] = ()) -> str:
    """The page, with the curves of these metrics or of all, in one file that asks the network for nothing."""
    about = track.run.about
    texts = track.texts()
    groups: dict[str, list[object]] = {}
    for curve in track.curves(names):
        groups.setdefault(curve.name.rpartition("/")[0], []).append(curve_picture(curve))
    facts = {
        "state": track.run.status,
        "made": f"{track.run.created_at} by firsthand {about.get('firsthand', '?')}",
        "commit": about.get("commit"),
        "command": " ".join(map(str, about.get("command", ()))),
    }
    return page_html(
        "curves",
        title=track.run.id,
        facts=[(name, str(text)) for name, text in facts.items() if text],
        config=[(str(name), str(value)) for name, value in track.run.config.items()],
        groups=sorted(groups.items()),
        texts=[(each.name, each.step, each.text[:MAX_TEXT], len(each.text) > MAX_TEXT) for each in texts[-MAX_TEXTS:]],
        num_texts=len(texts),
        artifacts=track.artifacts(),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        top=TOP,
    )
