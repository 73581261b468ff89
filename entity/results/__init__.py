"""Finished and running experiments as a table: collecting, filtering, exporting, watching."""
