"""A line that describes this machine, for the figures measured on it: no names of hosts."""

import platform
from pathlib import Path

import torch

from worldvae.system.cores import usable_cores

CPUINFO = Path("/proc/cpuinfo")

INSTRUCTIONS = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    "AMX": ("amx_tile",),
}
"""The instructions that decide how fast a processor multiplies matrices, and their names in /proc/cpuinfo."""


def describe_machine() -> str:
    """Return processor, cores this process may use, instructions and GPU, as "AMD EPYC, 2 cores, AVX2"."""
    cores, threads = usable_cores(), torch.get_num_threads()
    words = [processor(), f"{cores} core{'s' * (cores > 1)}"]
    if threads < cores:
        words.append(f"{threads} thread{'s' * (threads > 1)}")
    flags = {flag for name in ("flags", "Features") for flag in _entry(name).split()}
    words += [name for name, meant in INSTRUCTIONS.items() if flags & set(meant)]
    if torch.cuda.is_available():
        words.append(torch.cuda.get_device_name())
    return ", ".join(words)


def processor() -> str:
    """Return the name of the processor."""
    return _entry("model name") or platform.processor() or platform.machine()


def _entry(name: str) -> str:
    """Return the entry `name` of the first processor in /proc/cpuinfo, "" if there is none."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    found = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name]
    return found[0] if found else ""
