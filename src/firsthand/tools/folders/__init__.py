"""What file tools share: a folder that no path leads out of."""
