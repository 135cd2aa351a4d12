"""An installed library serves a stranger, wherever its folder was moved to."""

import os
import sys

import pytest

from rules import consumer, readme


@pytest.fixture(scope="module")
def prefix(build_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    consumer.run(consumer.CMAKE, "--install", build_dir, "--prefix", folder / "first")
    return (folder / "first").rename(folder / "moved")


def test_find_package_in_cpp(prefix, tmp_path):
    consumer.check_cpp(consumer.find_package_in_cpp(prefix, tmp_path))


def test_find_package_in_c(prefix, tmp_path):
    consumer.check_c(consumer.find_package_in_c(prefix, tmp_path))


def test_pkg_config_in_cpp(prefix, tmp_path):
    consumer.check_cpp(consumer.pkg_config(prefix, tmp_path, "c++"))


def test_pkg_config_in_c(prefix, tmp_path):
    consumer.check_c(consumer.pkg_config(prefix, tmp_path, "cc"))


def test_completions_are_where_shells_look(prefix):
    for path in ("bash-completion/completions/comba", "zsh/site-functions/_comba", "fish/vendor_completions.d/comba.fish"):
        assert "comba data pack" in (prefix / "share" / path).read_text()


def test_the_installed_program_runs(prefix):
    assert "Usage" in consumer.run(prefix / "bin" / "comba", "--help")


def test_the_installed_operators_run_in_pytorch(prefix):
    (code,) = readme.blocks("python")
    environment = {**os.environ, "COMBA_TORCH_LIBRARY": str(prefix / "lib" / "libcomba_torch.so")}
    shown = consumer.run(sys.executable, "-c", code + "print(list(o.shape), bool(o.isfinite().all()))", env=environment)
    assert shown == "[1, 256, 4, 64] True\n"
