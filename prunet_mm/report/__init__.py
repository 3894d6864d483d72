"""The report of a search: one HTML file that needs nothing else, made from its work dir."""

from prunet_mm.report.page import PAGE, write_page

__all__ = ['PAGE', 'write_page']
