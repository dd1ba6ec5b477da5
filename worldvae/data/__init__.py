"""What was experienced."""
