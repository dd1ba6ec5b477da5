"""The machine and its files: cores, memory, arithmetic, child processes, locks, JSON."""
