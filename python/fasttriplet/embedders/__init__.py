"""Embedders turn images into vectors: one protocol, one file for each backend."""

from fasttriplet.embedders._base import Embedder
from fasttriplet.embedders._load import load_embedder

__all__ = ["Embedder", "load_embedder"]
