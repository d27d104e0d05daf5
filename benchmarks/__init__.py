"""Measurements: `make bench` and `make bench-large` write the book's page on performance."""
