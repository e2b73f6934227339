"""The demo: a dataset that draws itself, and a first run over it."""
