"""Training an MXNet network with the triplet loss, in a way that can be stopped and gone on with."""

from fasttriplet.training._loop import Trained, options_at, train_rec
from fasttriplet.training._settings import TrainSettings

__all__ = ["TrainSettings", "Trained", "options_at", "train_rec"]
