"""Comparing models side by side in a browser, and an arena for blind votes between two models."""
