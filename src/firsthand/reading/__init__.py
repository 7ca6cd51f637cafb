"""The reading list as data, each entry linked to the code that implements it; and the tour."""
