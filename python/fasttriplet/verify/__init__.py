"""Verification: how well the distances of a model tell same from different."""
