"""Reports: run directories in; a self-contained page, a paper's tables and its figures out."""

from entity.report.folder import write_folder
from entity.report.page import write_page
from entity.report.paper_figures import missing_extra
from entity.report.paper_table import Asked
from entity.report.runs import RunRecord, read_run

__all__ = ["Asked", "RunRecord", "missing_extra", "read_run", "write_folder", "write_page"]
