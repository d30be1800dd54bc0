"""The lead's pages: quality, queue, guidelines, exports and decided examples, for the roles lead and admin."""

from annotate_ui.lead.pages import LEAD_PATH, LEADS, add_lead_pages

__all__ = ["LEADS", "LEAD_PATH", "add_lead_pages"]
