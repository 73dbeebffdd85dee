import subprocess
import sys

from tests.style import ROOT

SCRIPT = """
import resource
import tutelage
from tutelage.model.memory import keep_freed_memory
import torch
print(keep_freed_memory())
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2_000_000).sum()
before = faults()
for _ in range(20):
    torch.ones(2_000_000).sum()
print(faults() - before)
"""


def test_keep_freed_memory__blocks_are_not_fetched_from_the_kernel_again() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    # Twenty blocks of 8 MB are 40,000 pages: without it each is fetched, and cleared, anew.
    assert kept == "False" or int(faults) < 20_000


def test_import__threads_that_wait_sleep() -> None:
    script = "import os; os.environ.pop('OMP_WAIT_POLICY', None); import tutelage; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "PASSIVE"
