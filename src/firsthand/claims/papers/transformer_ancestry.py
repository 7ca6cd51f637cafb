"""Model families without attention."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Every LLM in existence today descends from this architecture.",
    source="Vaswani et al. 2017, arXiv:1706.03762",
    kind="arithmetic",
    cost_s=1,
)


def measure(lab: Lab) -> Measurement:
    """Families that load here, and whether each configures attention heads."""
    from pathlib import Path

    from firsthand.nn import families

    names = sorted(path.stem for path in Path(families.__file__).parent.glob("[a-z]*.py"))
    parts = ("rope_config", "shared_fields", "deepseek_gguf", "spellings", "gguf_keys")
    models = [name for name in names if name not in parts]
    attending = [name for name in models if "num_heads" in Path(families.__file__).with_name(f"{name}.py").read_text()]
    rows = tuple((name, "attention" if name in attending else "built on another family") for name in models)
    return Measurement(
        len(models), "families that our decoder loads, all of them Transformers", columns=("family", "heads"), rows=rows
    )


def judge(m: Measurement) -> Verdict:
    """A sample of families cannot show `every`; ten or more show `most`."""
    if m.value >= 10:
        why = (
            f"the {m.value:.0f} families that load here are Transformers; Mamba and RWKV are language models that are "
            "none"
        )
        return ruling("holds in part", why)
    return ruling("does not hold here", f"only {m.value:.0f} families that load here are Transformers")
