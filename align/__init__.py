"""align: from a pretrained GPT to an aligned one, as InstructGPT did it. One command a stage; see README.md."""

__version__ = "0.1.0"
