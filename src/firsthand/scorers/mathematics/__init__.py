"""Parser of mathematical answers and the comparison of what they say."""
