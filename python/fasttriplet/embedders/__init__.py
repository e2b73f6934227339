"""Embedders turn images into vectors: one protocol, one file for each backend."""

from fasttriplet.embedders.base import Embedder, load_embedder

__all__ = ["Embedder", "load_embedder"]
