"""comba.models in transformers: references, generation, training, files."""

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file

from comba import models
from python.small_models import CONFIGS, FIXTURES, SIZES, VOCAB, make, random_ids, relative_error

AutoModel = transformers.AutoModelForCausalLM


@pytest.fixture(params=CONFIGS)
def model(request):
    return make(request.param)


def test_importing_comba_imports_no_transformers():
    code = "import sys, comba, comba.nn; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Of fla's Gated DeltaNet kernel, which computes an inverse in TF32, the error alone is 3.5e-5.
LOGIT_ERRORS = {"comba_tied": 2e-5, "comba_untied": 2e-5, "comba_hybrid": 2e-5, "gdn": 1e-4, "transformer": 2e-5}


@pytest.mark.parametrize("name", LOGIT_ERRORS)
def test_a_checkpoint_of_flash_linear_attention_computes_the_same(name):
    reference = load_file(FIXTURES / f"model_{name}" / "io.safetensors")
    model = AutoModel.from_pretrained(FIXTURES / f"model_{name}", dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(reference["input_ids"]).logits
        long = model(reference["input_ids_long"]).logits[:, 64:]
    assert relative_error(logits, reference["logits"]) < LOGIT_ERRORS[name]
    long_reference = reference["logits_long_from64"]
    assert relative_error(long[:, : long_reference.shape[1]], long_reference) < LOGIT_ERRORS[name]
    prompt = reference["input_ids"][:1]
    written = model.generate(prompt, max_new_tokens=16, do_sample=False, eos_token_id=None)
    assert torch.equal(written[0, prompt.shape[1] :], reference["greedy_ids"])


def greedy(model, ids: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """By the whole text anew for each token."""
    with torch.no_grad():
        for _ in range(num_tokens):
            ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    return ids


def test_generated_text_is_that_of_the_full_forward(model):
    prompt = random_ids(2, 21)
    assert torch.equal(model.generate(prompt, max_new_tokens=20, do_sample=False), greedy(model, prompt, 20))


def test_a_padded_batch_generates_what_each_prompt_does(model):
    prompts = [random_ids(1, length, seed=length) for length in (3, 18, 9)]
    length = max(each.shape[1] for each in prompts)
    batch = torch.zeros(len(prompts), length, dtype=torch.int64)
    mask = torch.zeros_like(batch)
    for row, prompt in enumerate(prompts):
        batch[row, length - prompt.shape[1] :] = prompt
        mask[row, length - prompt.shape[1] :] = 1
    written = model.generate(batch, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0)
    for row, prompt in enumerate(prompts):
        assert torch.equal(written[row, length:], greedy(model, prompt, 12)[0, prompt.shape[1] :])


def test_beams_carry_their_own_states(model):
    options = {"max_new_tokens": 10, "num_beams": 3, "do_sample": False}
    prompt = random_ids(2, 9)
    with_states = model.generate(prompt, **options)
    assert torch.equal(with_states, model.generate(prompt, use_cache=False, **options))


@pytest.mark.parametrize("name", ["comba", "window hybrid", "gated deltanet"])
def test_the_state_keeps_its_size(name):
    model = make(name)
    sizes = []
    for num_tokens in (20, 60):
        output = model.generate(random_ids(1, 10), max_new_tokens=num_tokens, do_sample=False, return_dict_in_generate=True)
        assert output.past_key_values.get_seq_length() == 10 + num_tokens - 1
        sizes.append(output.past_key_values.num_bytes())
    assert sizes[0] == sizes[1] > 0


def test_a_state_cannot_go_back():
    with pytest.raises(NotImplementedError, match="cannot go back"):
        make("comba").model.initial_state(1).crop(-1)


def test_the_loss_is_that_of_each_next_token(model):
    ids = random_ids(2, 30)
    labels = ids.clone()
    labels[:, :5] = -100
    output = model(ids, labels=labels)
    logits = output.logits[:, 4:-1].flatten(0, 1)
    assert torch.allclose(output.loss, torch.nn.functional.cross_entropy(logits, ids[:, 5:].flatten()))
    assert torch.equal(model(ids, logits_to_keep=2).logits, output.logits[:, -2:])


def test_packed_texts_are_separate(model):
    ids, borders = random_ids(1, 50), torch.tensor([0, 7, 50])
    packed = model(ids, cu_seqlens=borders).logits
    separate = [model(piece, use_cache=False).logits for piece in ids.split([7, 43], dim=1)]
    assert torch.allclose(packed, torch.cat(separate, dim=1), atol=1e-4)


def test_recomputed_blocks_give_the_same_gradients(model):
    ids = random_ids(2, 40)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        return [each.grad.clone() for each in model.parameters()]

    model.train()
    kept = gradients()
    model.gradient_checkpointing_enable()
    assert model.model.layers[0].gradient_checkpointing
    for plain, recomputed in zip(kept, gradients(), strict=True):
        assert torch.equal(plain, recomputed)


def test_files_hold_every_bit(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert type(again) is type(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    own = {"_name_or_path": None, "dtype": None}  # where it came from
    assert {**again.config.to_dict(), **own} == {**model.config.to_dict(), **own}
    tied = model.config.tie_word_embeddings
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) == (not tied)
    assert (again.lm_head.weight is again.model.embeddings.weight) == tied


def test_a_file_that_leaves_keys_out_means_what_its_format_says(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "comba", "hidden_size": 32, "num_hidden_layers": 1, "num_heads": 2, "head_dim": 16, "vocab_size": 8,
    }))
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert (config.comba_convention, config.tie_word_embeddings, config.intermediate_size) == ("fla", False, 256)
    assert models.CombaConfig().comba_convention == "paper"


def test_a_new_model_is_drawn_as_the_paper_draws_it():
    torch.manual_seed(2)
    config = models.CombaConfig(hidden_size=256, num_hidden_layers=2, num_heads=64, head_dim=16, vocab_size=100)
    model = AutoModel.from_config(config)
    block = model.model.layers[0]
    for weight in (model.model.embeddings.weight, block.attn.q_proj.weight, block.mlp.up_proj.weight, block.attn.q_conv1d.weight):
        assert weight.std().item() == pytest.approx(0.006, rel=0.1)
    rate, dt = block.attn.A_log.exp(), torch.nn.functional.softplus(block.attn.dt_bias)
    assert 0 < rate.min() and 12 < rate.max() <= 16
    assert 1e-3 <= dt.min() * 1.001 and dt.max() <= 0.1 * 1.001 and dt.max() > 0.05
    assert (block.attn.D == 0.02).all() and (block.attn.decay == 1).all() and (block.attn_norm.weight == 1).all()
    bound = 1024**-0.5 / 2
    assert 0.9 * bound < block.attn.o_proj.weight.abs().max() <= bound


def test_what_is_no_matrix_does_not_decay(model):
    decaying, others = (group["params"] for group in models.parameter_groups(model, weight_decay=0.1))
    names = {id(each): name for name, each in model.named_parameters()}
    assert len(decaying) + len(others) == len(names)
    ends = {names[id(each)].rsplit(".", 1)[1] for each in others}
    assert ends <= {"A_log", "dt_bias", "D", "decay", "bias", "weight"}
    assert all("norm" in names[id(each)] for each in others if names[id(each)].endswith("weight"))


def test_trainer_lowers_the_loss(tmp_path):
    accelerate = pytest.importorskip("accelerate")  # noqa: F841  what Trainer needs
    pattern = torch.arange(1, 17).repeat(4)
    rows = [{"input_ids": pattern.roll(shift)[:48], "labels": pattern.roll(shift)[:48]} for shift in range(16)]
    model = make("hybrid").train()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=12, per_device_train_batch_size=8, logging_steps=1,
        report_to=[], save_strategy="no", gradient_checkpointing=True, use_cpu=True, disable_tqdm=True,
    )
    optimizer = torch.optim.AdamW(models.parameter_groups(model), lr=1e-2)
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, eval_dataset=rows, optimizers=(optimizer, None)
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 12
    assert losses[-1] < 0.5 * losses[0]
    assert trainer.evaluate()["eval_loss"] < losses[0]
    trainer.save_model(tmp_path / "model")
    assert torch.equal(AutoModel.from_pretrained(tmp_path / "model").lm_head.weight, model.lm_head.weight)


