"""Films that show real episodes beside dreams of them."""
