"""Training recipes: one file each, with a `Config` and a function of the file's name. They import without torch."""
