"""Bench: cnai beside other launchers, measured in one interleaved run; it reports and never judges by the clock."""
