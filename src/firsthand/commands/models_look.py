"""Writes attention heads, entropies and the logit lens of a model on one text for `firsthand models look`."""

from __future__ import annotations

from pathlib import Path

from firsthand.errors import ConfigError
from firsthand.system.new_file import write_new
from firsthand.system.terminal import console, print_as_json


def write_look(model: str, text: str, out: str, *, as_json: bool) -> Path:
    """Run the text, write the page and print its path."""
    from firsthand.interp.model_look import look_at
    from firsthand.interp.opened_model import open_for_interp
    from firsthand.show.look_page import look_page

    target = Path(out or "look.html")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {str(target)!r} does not exist: make it, or name another file")
    opened = open_for_interp(model, shown=not as_json)
    ids = opened.tokenizer.encode_prompt(text)
    look = look_at(opened.model, opened.tokenizer, ids)
    write_new(target, look_page(f"{Path(model).stem}: {text[:80]}", look))
    sharpest = min(look.heads, key=lambda each: each.entropy)
    if as_json:
        print_as_json({
            "path": str(target), "tokens": look.tokens, "layers": look.model_layers, "heads": len(look.heads),
            "next": [{"token": token, "probability": p} for token, p in look.lens[-1][-1].top],
        })  # fmt: skip
        return target
    place = f"{sharpest.layer}.{sharpest.head}"
    said = ", ".join(f"{token!r} {p:.1%}" for token, p in look.lens[-1][-1].top[:3])
    console().print(
        f"{len(look.heads)} heads on {len(ids)} tokens in {target}. Next: {said}. The sharpest head is {place} "
        f"(entropy {sharpest.entropy:.2f} nats).",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return target
