"""Compiled kernels where torch has none, each with a plain torch version as its reference."""

from firsthand.kernels.numba_settings import ignore_settings_file

ignore_settings_file()
