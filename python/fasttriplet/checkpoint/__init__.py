"""MXNet's checkpoints, read and written without MXNet."""
