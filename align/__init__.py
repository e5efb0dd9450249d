"""align: from a pretrained GPT to an aligned one, as InstructGPT did it. One command a stage; see README.md."""

import os

__version__ = "0.1.0"

# Threads that wait for each other sleep after some microseconds. By default they spin for milliseconds, at every small
# operation: beside other programs on the same cores, training on a CPU is then several times slower. PyTorch reads this
# when it is imported; 1000 is what libgomp takes where it has more threads than cores.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
