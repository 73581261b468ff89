"""Reports: run directories in; a self-contained page, a paper's tables and its figures out."""

from entity.report.folder import NotAFolder, write_folder
from entity.report.page import write_page
from entity.report.paper_figures import BadStyle, FigureStyle, missing_extra
from entity.report.paper_layout import BadTable
from entity.report.paper_table import TableRequest
from entity.report.runs import RunRecord, read_run

__all__ = [
    "BadStyle",
    "BadTable",
    "FigureStyle",
    "NotAFolder",
    "RunRecord",
    "TableRequest",
    "missing_extra",
    "read_run",
    "write_folder",
    "write_page",
]
