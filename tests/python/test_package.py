"""The package as people get it: a wheel for every Python, its operators found and fitting to torch, a quick import."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile

import pytest
from rules import readme, tree

from comba import _library

RUN_AN_OPERATOR = """
import comba, torch
x = torch.full((1, 8, 2, 4), 0.5)
gate = torch.full((1, 8, 2), 0.5)
o, state = comba.ops.chunk_comba(x, x, x, None, -gate, gate, output_final_state=True)
assert o.shape == x.shape and state.shape == (1, 2, 4, 4) and o.isfinite().all() and o.abs().sum() > 0
print(comba.__file__, comba._library.find())
"""


def python(program, code: str, **options) -> str:
    result = subprocess.run([program, "-c", code], capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build_wheel(folder: pathlib.Path, **defines) -> pathlib.Path:
    """As `pip wheel --no-build-isolation` does, for which pip need not be there."""
    settings = {"build-dir": str(folder / "build"), **{f"cmake.define.{key}": value for key, value in defines.items()}}
    code = f"import scikit_build_core.build as b; b.build_wheel({str(folder)!r}, {settings!r})"
    environment = {**os.environ, "PATH": f"{tree.ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"}
    python(sys.executable, code, cwd=tree.ROOT, env=environment)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The Python of a fresh environment that has the wheel and sees the torch of this one."""
    venv.create(folder, with_pip=False, symlinks=True)
    program = folder / "bin" / "python"
    installer = ["uv", "pip", "install", "--offline", "--python", program] if shutil.which("uv") else [
        sys.executable, "-m", "pip", "--python", program, "install", "--disable-pip-version-check"]
    subprocess.run([*installer, "--no-deps", "--no-index", wheel], check=True, capture_output=True)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    (packages / "torch.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return program


def run_installed(program: pathlib.Path, folder: pathlib.Path) -> None:
    """An operator runs, and nothing of this tree does."""
    hidden = ("COMBA_TORCH_LIBRARY", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    package, library = python(program, RUN_AN_OPERATOR, cwd=folder, env=environment).split()
    assert pathlib.Path(package).is_relative_to(folder) and pathlib.Path(library).is_relative_to(folder)


def test_a_wheel_around_the_built_operators(build_dir, tmp_path):
    wheel = build_wheel(tmp_path, COMBA_TORCH_LIBRARY=str((build_dir / "lib" / "libcomba_torch.so").resolve()))
    assert wheel.name == f"comba-{version()}-py3-none-linux_x86_64.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if ".so" in name] == ["comba/libcomba_torch.so"]
    assert {"comba/py.typed", "comba/libcomba_torch.json", "comba/ops/__init__.py"} <= set(names)
    run_installed(install(wheel, tmp_path / "fresh"), tmp_path)


@pytest.mark.long
def test_a_wheel_from_nothing_without_cuda(tmp_path):
    wheel = build_wheel(tmp_path, COMBA_CUDA="OFF")
    note = json.loads(zipfile.ZipFile(wheel).read("comba/libcomba_torch.json"))
    assert note["cuda"] is False and note["version"] == version()
    run_installed(install(wheel, tmp_path / "fresh"), tmp_path)


def version() -> str:
    return re.search(r"project\(comba VERSION ([\d.]+)", tree.read("CMakeLists.txt"))[1]


def test_the_torch_that_is_asked_for_is_the_one_that_is_tested():
    (tested,) = re.findall(r"^torch==.*", tree.read("scripts/requirements.txt"), re.MULTILINE)
    project = tomllib.loads(tree.read("pyproject.toml"))
    assert tested in project["project"]["dependencies"] and tested in project["build-system"]["requires"]


def test_another_torch_is_refused_in_words():
    library = pathlib.Path("libcomba_torch.so")
    for same in ("2.11.0", "2.11.0+cpu", "2.11.0+cu130"):
        _library.check_torch(library, "2.11.0+cu130", same)
    for other in ("2.11.1", "2.12.0+cu130", "2.11.0a0", "2.1.0"):
        with pytest.raises(ImportError) as caught:
            _library.check_torch(library, "2.11.0+cu130", other)
        assert f"torch must be 2.11.0, which {library} was built with; got {other}" in str(caught.value)
        assert "--no-build-isolation" in str(caught.value)


def test_the_build_notes_its_torch(build_dir):
    import torch

    note = _library.built_with(build_dir / "lib" / "libcomba_torch.so")
    assert (note["torch"], note["version"]) == (torch.__version__, version())


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("COMBA_TORCH_LIBRARY", str(tmp_path / "none.so"))
    with pytest.raises(ImportError) as caught:
        _library.find()
    assert f"COMBA_TORCH_LIBRARY must name libcomba_torch.so; got {tmp_path}/none.so, which is no file" in str(caught.value)
    monkeypatch.delenv("COMBA_TORCH_LIBRARY")
    monkeypatch.setattr(_library, "PACKAGE", tmp_path / "python" / "comba")
    with pytest.raises(ImportError) as caught:
        _library.find()
    for place in ("python/comba", "build/release/lib"):
        assert str(tmp_path / place / "libcomba_torch.so") in str(caught.value)


def test_a_file_that_is_no_library_is_named(tmp_path):
    wrong = tmp_path / "libcomba_torch.so"
    wrong.write_text("not a library")
    with pytest.raises(ImportError) as caught:
        _library.register(wrong)
    assert f"{wrong} does not load into torch" in str(caught.value)
    wrong.with_suffix(".json").write_text('{"torch": "1.0.0"}')
    with pytest.raises(ImportError) as caught:
        _library.register(wrong)
    assert "torch must be 1.0.0" in str(caught.value)


def test_the_example_of_the_documentation_runs():
    (code,) = readme.blocks("python", tree.read("docs/python.md"))
    shown = python(sys.executable, code + "print(list(o.shape), list(state.shape), bool(o.isfinite().all()))")
    assert shown == "[2, 1, 4, 64] [2, 4, 64, 64] True\n"


def test_the_import_is_quick():
    """comba alone imports no torch; the operators cost a part of what torch costs."""
    code = """
import sys, time, comba
assert "torch" not in sys.modules
begin = time.perf_counter()
import torch
middle = time.perf_counter()
comba.ops
print((time.perf_counter() - middle) / (middle - begin))
"""
    assert float(python(sys.executable, code)) < 0.5
