"""World models: their parts, and what is made of them."""
