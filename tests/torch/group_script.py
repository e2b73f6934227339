"""What each of three processes does in `test_group.py`; it prints one line of JSON for each question."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import torch.distributed as dist

import torch
from fasttriplet.torch import TripletFeed, triplet_loss

RANK, REC = int(os.environ.get("RANK", "0")), sys.argv[-1]
OPTIONS: dict[str, Any] = {"bag_size": 30, "batch_size": 9, "band": "any", "threads": 1}


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 5, stride=4),
        torch.nn.BatchNorm2d(4),
        torch.nn.Flatten(),
        torch.nn.LazyLinear(8),
    )


def module(seed: int = 0) -> torch.nn.Module:
    made = network(seed)
    made(torch.zeros(1, 3, 24, 24))
    return made


def descend(net: torch.nn.Module, loss: torch.Tensor) -> None:
    """Take a step of SGD, without the 5 s that the first import of torch.optim takes."""
    net.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.sub_(0.05 * parameter.grad)


def answer(question: str, value: Any) -> None:
    print(json.dumps([question, value]), flush=True)


def error_of(work: Callable[[], object]) -> str:
    began = time.monotonic()
    try:
        work()
    except BaseException as error:
        if time.monotonic() - began > 8:
            return f"too late: {error}"
        return f"{type(error).__name__}: {error}"
    return "none"


def taken(model: Any = None, rec: Any = REC, group: Any = None, epochs: int = 1) -> list[list[list[int]]]:
    with TripletFeed(rec, module() if model is None else model, group=group, **OPTIONS) as feed:
        return [batch.ids.reshape(3, -1).T.tolist() for _ in range(epochs) for batch in feed]


def same_triplets() -> None:
    for ranks in ([0, 1, 2], [0, 1], [0]):
        group = dist.new_group(ranks)  # by all, those that are not in it too
        if RANK in ranks:
            answer(f"of {len(ranks)}", taken(group=group, epochs=2))
        else:
            answer("not in the group", error_of(partial(taken, group=group)))


def states() -> None:
    feed = TripletFeed(REC, module(), **OPTIONS)
    before = [batch.ids.tolist() for batch in islice(feed, 3)]
    state = feed.state_dict()
    answer("state", [state["epoch"], state["bag"], state["triplets"].tolist()])
    feed.load_state_dict(state)
    after = [batch.ids.tolist() for batch in feed]
    feed.close()
    with TripletFeed(REC, module(), **OPTIONS) as other:
        assert before + after == [batch.ids.tolist() for batch in other]
    answer("resumed", True)
    with TripletFeed(REC, module(), **OPTIONS) as feed:
        for _ in feed:  # all leave it at the same batch
            break
        answer("next pass", [len(list(feed)), feed.epoch, feed.summary.epochs])


def training() -> None:
    """As DistributedDataParallel, whose import takes 5 s, does it: gradients are averaged, and no more."""
    net = module()
    for parameter in net.parameters():
        parameter.register_post_accumulate_grad_hook(lambda own: dist.all_reduce(own.grad))
    with TripletFeed(REC, net, **OPTIONS) as feed:
        steps = 0
        for _ in range(2):
            for images, _, _ in feed:
                assert all(part.training for part in net.modules())
                descend(net, triplet_loss(net(images), 0.5))
                statistics = net[1].running_mean.clone()
                steps += 1
        assert torch.equal(net[1].running_mean, statistics)  # although the last bag had those of process 0
        answer("trained", [steps, feed.summary.triplets, float(net[0].weight.detach().sum())])
        answer("statistics", statistics.tolist())
    answer("not wrapped", error_of(lambda: taken(module(RANK))))


class Fails(torch.nn.Module):
    """Raises in the second bag."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.images = module(), 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        if RANK == 1 and self.images > 16:
            raise ZeroDivisionError("broken")
        found: torch.Tensor = self.inner(images)
        return found


def failures() -> None:
    def step_fails() -> None:
        with TripletFeed(REC, module(), **OPTIONS) as feed:
            for _ in feed:
                if RANK == 1:
                    raise KeyError("of the step")

    def breaks() -> None:
        feed = TripletFeed(REC, module(), **OPTIONS)
        for _ in feed:
            if RANK == 1:
                break

    def interrupted() -> None:
        """Process 0 waits for the others, which are late."""
        if RANK == 0:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            began = time.monotonic()
            try:
                taken()
            finally:
                assert time.monotonic() - began < 1.5
        time.sleep(2)
        taken()

    answer("module fails", error_of(lambda: taken(Fails())))
    answer("step fails", error_of(step_fails))
    answer("break", error_of(breaks))
    answer("no file", error_of(lambda: taken(rec="no.rec" if RANK == 1 else REC)))
    answer("ctrl-c", error_of(interrupted))


def ends() -> None:
    """Process 2 is killed, and process 1 ends with an error that nobody catches."""
    groups = [dist.new_group([0, 2]), dist.new_group([0, 1])]
    if RANK == 2:
        for _ in TripletFeed(REC, module(), group=groups[0], **OPTIONS):
            os.kill(os.getpid(), signal.SIGKILL)
    if RANK == 0:
        answer("killed", error_of(lambda: taken(group=groups[0])))
        answer("uncaught", error_of(lambda: taken(group=groups[1])))
    if RANK == 1:
        batches = iter(TripletFeed(REC, module(), group=groups[1], **OPTIONS))
        next(batches)
        globals()["kept"] = batches  # as a framework does, so nothing is closed by and by
        raise LookupError("that nobody catches")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for work in (same_triplets, states, training, failures, ends):
        work()
