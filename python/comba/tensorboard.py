"""Shows training runs in TensorBoard: python -m comba.tensorboard RUN... --out logs, then tensorboard --logdir logs

Reads RUN/metrics.jsonl and writes its numbers as scalars under logs/RUN: everything a step reports but texts. It needs
the package tensorboard, which comba itself does not. Run it again to see the steps made since.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator


def scalars(run: pathlib.Path) -> Iterator[tuple[str, int, float]]:
    """Name, step and value of each number of a run, in the order of the file. A line cut short by a crash is left out."""
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)):
                yield name, record["step"], float(value)


def convert(run: pathlib.Path, logs: pathlib.Path) -> pathlib.Path:
    """Writes logs/RUN, in place of what was written there before, and returns it."""
    numbers = list(scalars(run))
    from tensorboard.summary import Writer

    out = logs / run.resolve().name
    for earlier in out.glob("events.out.tfevents.*"):
        earlier.unlink()
    writer = Writer(str(out))
    for name, step, value in numbers:
        writer.add_scalar(name, value, step)
    writer.close()
    return out


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m comba.tensorboard", description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN", help="directory that comba train wrote")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="log directory for TensorBoard")
    options = parser.parse_args(arguments)
    try:
        for run in options.runs:
            print(convert(run, options.out))
    except ModuleNotFoundError as error:
        print(f"python -m comba.tensorboard: needs the package tensorboard (pip install tensorboard): {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"python -m comba.tensorboard: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
