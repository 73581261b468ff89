"""Sweeps: many experiments from one grid file, each in a process of its own.

`grid` reads the file, `cells` makes experiments of it, `estimate` says how long they take, `runner`
runs them through `worker`, in a `place`: this machine (`process`) or a cluster (`on_ray`), and
`display` shows how far they are.
"""
