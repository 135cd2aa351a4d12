import os
import pathlib

import pytest

if "COMBA_BUILD_DIR" in os.environ:
    build = pathlib.Path(__file__).resolve().parents[2] / os.environ["COMBA_BUILD_DIR"]
    os.environ.setdefault("COMBA_TORCH_LIBRARY", str(build / "lib" / "libcomba_torch.so"))


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> str:
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU is visible")
    return request.param
