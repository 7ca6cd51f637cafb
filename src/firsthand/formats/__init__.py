"""Readers of untrusted model files: GGUF, safetensors and JSON, checked before use. Imports no torch."""
