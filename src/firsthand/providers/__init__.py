"""Models by name. Each file with an `open_model` function makes the Models of one prefix."""
