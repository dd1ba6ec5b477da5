"""Freed memory stays in the process."""

import platform
import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from worldvae.allocator import keep_freed_memory
assert keep_freed_memory()
def update():
    a = torch.ones(4_000_000)
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
def test_an_update_faults_no_pages_in_again() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    pages = 20 * 3 * 4_000_000 * 4 // resource.getpagesize()
    assert int(done.stdout) < pages / 4
