"""The line that shows how far a long command is."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

COLUMNS = 40


def run_on_a_terminal(command, folder) -> str:
    """What the command writes to a terminal of 40 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # how Linux reports that nobody holds the other side any more
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return written.decode()


def pack_of_a_second(comba):
    with open(comba.folder / "large.txt", "wb") as large:
        large.truncate(200 << 20)  # a hole: it takes no room
    return ["data", "pack", "large.txt", "--binary", "--out", "data", "--overwrite"]


def test_a_terminal_has_one_line_drawn_over_and_over(comba):
    written = run_on_a_terminal([comba.path, *pack_of_a_second(comba)], comba.folder)
    assert re.fullmatch(r"(\r[^\r\n\x1b]*\x1b\[K)+\r\n", written), written
    for line in re.findall(r"\r([^\x1b\n]*)\x1b", written):
        assert line.startswith("0 of 1 files, ") and len(line) < COLUMNS


def test_elsewhere_there_are_no_control_characters(comba):
    errors = comba(*pack_of_a_second(comba)).stderr
    assert re.fullmatch(r"([ -~]+\n)*", errors), errors
