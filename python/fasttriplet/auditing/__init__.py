"""Finds what is wrong with the labels and pictures of a dataset, and acts on it."""
