"""`python -m bridge` and the command `factom-bridge`."""

from bridge.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
