"""The report of a sweep: all its numbers, and one page that shows them."""