def test_a_new_model_begins_as_its_configuration_says():
    config = models.CombaConfig(**SIZES, head_dim=16, A_init_max=0.5, correction_factor=0.5, learn_correction_factor=False)
    model = AutoModel.from_config(models.CombaConfig.from_dict(config.to_dict()))
    mixer = model.model.layers[0].attn
    assert mixer.A_log.exp().max() <= 0.5 and (mixer.D == 0.5).all()
    model(torch.arange(20)[None]).logits.square().sum().backward()
    assert mixer.D.grad is None


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        ({"num_v_heads": 3}, "num_v_heads must be a multiple of num_heads; got 3 and 4"),
        ({"head_dim": 257}, "head_dim must be from 1 to 256; got 257"),
        ({"expand_v": 0.3}, "must be a whole number up to 256; got 256 \\* 0.3"),
        ({"comba_rule": "x"}, "comba_rule must be splr or iplr; got x"),
        ({"comba_convention": "x"}, "comba_convention must be paper or fla; got x"),
        ({"attn": {"layers": [24], "num_heads": 4}}, "attn.layers must be from 0 to 23; got 24"),
        ({"vocab_size": 0}, "vocab_size must be at least 1; got 0"),
        ({"intermediate_size": -1}, "intermediate_size must not be negative; got -1"),
    ],
)
def test_wrong_configurations_are_named(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        models.CombaConfig(**wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
class TestOnGpu:
    @pytest.mark.parametrize("name", CONFIGS)
    def test_logits_gradients_and_text_are_those_of_the_cpu(self, name):
        ids, model = random_ids(2, 150), make(name)
        model(ids, labels=ids).loss.backward()
        with torch.no_grad():
            logits = model(ids).logits
        gradients = {name: each.grad for name, each in model.named_parameters()}
        on_gpu = make(name).cuda()
        on_gpu(ids.cuda(), labels=ids.cuda()).loss.backward()
        with torch.no_grad():
            assert relative_error(on_gpu(ids.cuda()).logits.cpu(), logits) < 1e-3
        for parameter, each in on_gpu.named_parameters():
            if not parameter.endswith("k_proj.bias"):  # a softmax hides it: its gradient is rounding
                assert relative_error(each.grad.cpu(), gradients[parameter]) < 1e-2, parameter
        text = {"max_new_tokens": 20, "do_sample": False}
        assert torch.equal(on_gpu.generate(ids[:, :30].cuda(), **text), greedy(on_gpu, ids[:, :30].cuda(), 20))

    def test_bf16_trains(self):
        model, ids = make("hybrid").cuda().train(), random_ids(4, 64).cuda()
        optimizer = torch.optim.AdamW(models.parameter_groups(model), lr=1e-2)
        losses = []
        for _ in range(10):
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(ids, labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.7 * losses[0]


def test_wrong_calls_are_named():
    model = make("comba")
    with pytest.raises(ValueError, match="attention_mask must be"):
        model(random_ids(2, 5), attention_mask=torch.ones(2, 4))
    with pytest.raises(ValueError, match="one of input_ids and inputs_embeds"):
        model()
