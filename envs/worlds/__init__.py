"""Worlds that come with the library."""
