"""Bench: compares cnai with other launchers in one interleaved run; it reports times and never fails on them."""
