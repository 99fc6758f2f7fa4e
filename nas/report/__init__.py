"""A run as one page that people show to their team, and the same figures for terminals and spreadsheets.

Each module here makes one section from what the run holds (`nas.report.holdings`), as plain values
(`nas.report.parts`); `nas.report.page` makes the page of them.
"""
