"""Checkpoints go from the program to Python and back without losing a bit, and both compute the same with them."""

import base64
import json
import pathlib

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file

from apps.program import Program
from apps.small_run import train_small_run
from comba.checkpoints import model_directory
from comba.tokenizer import Tokenizer
from python.small_models import CONFIGS, FIXTURES, make, random_ids, relative_error

AutoModel = transformers.AutoModelForCausalLM


@pytest.fixture
def comba(comba_program, tmp_path) -> Program:
    return Program(comba_program, tmp_path)


def assert_same_bits(one: pathlib.Path, other: pathlib.Path) -> None:
    """The same tensors by name, dtype, shape and bytes."""
    one, other = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        same = tensor.dtype == other[name].dtype and tensor.shape == other[name].shape
        assert same and torch.equal(tensor.view(torch.uint8), other[name].view(torch.uint8)), name


def logits_of_program(comba: Program, model: pathlib.Path, ids: torch.Tensor) -> torch.Tensor:
    save_file({"input_ids": ids}, comba.folder / "ids.safetensors")
    comba.succeed("logits", "--model", model, "--input", "ids.safetensors", "--out", "logits.safetensors")
    return load_file(comba.folder / "logits.safetensors")["logits"]


@pytest.mark.parametrize("name", CONFIGS)
def test_what_python_saves_the_program_reads(comba, name):
    model, ids = make(name), random_ids(2, 70)
    model.save_pretrained(comba.folder / "saved")
    with torch.no_grad():
        logits = model(ids).logits
    assert relative_error(logits_of_program(comba, comba.folder / "saved", ids), logits) < 2e-5


def test_a_trained_model_goes_to_python_and_back(comba):
    train_small_run(comba)
    trained, saved = model_directory(comba.folder / "run"), comba.folder / "saved"
    assert trained.name == "checkpoint-000060"
    model = AutoModel.from_pretrained(trained)
    assert model.dtype == torch.float32 and model.config.comba_convention == "paper"
    model.save_pretrained(saved)
    Tokenizer.from_pretrained(trained).save_pretrained(saved)
    assert_same_bits(trained, saved)

    ids = torch.tensor([[256, *b"The text of a.txt. The text of b.txt."]])
    with torch.no_grad():
        logits = model.eval()(ids).logits
    of_program = logits_of_program(comba, trained, ids)
    assert relative_error(logits, of_program) < 2e-5
    assert torch.equal(of_program, logits_of_program(comba, saved, ids))
    text = ("generate", "--prompt", "The text", "--max-tokens", 20, "--temperature", 0, "--model")
    assert comba.succeed(*text, "run") == comba.succeed(*text, saved)

    # The program trains on from what Python saved, and Python reads that again.
    comba.succeed("train", "--config", "run.toml", "--data", "data", "--out", "more", "--init", saved, "--set", "train.steps=2")
    more = AutoModel.from_pretrained(model_directory(comba.folder / "more"))
    assert not torch.equal(more.lm_head.weight, model.lm_head.weight)


def test_weights_in_16_bit_and_in_shards_are_exchanged(comba):
    model, folder = make("hybrid").bfloat16(), comba.folder / "shards"
    model.save_pretrained(folder, max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").exists()
    ids = random_ids(1, 30)
    with torch.no_grad():
        logits = model.float()(ids).logits
    assert relative_error(logits_of_program(comba, folder, ids), logits) < 2e-5


def test_a_checkpoint_of_flash_linear_attention_passes_through_python(comba):
    reference, saved = FIXTURES / "model_comba_hybrid", comba.folder / "saved"
    AutoModel.from_pretrained(reference).save_pretrained(saved)
    assert_same_bits(reference, saved)
    io = load_file(reference / "io.safetensors")
    assert relative_error(logits_of_program(comba, saved, io["input_ids"]), io["logits"]) < 2e-5


def test_where_a_model_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold a config.json, or be a run"):
        model_directory(tmp_path)
    for step in ("000009", "000010", "1000000"):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "config.json").write_text("{}")
    assert model_directory(tmp_path).name == "checkpoint-1000000"


@pytest.mark.parametrize("name", ["unigram", "bpe", "prefix_bpe", "nfkc"])
def test_a_sentencepiece_model_gives_the_ids_it_gives_the_program(name):
    pytest.importorskip("sentencepiece")
    folder = FIXTURES.parents[1] / "data" / "fixtures"
    model = base64.b64encode((folder / f"{name}.model").read_bytes()).decode()
    tokenizer = Tokenizer({"type": "sentencepiece", "model": model})
    for text, ids, decoded in json.loads((folder / f"{name}.json").read_text()):
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == decoded
    # Within a document a space is a space, and none is put before.
    within = tokenizer.encode("the", starts_document=False) + tokenizer.encode(" state", starts_document=False)
    assert tokenizer._kind.first.decode([*tokenizer.encode("a"), *within]).endswith("athe state")


def test_a_tokenizer_json_beside_a_model(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    tool = tokenizers.Tokenizer(tokenizers.models.BPE())
    tool.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tool.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>"], show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tool.train_from_iterator(["the state decays and the state is corrected"] * 4, trainer)
    tool.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text("{}")
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    text = "the state: état"
    assert (tokenizer.bos, tokenizer.vocab) == (0, tool.get_vocab_size())
    assert tokenizer.encode(text) == tool.encode(text).ids
    assert tokenizer.decode([0, *tokenizer.encode(text)]) == text
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert Tokenizer.from_pretrained(tmp_path).encode(text) == tool.encode(text).ids
    (tmp_path / "comba_tokenizer.json").unlink()
    with pytest.raises(ValueError, match="must be a tokenizer.json"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="it has neither"):
        Tokenizer.from_pretrained(tmp_path)


def test_bytes_are_their_own_ids():
    bytes_ = Tokenizer({"type": "bytes"})
    assert (bytes_.vocab, bytes_.bos) == (257, 256)
    assert bytes_.encode("aé") == [97, 195, 169]
    assert bytes_.decode([256, 97, 195, 169, 260, 255]) == "aé\ufffd"
    with pytest.raises(ValueError, match="type must be bytes, sentencepiece, table; got 'x'"):
        Tokenizer({"type": "x"})
