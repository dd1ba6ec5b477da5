"""Benchmarks: how fast this machine is, and which share of its speed the library uses."""
