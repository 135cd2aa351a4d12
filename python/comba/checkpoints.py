"""Where the program leaves its models."""

import os
import pathlib


def model_directory(path: str | os.PathLike) -> pathlib.Path:
    """The model directory that `path` means: itself where it has a config.json, or the newest checkpoint of a run.

    FileNotFoundError when it is neither."""
    path = pathlib.Path(path)
    if (path / "config.json").is_file():
        return path
    checkpoints = sorted(each.parent for each in path.glob("checkpoint-*/config.json"))
    if not checkpoints:
        raise FileNotFoundError(f"[comba] {path} must hold a config.json, or be a run with checkpoints; it is neither")
    return max(checkpoints, key=lambda each: int(each.name.removeprefix("checkpoint-")))
