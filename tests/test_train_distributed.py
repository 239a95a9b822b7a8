"""More than one process."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import vqcodec.train
from tests.train_support import CPU, PHASES, entries
from vqcodec.codec import Codec
from vqcodec.config import Config
from vqcodec.networks.layers import Conv
from vqcodec.train import distributed


def test_alone_nothing_is_exchanged() -> None:
    conv = Conv(1, 1, 1)
    distributed.average_gradients(list(conv.parameters()))
    assert conv.weight.grad is None
    assert (distributed.rank(), distributed.is_main(), distributed.from_main(0.5)) == (0, True, 0.5)
    assert distributed.start(CPU) == CPU


def together(code: str, folder: Path, *arguments: str, timeout: float) -> list[str]:
    """What each of two processes prints that run ``code`` as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(vqcodec.train.__file__).parents[2])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    environment = os.environ | shared | {"PYTHONPATH": root}
    command = [sys.executable, "-c", code, *arguments]
    processes = [
        subprocess.Popen(
            command,
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [output for output, _ in outputs]


EXCHANGES = """
import torch
from vqcodec.files.images import image_files
from vqcodec.networks.layers import Conv
from vqcodec.train import distributed as d
device = d.start(torch.device("cpu"))
rank = d.rank()
conv = Conv(1, 2, 1)
torch.nn.init.constant_(conv.weight, rank + 5.0)
d.broadcast(conv)
conv.weight.grad = torch.tensor([[1.0], [rank]])
if rank: conv.bias.grad = torch.ones(2)
d.average_gradients([conv.weight, conv.bias])
print(conv.weight.tolist(), conv.weight.grad.tolist(), conv.bias.grad.tolist(), d.from_main(rank + 0.25), d.is_main())
d.wait()
d.finish()
"""


@pytest.mark.slow
def test_two_processes_exchange(tmp_path: Path) -> None:
    same = "[[5.0], [5.0]] [[1.0], [0.5]] [0.5, 0.5] 0.25"
    assert together(EXCHANGES, tmp_path, timeout=120) == [f"{same} True\n", f"{same} False\n"]


TRAINING = """
import hashlib, json, sys
from pathlib import Path
import vqcodec.train, vqcodec.train.export
from vqcodec.config import Config
from vqcodec.train.codes import CodesPhase
from vqcodec.train.loop import Trainer
vqcodec.train.export.QUALITIES = (50,)

def show(name, module):
    tensors = b"".join(tensor.contiguous().numpy().tobytes() for tensor in module.state_dict().values())
    print(name, hashlib.sha256(tensors).hexdigest())

def train(self, honest=Trainer.train):
    average = honest(self)
    show(self.phase.name, self.module)
    show(self.phase.name, average)
    return average

def after_step(self, step, progress, honest=CodesPhase.after_step):
    figures = honest(self, step, progress)
    show(f"revived {sum('revived' in name for name in figures)}", self.module)
    return figures

Trainer.train, CodesPhase.after_step = train, after_step
data, config = Path(sys.argv[1]), Config.from_dict(json.loads(sys.argv[2]))
print(vqcodec.train.run(data, Path("run"), config, device="cpu", quiet=True, validation_dir=data.parent / "val"))
"""


@pytest.mark.slow
def test_two_processes_train_one_model(tiny_data: Path, short_config: Config, tmp_path: Path) -> None:
    """The same weights and codebooks everywhere, also where a clock ends a phase and codes are revived."""
    timed = dataclasses.replace(short_config.train.vae, steps=10**6, minutes=0.02)
    train = dataclasses.replace(short_config.train, vae=timed, revive_below=0.05, revive_steps=1)
    config = dataclasses.replace(short_config, train=train)
    text = json.dumps(config.to_dict())
    first, second = together(TRAINING, tmp_path, str(tiny_data / "train"), text, timeout=300)
    assert first == second
    assert [line.split()[0] for line in first.splitlines()[:-1] if "revived" not in line] == sorted(
        PHASES * 2, key=PHASES.index
    )
    assert first.count("revived 3") == 2
    assert Codec.load(tmp_path / "run" / "run.decoder.safetensors", device="cpu").name == "run"
    evaluated = [entry["phase"] for entry in entries(tmp_path / "run") if entry.get("evaluation")]
    assert evaluated == PHASES  # by one process only


STEPS = "steps = 4\nbatch = 2\ncrop = 64\nwarmup = 1\n"
TINY = f"""
[model]
widths = [8, 16]
blocks = [1, 1]
patch = 8
lambda_min = 0.005
lambda_max = 0.3

[[model.levels]]
stride = 16
groups = 2
codebook_size = 16
stages = 1

[[model.levels]]
stride = 8
groups = 4
codebook_size = 16
stages = 2

[prior]
channels = 16
layers = 1
context_layers = 1

[train]
evaluation_crop = 64
fit_batches = 2

[train.vae]
{STEPS}
[train.codes]
{STEPS}
[train.prior]
{STEPS}
[train.joint]
{STEPS}
"""


@pytest.mark.slow
def test_torchrun_trains_and_exports_a_model(tiny_data: Path, photograph: NDArray[np.uint8], tmp_path: Path) -> None:
    """The command of README, with two processes, a tiny model and a few steps a phase."""
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    options = ["--config", "tiny.toml", "--validation", str(tiny_data / "val"), "--device", "cpu", "--name", "tiny"]
    result = subprocess.run(
        [
            str(Path(sys.executable).with_name("torchrun")),
            *("--standalone", "--nproc-per-node", "2", "-m", "vqcodec", "train", str(tiny_data / "train"), "-o", "run"),
            *options,
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(vqcodec.train.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    weights = Path("run", "tiny.decoder.safetensors")
    assert result.stdout.splitlines()[-1].startswith(f"{weights}: barely trained, fewer than 500 steps: 4 of vae, ")
    assert result.stdout.count("barely trained") == 1  # by one process only
    assert [entry["phase"] for entry in entries(tmp_path / "run") if entry.get("evaluation")] == PHASES
    codec = Codec.load(tmp_path / weights, device="cpu")
    data = codec.compress(photograph, 50, effort=0, check=True)
    assert codec.decompress(data).shape == photograph.shape
