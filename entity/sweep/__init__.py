"""Sweeps: many experiments from one grid file, each in a process of its own.

`grid` reads the file, `cells` makes experiments of it, `plan` chooses among them and `estimate`
says how long they take. `runner` runs each in a `worker`, in a `place`: this machine (`process`) or
a cluster (`on_ray`). `study` is a grid with expectations, and `verdicts` judges
its results.
"""
