"""Claims of one section of the reading list, a file each."""
