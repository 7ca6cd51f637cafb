"""Adapters: LoRA and its kin, over float or 4-bit weights, trained, merged and saved."""
