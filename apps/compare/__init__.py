"""Models side by side in a browser, and an arena in which people vote between two of them blind."""
