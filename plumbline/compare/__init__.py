"""The comparison: aligned against baseline on prompts that no stage saw, with intervals and a report."""

from plumbline.compare.run import compare
from plumbline.compare.table import format_table

__all__ = ["compare", "format_table"]
