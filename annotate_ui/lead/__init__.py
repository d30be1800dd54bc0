"""The lead's pages: quality, queue, guidelines, exports and decided examples, for the roles lead and admin."""

from annotate_ui.lead.pages import lead_page, lead_routes

__all__ = ["lead_page", "lead_routes"]
