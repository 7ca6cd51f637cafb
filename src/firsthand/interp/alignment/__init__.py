"""Alignment that is trained and measured: Constitutional AI, deliberative alignment, sycophancy, on small languages."""
