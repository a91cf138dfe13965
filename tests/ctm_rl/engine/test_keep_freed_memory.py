"""Memory that is kept for the next request."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from ctm_rl.engine.keep_freed_memory import keep_freed_memory

def faults():
    torch.ones(20_000_000).sum()  # 80 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

print(keep_freed_memory())
for _ in range(20):  # until the buffers reuse their memory
    before = faults()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_large_buffer_is_made_of_the_same_pages_again() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    is_supported, num_faults = done.stdout.split()
    assert is_supported == "True"
    assert int(num_faults) < 2_000  # new pages would be 20,000
