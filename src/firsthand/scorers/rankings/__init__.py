"""Rankings of documents: their metrics, and the documents that an attempt retrieved."""
