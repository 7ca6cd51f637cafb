"""The commands of `firsthand`, one file each, with a Config, EXAMPLES and main."""
