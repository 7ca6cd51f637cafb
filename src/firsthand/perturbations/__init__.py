"""Perturbations of a benchmark's prompts, and the metrics that compare a model's answers to them (HELM)."""
