"""Reports: what a model does well and where it fails, as one HTML page that needs nothing else.

`Subject` says what is reported on, and `Budget` how thoroughly. Each module measures one thing (`grids`, `trajectory`,
`reliability`, `failures`, `embedding`), `originals` shows examples as people know them, `charts` draws, `page` puts
everything into the template page.html, and `make_report` calls them all.
"""

from innerloop_trainer.report.make import make_report
from innerloop_trainer.report.page import check_report_file, write_report
from innerloop_trainer.report.subject import FULL, QUICK, Budget, Subject, subject_of

__all__ = ["FULL", "QUICK", "Budget", "Subject", "check_report_file", "make_report", "subject_of", "write_report"]
