"""The roles of a model and how they are loaded. Importing this registers our own architecture with transformers."""

import align.gpt  # noqa: F401
