"""The views of the page Rewriting."""
