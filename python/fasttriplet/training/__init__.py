"""Training a network with the triplet loss, in a way that can be stopped and resumed."""

from fasttriplet.training._loop import Trained
from fasttriplet.training._settings import TrainSettings
from fasttriplet.training._train_rec import options_at, train_rec

__all__ = ["TrainSettings", "Trained", "options_at", "train_rec"]
