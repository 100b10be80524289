"""`python -m vaezoo`."""

from .cli import main

if __name__ == "__main__":
    main()
