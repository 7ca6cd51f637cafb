"""Documents: files of many formats as text with the places that citations name."""
