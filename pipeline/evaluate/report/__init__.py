"""The report that people read: one HTML file that opens anywhere, and its figures as tables for `dvc plots`.

data modules (headline, curves, funnel, histograms, costs, lineage) -> charts -> page.
"""
