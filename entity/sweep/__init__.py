"""Sweeps: many experiments from one grid, each in a process of its own.

Called, it is `entity.api.sweep.sweep`: every experiment of some values of some fields.

    import entity
    entity.sweep("mnist5k/drop", defense=["drop", "flame"], seed=range(3))

`grid` reads a file or takes axes, `cells` makes experiments of it, `plan` chooses among them and
`estimate` says how long they take. `runner` runs each in a `worker`, in a `place`: this machine
(`process`) or a cluster (`on_ray`); `table` sums up. `study` is a grid with expectations, and
`verdicts` judges its results.
"""

from entity.callables import make_callable

make_callable(__name__)
