"""Measurements of our own speed against the usual way, to be run by hand; no test depends on their times."""
