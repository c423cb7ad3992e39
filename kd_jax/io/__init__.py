"""Files: checkpoints, the run folder and its tables."""
