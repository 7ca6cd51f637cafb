"""Sparse autoencoders, a file each, with their training, files and measures."""
