"""What web tools share: which addresses may be reached, and HTML as text."""
