"""Programs that people use in a browser, on top of `align`."""
