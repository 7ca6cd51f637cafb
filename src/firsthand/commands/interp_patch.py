"""Patch activations of one text into a run of another: which sites, heads or positions carry a choice between two words."""

from __future__ import annotations

from dataclasses import dataclass, field

from firsthand.errors import ConfigError
from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand interp patch smollm2 --clean "The capital of France is" --corrupted "The capital of Italy is" --answer " Paris" --other " Rome"
firsthand interp patch smollm2 --clean "A B A" --corrupted "A C A" --answer " B" --other " C" --sites "blocks.*.attn.mixed" --by-head
"""  # noqa: E501


@dataclass(frozen=True)
class Config:
    """The model, two texts of equal length, and the words that they lead to."""

    model: str = field(metadata={"positional": True})
    """The model: a known name, a .gguf file, or a Hugging Face folder."""
    clean: str
    """The text after which `answer` is right."""
    corrupted: str
    """A text of as many tokens after which `other` is."""
    answer: str
    """The word of the clean text, with its space; its first token counts."""
    other: str
    """The word of the corrupted text."""
    sites: tuple[str, ...] = ("blocks.*.resid.post",)
    """Activations to patch, by name or pattern; TransformerLens's hook names are understood."""
    by_head: bool = False
    """Patch each head alone, at attn.q, attn.k, attn.v or attn.mixed."""
    by_position: bool = False
    """Patch each token's position alone."""
    top: int = 15
    """Rows to show, those that change most in either direction; JSON has all."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ConfigError(f"top is {self.top}: give 1 or more")
        for name in ("clean", "corrupted", "answer", "other"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty: give a text")


def run(config: Config) -> int:
    """Patch one place at a time, and print what each restores."""
    from firsthand.interp.circuits.patching import activation_patches, logit_difference
    from firsthand.interp.opened_model import choice_of, open_for_interp

    model, tokenizer, _ = open_for_interp(config.model, shown=not config.json, sites=config.sites)
    clean, corrupted = tokenizer.encode_prompt(config.clean), tokenizer.encode_prompt(config.corrupted)
    answer, other = choice_of(tokenizer, config.answer, config.other)
    metric = logit_difference(answer, other)
    found = activation_patches(
        model, clean, corrupted, metric, config.sites, by_head=config.by_head, by_position=config.by_position
    )
    if config.json:
        print_as_json([vars(each) for each in found])
        return 0

    def spelled(position: int) -> str:
        return tokenizer.decode([clean[position]], skip_special=False)

    rows = [
        [each.site, "" if each.head is None else str(each.head),
         "" if each.position is None else f"{each.position} {spelled(each.position)!r}",
         f"{each.restored:+.3f}"]
        for each in sorted(found, key=lambda each: -abs(each.restored))[: config.top]
    ]  # fmt: skip
    print_table(
        f"share of logit({config.answer!r}) - logit({config.other!r}) that a clean activation restores",
        ["site", "head", "position", "restored"], rows,
    )  # fmt: skip
    console().print("1 brings the clean behaviour back, 0 changes nothing.", markup=False, soft_wrap=True)
    return 0
