"""The command line `drop`: one file a command."""

from entity.cli.app import main

__all__ = ["main"]
