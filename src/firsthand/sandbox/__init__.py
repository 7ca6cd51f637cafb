"""The sandbox: untrusted code runs here and nowhere else."""
