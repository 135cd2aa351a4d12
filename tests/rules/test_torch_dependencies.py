"""What the program and the library for PyTorch are linked with: LibTorch's CUDA libraries cost every start, and one
library serves every version of Python."""

import pytest

from rules import consumer

FORBIDDEN = ("libtorch.so", "libtorch_cuda", "libc10_cuda", "libcudart", "libtorch_python", "libpython")


def needed(file) -> list[str]:
    lines = consumer.run("readelf", "-d", file).splitlines()
    return [line.split("[")[1].rstrip("]") for line in lines if "(NEEDED)" in line]


@pytest.mark.parametrize("path", ["bin/comba", "lib/libcomba_torch.so"])
def test_neither_cuda_libraries_nor_python_are_needed(build_dir, path):
    libraries = needed(build_dir / path)
    assert "libtorch_cpu.so" in libraries
    assert [name for name in libraries if name.startswith(FORBIDDEN)] == []


def test_the_library_finds_no_torch_of_its_own(build_dir):
    dynamic = consumer.run("readelf", "-d", build_dir / "lib" / "libcomba_torch.so")
    assert "RPATH" not in dynamic and "RUNPATH" not in dynamic


def test_the_library_shows_no_names_of_cuda_or_comba(build_dir):
    names = consumer.run("nm", "-D", "--defined-only", "-C", build_dir / "lib" / "libcomba_torch.so").splitlines()
    own = [line for line in names if line.split(maxsplit=2)[2].startswith(("cuda", "__cuda", "comba_"))]
    assert own == []
