"""comba.nn: the mixers go on from a state, pass over padding and keep packed sequences apart."""

import pytest

torch = pytest.importorskip("torch")

from comba import nn

D, T = 32, 90


def comba_mixer(**options) -> nn.Comba:
    return nn.Comba(D, 2, 16, **options)


MIXERS = {
    "comba": comba_mixer,
    "comba in fla's convention": lambda: comba_mixer(convention="fla"),
    "comba, iplr": lambda: comba_mixer(rule="iplr"),
    "comba, more value heads": lambda: comba_mixer(num_v_heads=4, expand_v=0.5),
    "comba, bare": lambda: comba_mixer(
        use_short_conv=False, use_output_gate=False, use_output_correction=False, use_inner_decay=False
    ),
    "gated deltanet": lambda: nn.GatedDeltaNet(D, 2, 16, expand_v=2, allow_neg_eigval=True),
    "attention": lambda: nn.Attention(D, 4, 2, qkv_bias=True),
    "window": lambda: nn.Attention(D, 4, window_size=5),
}


@pytest.fixture(params=MIXERS)
def mixer(request):
    torch.manual_seed(3)
    return MIXERS[request.param]()


def tokens(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, T, D, generator=torch.Generator().manual_seed(5))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("with_gradients", [False, True])
def test_a_state_carries_on_what_was_cut(mixer, with_gradients):
    x = tokens()
    with torch.set_grad_enabled(with_gradients):
        state = mixer.initial_state(len(x))
        pieces = [mixer(piece, state) for piece in x.split([1, 2, 70, 16, 1], dim=1)]
        assert close(torch.cat(pieces, 1), mixer(x))
    assert state.position == T


def test_a_copy_of_a_state_is_another_stream(mixer):
    x = tokens()
    with torch.no_grad():
        state = mixer.initial_state(len(x))
        mixer(x, state)
        fork = state.copy()
        first = mixer(x[:, :3], fork)
        assert torch.equal(mixer(x[:, :3], state), first)


def test_no_token_sees_a_later_one(mixer):
    x = tokens()
    changed = x.clone()
    changed[:, 50] += 1
    y, other = mixer(x), mixer(changed)
    assert torch.equal(y[:, :50], other[:, :50])
    assert not torch.equal(y[:, 50:], other[:, 50:])


def test_padding_on_the_left_is_not_there(mixer):
    x, num_padding = tokens(1), 7
    padded = torch.cat([torch.full((1, num_padding, D), 3.0), x], dim=1)
    mask = torch.arange(T + num_padding)[None] >= num_padding
    state, plain = mixer.initial_state(1), mixer.initial_state(1)
    assert close(mixer(padded, state, mask)[:, num_padding:], mixer(x, plain))
    more = tokens(1)[:, :3] * 0.5
    assert close(mixer(more, state), mixer(more, plain))


@pytest.mark.parametrize("mixer", [name for name in MIXERS if "comba" in name or "deltanet" in name], indirect=True)
def test_padding_leaves_the_recurrent_state_as_it_is(mixer):
    x = tokens()
    state = mixer.initial_state(len(x))
    mixer(x, state)
    before = state["recurrent"].clone()
    for num_padding in (3, 70):  # token by token, and in chunks
        with torch.no_grad():
            mixer(x[:, :num_padding], state, torch.zeros(len(x), num_padding, dtype=torch.bool))
        assert torch.equal(state["recurrent"], before)


def test_packed_sequences_are_separate(mixer):
    x = tokens(1)
    borders = torch.tensor([0, 1, 1, 40, T])
    packed = mixer(x, cu_seqlens=borders)
    separate = [mixer(x[:, begin:end]) for begin, end in zip(borders, borders[1:]) if end > begin]
    assert close(packed, torch.cat(separate, dim=1))


def test_every_parameter_has_a_gradient(mixer):
    mixer(tokens()).square().sum().backward()
    lacking = [name for name, each in mixer.named_parameters() if each.grad is None or not each.grad.any()]
    # The same for all keys, a bias of k changes no softmax.
    assert lacking in ([], ["k_proj.bias"])


def test_a_correction_that_is_not_learned_has_no_gradient():
    mixer = comba_mixer(correction_factor=0.5, learn_correction_factor=False)
    mixer(tokens()).square().sum().backward()
    assert mixer.D.grad is None and mixer.decay.grad.any() and (mixer.D == 0.5).all()


def test_16_bit_and_autocast_stay_near_fp32():
    torch.manual_seed(3)
    mixer, x = comba_mixer(), tokens()
    with torch.no_grad():
        y = mixer(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = mixer(x)
        narrow = mixer.bfloat16()(x.bfloat16())
    assert mixed.dtype == narrow.dtype == torch.bfloat16
    for other in (mixed, narrow):
        assert (other - y).norm() / y.norm() < 0.02


@pytest.mark.parametrize(
    "make, complaint",
    [
        (lambda: nn.Comba(D, 2, 16, num_v_heads=3), r"\[Comba\] num_v_heads must be a multiple of num_heads; got 3 and 2"),
        (lambda: nn.Comba(D, 2, 300), "head_dim must be from 1 to 256; got 300"),
        (lambda: nn.GatedDeltaNet(D, 2, 15, expand_v=0.5), "must be a whole number; got 15"),
        (lambda: nn.Comba(D, 2, 16, convention="own"), "convention must be paper or fla; got own"),
        (lambda: nn.Comba(D, 2, 16, rule="own"), "rule must be splr or iplr; got own"),
        (lambda: nn.Attention(D, 3), "hidden_size must be an even multiple of num_heads; got 32 and 3"),
        (lambda: nn.Attention(D, 4, 3), "num_heads must be a multiple of num_kv_heads; got 4 and 3"),
        (lambda: comba_mixer()(tokens(), cu_seqlens=torch.tensor([0, T])), "cu_seqlens needs B = 1"),
    ],
)
def test_wrong_arguments_are_named(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()
