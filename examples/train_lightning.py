"""Train an embedding on triplets of a `.rec` dataset with Lightning, on all devices that it finds.

python examples/train_lightning.py train.rec
"""

import argparse

import lightning

import fasttriplet as ft
import torch
from fasttriplet.torch import TripletFeed, TripletTensors, triplet_losses
from train import network


class Embedding(lightning.LightningModule):
    """The network, its loss, and its triplets."""

    def __init__(self, rec: str) -> None:
        super().__init__()
        self.rec, self.network = rec, network()

    def train_dataloader(self) -> TripletFeed:
        """Make the feed here, where the module is on its device and Lightning's processes know each other."""
        self.feed = TripletFeed(self.rec, self.network, batch_size=60, augment=ft.Augment(mirror=True))
        return self.feed

    def training_step(self, batch: TripletTensors, _: int) -> torch.Tensor:
        """Compute the loss of a batch."""
        losses = triplet_losses(self.network(batch.images), margin=0.3)
        active = (losses > 0).float().mean()
        logged = {"loss": losses.mean(), "active": active}
        self.log_dict(logged, on_epoch=True, batch_size=len(losses), sync_dist=True)
        return losses.mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Choose the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)

    def teardown(self, stage: str) -> None:  # noqa: ARG002  the name is Lightning's
        """End the threads of the feed."""
        self.feed.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("rec")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    lightning.seed_everything(0)
    trainer = lightning.Trainer(max_epochs=options.epochs, log_every_n_steps=1)
    trainer.fit(Embedding(options.rec))
    print({name: round(value.item(), 4) for name, value in trainer.callback_metrics.items()})
