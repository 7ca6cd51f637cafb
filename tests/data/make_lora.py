"""Makes lora/: an adapter of PEFT for the tests' tiny model, and the logits that PEFT itself gives with it.

    pip install peft && python tests/data/make_lora.py

The base model is `lora_tiny.base()`, saved as a Hugging Face folder and read by transformers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent.parent))
from firsthand.nn import weights
from lora_tiny import base

IDS = [5, 17, 90, 3, 3, 41, 66, 2]
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]


def main(folder: Path) -> None:
    """Write adapter_config.json, adapter_model.safetensors and logits.json."""
    with tempfile.TemporaryDirectory() as saved:
        weights.save(base(), saved)
        model = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32)
    config = LoraConfig(r=4, lora_alpha=10, target_modules=MODULES, rank_pattern={"down_proj": 2},
                        alpha_pattern={"layers.1.self_attn.q_proj": 3}, task_type="CAUSAL_LM")  # fmt: skip
    adapted = get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        logits = adapted(torch.tensor([IDS])).logits[0]
        with adapted.disable_adapter():
            without = adapted(torch.tensor([IDS])).logits[0]
    adapted.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    body = {"ids": IDS, "logits": logits.tolist(), "change": float((logits - without).abs().max())}
    (folder / "logits.json").write_text(json.dumps(body) + "\n")


if __name__ == "__main__":
    main(Path(__file__).with_name("lora"))
