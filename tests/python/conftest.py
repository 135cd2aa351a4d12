import pytest


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> str:
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU is visible")
    return request.param
