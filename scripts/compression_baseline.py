#!/usr/bin/env python3
"""What general compressors make of the held-out split of a packed data set, in bits per byte, as JSON.

    xz         xz -9e, file by file, sizes summed
    zstd       zstd -19, file by file, sizes summed
    xz_primed  xz -9e given the training text first: size(training + held-out) - size(training). The compressor's
               dictionary reaches 64 MiB back, so only that much of the end of the training text is used.

A compressed file carries its format's header and checksum, as it does on a disk.
"""

import argparse
import json
import lzma
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator

PRIMING_BYTES = 64 << 20


def documents(data_set: pathlib.Path, split: str) -> Iterator[bytes]:
    """The texts of a split, in packed order. Tokens are u16: 256 begins a document, then come its bytes."""
    shards = (open(path, "rb") for path in sorted(data_set.glob(f"{split}-*.tokens")))
    tokens = next(shards)
    for _, num_bytes, _ in struct.iter_unpack("<3Q", (data_set / f"{split}.documents").read_bytes()):
        size = 2 * (1 + num_bytes)
        document = tokens.read(size)
        while len(document) < size:  # it goes on in the next shard
            tokens = next(shards)
            document += tokens.read(size - len(document))
        yield document[2::2]


def xz_size(text: bytes) -> int:
    return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def zstd_sizes(texts: list[bytes]) -> int:
    """Sum of the sizes that the zstd program makes of files with these contents."""
    if shutil.which("zstd") is None:
        raise RuntimeError("the zstd program is missing: run scripts/setup")
    with tempfile.TemporaryDirectory() as folder:
        for index, text in enumerate(texts):
            pathlib.Path(folder, str(index)).write_bytes(text)
        subprocess.run(["zstd", "-19", "-q", "-r", "--rm", folder], check=True, stdin=subprocess.DEVNULL)
        return sum(path.stat().st_size for path in pathlib.Path(folder).iterdir())


def measure(data_set: pathlib.Path, report) -> dict[str, float]:
    heldout = list(documents(data_set, "heldout"))
    num_bytes = sum(map(len, heldout))
    if num_bytes == 0:
        raise RuntimeError(f"{data_set} has no held-out text")
    report(f"xz -9e on {len(heldout)} held-out texts, {num_bytes:,} bytes")
    xz = sum(map(xz_size, heldout))
    report("zstd -19 on the same")
    zstd = zstd_sizes(heldout)
    training = b"".join(documents(data_set, "train"))[-PRIMING_BYTES:]
    report(f"xz -9e after {len(training):,} bytes of training text")
    primed = xz_size(training + b"".join(heldout)) - xz_size(training)
    sizes = {"xz": xz, "zstd": zstd, "xz_primed": primed}
    return {"heldout_bytes": num_bytes, **{name: 8 * size / num_bytes for name, size in sizes.items()}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_set", type=pathlib.Path, help="directory that comba data pack wrote")
    options = parser.parse_args()
    try:
        result = measure(options.data_set, lambda text: print(f"  {text}", file=sys.stderr, flush=True))
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"compression_baseline.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
