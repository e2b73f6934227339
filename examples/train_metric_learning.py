"""Train an embedding on triplets of a `.rec` dataset with a loss of pytorch-metric-learning.

python examples/train_metric_learning.py train.rec
"""

import argparse

from pytorch_metric_learning import distances, losses

import fasttriplet as ft
import torch
from fasttriplet.torch import TripletFeed
from train import network


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rec")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = network().to(device)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    # The feed mines on squared L2 by default, so the loss has to measure that.
    loss_func = losses.TripletMarginLoss(margin=0.3, distance=distances.LpDistance(power=2))
    with TripletFeed(options.rec, module, batch_size=60, augment=ft.Augment(mirror=True)) as feed:
        for epoch in range(options.epochs):
            found = []
            for images, labels, _ in feed:
                embeddings = module(images.to(device, non_blocking=True))
                # Rows of the batch: its anchors, positives and negatives. Without `triplets`, the loss would
                # take all that the labels allow.
                triplets = torch.arange(len(labels), device=device).chunk(3)
                loss = loss_func(embeddings, labels.to(device), triplets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                found.append(loss.item())
            if found:  # else the triplets of the epoch wait for a batch that they fill
                print(f"epoch {epoch}: loss {sum(found) / len(found):.4f} of the active triplets")


if __name__ == "__main__":
    main()
