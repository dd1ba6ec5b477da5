"""Freed memory stays in the process."""

import platform
import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from worldvae.system.allocator import keep_freed_memory
assert keep_freed_memory()
def update():
    a = torch.ones(int(sys.argv[1]))
    b = a + 1
    return a * b
for _ in range(3):
    update()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    update()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives large blocks back at once")
@pytest.mark.parametrize("floats", [4_000_000, 16_000_000])  # the latter above glibc's largest threshold, 32 MiB
def test_an_update_faults_no_pages_in_again(floats: int) -> None:
    command = [sys.executable, "-c", PROGRAM, str(floats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    pages = 20 * 3 * floats * 4 // resource.getpagesize()
    assert int(done.stdout) < pages / 4
