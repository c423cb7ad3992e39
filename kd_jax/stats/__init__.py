"""Statistics over runs, on the host: intervals, summaries, curves."""
