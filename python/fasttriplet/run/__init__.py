"""The stages of a run, joined and overlapped: to a file, or as batches of a training."""
