"""Measurements of the annotation app: rates under load, what faults do to it, and how it is at scale."""
