import platform
import subprocess
import sys

import pytest

from entity.engine.allocator import keep_pages

_CHURN = """
import resource
from entity.engine.allocator import keep_pages
import torch
if {keep}:
    assert keep_pages()
def churn():
    torch.ones(2**24)  # 64 MB: more than glibc ever keeps of its own accord
for _ in range(5):
    churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(keep: bool) -> int:
    code = _CHURN.format(keep=keep)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc hands pages back")
def test_freed_pages_are_not_handed_back():
    assert _faults(keep=True) < 0.5 * _faults(keep=False)


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_pages() is False
