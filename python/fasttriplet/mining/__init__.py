"""Triplets from embeddings, and why there are none."""
