"""Runs: their settings, their directory and its checkpoints."""
