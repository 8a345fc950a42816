"""The page about models: one HTML file that opens offline."""

from energydiff.report.page.landscape import page_landscape
from energydiff.report.page.model import PageModel, page_model
from energydiff.report.page.write import write_page

__all__ = ["PageModel", "page_landscape", "page_model", "write_page"]
