"""A step plan as numbers: devices, weights, adapters, runners."""
