"""Layout of rows of bytes, for those who fill them and for the kernel that scans them. Imports no numba."""

PIECE = 64
"""Bytes multiplied at once; widths are multiples of it."""
OFFSET = 128
"""Added to a row's whole numbers to make them unsigned."""
