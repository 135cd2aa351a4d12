"""What the programs that draw have in common: their flags, where things are written, one line of error."""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Callable

from comba import _plot_style


def parser_of(module: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def parse_picture(text: str) -> pathlib.Path:
    path = pathlib.Path(text)
    if path.suffix not in _plot_style.FORMATS:
        raise argparse.ArgumentTypeError(f"must end in {', '.join(_plot_style.FORMATS)}; got '{text}'")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def add_picture_flag(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--out", type=parse_picture, metavar="FILE", help=f"picture to write: .png, .svg or .pdf (default: {default})")


def add_table_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", type=pathlib.Path, metavar="FILE", help="write the table there, in Markdown, and draw nothing without --out")


def read(path: pathlib.Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def show(options: argparse.Namespace, table: str, draw: Callable[[pathlib.Path], None], default: pathlib.Path) -> None:
    """A table, to where --table says or else to standard output, and a picture, to where --out says or else to
    `default`: the table alone where only that is asked for."""
    if options.table:
        write(options.table, table)
    else:
        print(table)
    out = options.out or (None if options.table else default)
    if out:
        draw(out)
        print(out)


def write(path: pathlib.Path, text: str) -> None:
    """Whole or not at all; to a device or pipe, such as /dev/stdout, as it is."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    written = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        written.write_text(text, encoding="utf-8")
        written.replace(path)
    finally:
        written.unlink(missing_ok=True)


def run(program: str, work: Callable[[], None], rule: str | None = None) -> int:
    """The program's exit code. What fails is one line; with a rule, it is what input breaks in which keys are missing."""
    try:
        work()
    except (OSError, ValueError, _plot_style.NoMatplotlib) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except (KeyError, TypeError):
        if rule is None:
            raise
        print(f"{program}: {rule}", file=sys.stderr)
        return 1
    return 0
