"""What a user sees when something is wrong: words, never a traceback."""

import os
import subprocess
import sys


def test_a_reader_of_the_output_that_leaves_early_is_no_error() -> None:
    """`python -m align.ppo --help | head`: writing to the closed pipe ends the command without a word."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "align.ppo", "--help"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + 13, "")
