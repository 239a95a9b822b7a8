"""What the tests of training share."""

import json
from pathlib import Path
from typing import Any

import torch

PHASES = ["vae", "codes", "prior", "joint"]
CPU = torch.device("cpu")


class Kill(BaseException):
    """Stands for the end of the process."""


def entries(folder: Path) -> list[dict[str, Any]]:
    """The log of a run, every line of which is JSON that any reader takes."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "log.jsonl").read_text().splitlines()]
