"""Connects the Trainer of Hugging Face transformers."""
