"""The command line. Everything goes through `Lab`; heavy imports wait until a command needs them."""

from chimeralab.cli.app import main

__all__ = ["main"]
