"""The description of the machine."""

import torch

from vqcodec.machine import Machine, cores, processor


def test_this_machine() -> None:
    machine = Machine.this()
    assert (machine.cpu, machine.cores) == (processor(), cores())
    assert machine.cores >= 1
    assert machine.cpu_capability == torch.backends.cpu.get_cpu_capability()
    assert (machine.gpu is None) != torch.cuda.is_available()
