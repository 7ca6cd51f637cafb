"""Kernels of search: scans of vectors in 8 bits, BM25 over postings, and the best rows with bounds on their scores."""
