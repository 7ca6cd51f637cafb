"""What can be typed after `firsthand`: a file a command, each with its Config, EXAMPLES and main."""
