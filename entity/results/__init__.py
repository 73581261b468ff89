"""Finished and running experiments as a table: collecting, filtering, exporting, watching.

Called, it is `entity.api.runs.results`: all runs in and below some folders.

    import entity
    entity.results("runs").frame()                     # a row a run, as a DataFrame of pandas
    entity.results("runs").where("DPR<0.3").means("defense", "attack")
    entity.results("runs")["mnist5k-drop-badnets-seed3"].plot()
"""

from entity.callables import make_callable

make_callable(__name__)
