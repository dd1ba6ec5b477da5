"""Training: what collects, what learns, and the loop that binds them."""
