"""The command line: `vaezoo`, or `python -m vaezoo`."""
