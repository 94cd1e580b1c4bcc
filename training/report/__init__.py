"""The report of a run: one HTML file that needs nothing else, for people who were not there."""

from training.report.page import REPORT_NAME, render, write_report

__all__ = ["REPORT_NAME", "render", "write_report"]
