"""Python as a person writes it: `entity.run`, `entity.sweep`, `entity.results`, and their results.

Everything here stands on the modules below it and shows what they do: progress in a terminal or a
notebook, results as tables of pandas and axes of matplotlib, which are imported once they are
asked for.
"""
