"""What makes the book: notebooks that are run and compared, and what Sphinx needs to know of the chapters."""
