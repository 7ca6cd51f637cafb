"""Quantises a model for `firsthand models quantize`, and prints what was written."""

from __future__ import annotations

from pathlib import Path

from firsthand.errors import reason_of
from firsthand.hub.fetch_model import fetch_model
from firsthand.system.terminal import console, print_as_json, progress

_TWICE = "The source was quantised already, so its weights were rounded twice: a float source loses less."


def quantize(model: str, to: str, out: str, calibration: str, *, as_json: bool) -> None:
    """Write the model in another type, with a progress bar, and print the size and the tensors' types."""
    from rich import filesize

    from firsthand.errors import ConfigError
    from firsthand.hub.quantize_model import is_packed, quantize_file, quantize_folder

    if to.upper() in ("GPTQ", "AWQ"):
        if not calibration:
            raise ConfigError(f"{to} rounds by what the model reads: add --calibration FILE, a text like that")
        text = _calibration(Path(calibration))
        source = Path(fetch_model(model, shown=not as_json))
        with progress(f"{model} to {to}", None, shown=not as_json) as update:
            size = quantize_folder(
                source, Path(out), to.upper(), text, told=lambda done, total: update(done, total=total)
            )
        if as_json:
            print_as_json({"path": out, "size_bytes": size, "type": to.upper()})
        else:
            lines = [f"{out}: {filesize.decimal(size)} of weights.", *([_TWICE] if is_packed(source) else [])]
            console().print("\n".join(lines), markup=False, soft_wrap=True)
        return
    if calibration:
        raise ConfigError(f"{to} takes no calibration text: leave --calibration out, or write --to GPTQ or AWQ")
    source = Path(fetch_model(model, shown=not as_json))
    with progress(f"{model} to {to}", None, unit="bytes", shown=not as_json) as update:
        made = quantize_file(source, Path(out), to, told=lambda done, total: update(done, total=total))
    if as_json:
        print_as_json({"path": str(made.path), "size_bytes": made.size_bytes, "types": dict(made.types), "type": to})
        return
    types = ", ".join(f"{count} {kind}" for kind, count in made.types.items())
    share = made.size_bytes / max(1, made.source_bytes)
    lines = [f"{made.path}: {filesize.decimal(made.size_bytes)}, {share:.0%} of the source; tensors: {types}."]
    if made.twice:
        lines.append(_TWICE)
    console().print("\n".join(lines), markup=False, soft_wrap=True)


def _calibration(path: Path) -> str:
    """The text of a file, at most 4 MB of it."""
    from firsthand.errors import ConfigError

    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(1 << 22)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as UTF-8 text: {reason_of(error)}") from None
    if not text.strip():
        raise ConfigError(f"{path}, the calibration text, is empty: give one of some thousand words")
    return text
