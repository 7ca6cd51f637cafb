"""Matrix products: blockwise, float16 and int16 weights."""
