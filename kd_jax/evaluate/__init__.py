"""Evaluation of trained networks: predictions, confusions, bias corrections, features."""
