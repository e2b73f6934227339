"""A module that `fasttriplet.torch.from_mxnet` made is like any other: copied, compiled, on a GPU."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from fasttriplet.torch import from_mxnet, to_mxnet  # noqa: E402
from tests.torch import conversion as c  # noqa: E402
from tests.torch import graphs  # noqa: E402
from tests.torch.converted import converted, images, outputs, take_a_step  # noqa: E402
from torch import nn  # noqa: E402

pytestmark = pytest.mark.torch

Convert = Callable[..., Any]


def test_state_dict_round_trip(prefix: Path) -> None:
    trained, fresh = from_mxnet(prefix, 0), from_mxnet(prefix, 0)
    take_a_step(trained)
    assert not torch.equal(outputs(fresh), outputs(trained))
    fresh.load_state_dict(dict(trained.state_dict()))  # without the metadata that PyTorch adds
    assert torch.equal(outputs(fresh), outputs(trained))


COPIES = [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]


@pytest.mark.parametrize("copied", [*COPIES, copy.copy, lambda m: copy.deepcopy(copy.copy(m))])
def test_copies_are_the_same_to_look_at(module: Any, copied: Convert, tmp_path: Path) -> None:
    again = copied(module.train())
    assert type(again).__name__ == "ConvertedNetwork"
    assert repr(again) == repr(module)
    assert again.code == module.code
    assert again.training
    assert list(again.state_dict()) == list(module.state_dict())
    again.load_state_dict(module.state_dict())
    to_mxnet(again.eval(), tmp_path / "again")
    assert torch.equal(outputs(from_mxnet(tmp_path / "again", 0)), outputs(module.eval()))


def test_a_shallow_copy_shares_the_layers(module: Any) -> None:
    again = copy.copy(module)
    assert again is not module
    assert again.conv0 is module.conv0
    again.conv0 = nn.Identity()
    assert isinstance(module.conv0, nn.Conv2d)


def test_hooks_are_copied(module: Any) -> None:
    module.register_forward_hook(_twice)
    expected = outputs(module)
    for copied in (*COPIES, copy.copy):
        assert torch.equal(outputs(copied(module)), expected)


def _twice(_: object, __: object, output: Any) -> Any:
    return output * 2


@pytest.mark.parametrize("copied", COPIES)
def test_copies_are_whole_and_apart(module: Any, copied: Convert, tmp_path: Path) -> None:
    take_a_step(module)
    again = copied(module)
    before = outputs(module)
    assert torch.equal(outputs(again), before)
    assert again.code == module.code
    assert type(again.bn0) is type(module.bn0)
    take_a_step(again, 1)
    assert torch.equal(outputs(module), before)
    to_mxnet(again, tmp_path / "again")
    assert torch.equal(outputs(from_mxnet(tmp_path / "again", 0)), outputs(again))


def test_pickles_load_while_other_threads_compute(module: Any) -> None:
    pickled, expected, stop = pickle.dumps(module), outputs(module), threading.Event()
    wrong: list[object] = []

    def compute() -> None:
        while not stop.is_set():
            try:
                if not torch.equal(outputs(module), expected):
                    wrong.append("another result")
            except Exception as error:
                wrong.append(error)

    thread = threading.Thread(target=compute)
    thread.start()
    for _ in range(20):
        pickle.loads(pickled)
    stop.set()
    thread.join()
    assert not wrong


def test_saved_whole(module: Any, tmp_path: Path) -> None:
    torch.save(module, tmp_path / "module.pt")
    assert torch.equal(outputs(torch.load(tmp_path / "module.pt", weights_only=False)), outputs(module))


def test_random_numbers_of_the_process_stay(prefix: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    from_mxnet(prefix, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_any_batch_size(module: Any) -> None:
    whole = outputs(module, images(5))
    for row in range(5):
        assert c.apart(outputs(module, images(5)[row : row + 1]).numpy(), whole[row : row + 1].numpy()) < 1e-6


def test_channels_last(module: Any) -> None:
    expected = outputs(module)
    module.to(memory_format=torch.channels_last)
    found = outputs(module, images().contiguous(memory_format=torch.channels_last))
    assert c.apart(found.numpy(), expected.numpy()) < c.BAR


def test_bfloat16_autocast(module: Any) -> None:
    expected = outputs(module)
    with torch.autocast("cpu", torch.bfloat16):
        found = outputs(module)
        module.train()
        module(images()).float().sum().backward()
    assert 0 < c.apart(found.float().numpy(), expected.numpy()) < 0.05
    assert module.bn0.running_var.dtype is torch.float32
    assert torch.isfinite(module.conv0.weight.grad).all()


def test_export(module: Any, tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (images(),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "module.pt2")
    loaded = torch.export.load(tmp_path / "module.pt2").module()
    for count in (1, 7):
        assert torch.allclose(loaded(images(count)), outputs(module, images(count)), atol=1e-6)


def test_layers_that_depend_on_shapes_are_exported(tmp_path: Path) -> None:
    net = converted(graphs.layers(), "end", tmp_path)
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (images() / 255,), dynamic_shapes=({0: batch},))
    for count in (1, 7):
        found = program.module()(images(count) / 255)
        assert torch.allclose(found, outputs(net, images(count) / 255), atol=1e-6)


@pytest.mark.slow
def test_layers_that_depend_on_shapes_are_compiled(tmp_path: Path) -> None:
    net = converted(graphs.layers(), "end", tmp_path)
    compiled = torch.compile(copy.deepcopy(net), fullgraph=True)
    for module in (net, compiled):
        module.train()(images() / 255).square().sum().backward()
    assert c.apart(compiled.conv0.weight.grad.numpy(), net.conv0.weight.grad.numpy()) < 1e-4


@pytest.mark.slow
def test_compile(module: Any) -> None:
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True)
    assert c.apart(outputs(compiled).numpy(), outputs(module).numpy()) < c.BAR
    module.dropout0.p = compiled.dropout0.p = 0.0  # which draws other numbers when it is compiled
    for net in (compiled, module):
        net.train()
        net(images()).square().sum().backward()
    for name, buffer in module.named_buffers():
        assert torch.allclose(compiled.get_buffer(f"_orig_mod.{name}"), buffer, rtol=1e-5), name
    assert c.apart(compiled.conv0.weight.grad.numpy(), module.conv0.weight.grad.numpy()) < 1e-3


@pytest.fixture
def cuda() -> Any:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    return torch.device("cuda")


@pytest.mark.cuda
@pytest.mark.parametrize("memory_format", ["contiguous_format", "channels_last"])
def test_cuda_gives_what_the_cpu_gives(module: Any, cuda: Any, memory_format: str) -> None:
    layout = getattr(torch, memory_format)
    there = copy.deepcopy(module).to(cuda, memory_format=layout)
    with torch.backends.cudnn.flags(allow_tf32=False):
        found = outputs(there, images().to(cuda, memory_format=layout))
    assert c.apart(found.cpu().numpy(), outputs(module).numpy()) < c.BAR


@pytest.mark.cuda
def test_a_step_on_cuda_is_that_of_the_cpu(module: Any, cuda: Any) -> None:
    """In float64, where no rounding moves a value across the kink of a PReLU."""
    module.dropout0.p = 0.0
    steps = []
    for device in ("cpu", cuda):
        net = copy.deepcopy(module).double().to(device).train()
        net(images().double().to(device)).square().sum().backward()
        steps.append((net, {name: p.grad.cpu() for name, p in net.named_parameters()}))
    (here, expected), (there, found) = steps
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-6, atol=1e-9), name
    for name, buffer in here.named_buffers():
        assert torch.allclose(there.get_buffer(name).cpu(), buffer, rtol=1e-9), name


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # by torch.compile itself
def test_bfloat16_autocast_and_compile_on_cuda(module: Any, cuda: Any, tmp_path: Path) -> None:
    expected = outputs(module)
    there = module.to(cuda)
    with torch.autocast("cuda", torch.bfloat16):
        found = outputs(there, images().to(cuda))
        compiled = outputs(torch.compile(there), images().to(cuda))
    assert c.apart(found.float().cpu().numpy(), expected.numpy()) < 0.05
    assert c.apart(compiled.float().cpu().numpy(), expected.numpy()) < 0.05
    to_mxnet(there, tmp_path / "back")
    assert torch.equal(outputs(from_mxnet(tmp_path / "back", 0)), outputs(module.cpu()))
