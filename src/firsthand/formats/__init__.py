"""Readers of untrusted model files (GGUF, safetensors, JSON), validated before use. Imports no torch."""
