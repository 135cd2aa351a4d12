"""comba mqar --dump and comba task --dump: the data are those of their definitions, computed here with numpy."""

import numpy
import pytest
import torch
from safetensors.numpy import load_file

SEED = 123


def segment_seeds(num_train: int, num_test: int) -> tuple[list[int], list[int]]:
    """Zoology draws them all before the first segment: of training from the lower, of tests from the upper half."""
    random = numpy.random.RandomState(SEED)
    train = random.randint(0, 2**31, size=num_train)
    return train.tolist(), random.randint(2**31, 2**32, size=num_test).tolist()


def fill(inputs: numpy.ndarray, vocab: int, generator: torch.Generator) -> None:
    """torch.randint over the whole segment, of which the places of token 0 are taken."""
    random = torch.randint(vocab, inputs.shape, generator=generator).numpy()
    inputs[inputs == 0] = random[inputs == 0]


def mqar(length: int, pairs: int, examples: int, vocab: int, seed: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Multi-query associative recall by its definition (arXiv 2312.04927, appendix; numpy's global generator)."""
    random = numpy.random.RandomState(seed)
    draw = lambda pool: numpy.stack([random.choice(pool, replace=False, size=pairs) for _ in range(examples)])
    keys = draw(numpy.arange(1, vocab // 2))
    values = draw(numpy.arange(vocab // 2, vocab))
    space = (length - 2 * pairs) // 2
    p = 0.01 * numpy.arange(1, space + 1) ** (0.01 - 1)
    p = p / p.sum()
    gaps = numpy.stack([random.choice(numpy.arange(space), replace=False, p=p, size=pairs) for _ in range(examples)])

    inputs = numpy.zeros((examples, length), dtype=numpy.int64)
    labels = numpy.full((examples, length), -100, dtype=numpy.int64)
    inputs[:, 0 : 2 * pairs : 2] = keys
    inputs[:, 1 : 2 * pairs : 2] = values
    queries = 2 * pairs + 2 * gaps
    numpy.put_along_axis(inputs, queries, keys, axis=1)
    numpy.put_along_axis(labels, queries, values, axis=1)
    return inputs, labels


def dumped(comba, *arguments) -> dict[str, numpy.ndarray]:
    comba.succeed(*arguments, "--dump", "data.safetensors")
    return load_file(comba.folder / "data.safetensors")


def as_flag(segments) -> str:
    return ",".join("x".join(map(str, segment)) for segment in segments)


@pytest.mark.parametrize(
    "setting, vocab, train, test",
    [
        ("small", 80, [(64, 16, 300), (16, 4, 70)], [(32, 8, 50), (64, 1, 20)]),  # every gap is drawn: 4 pairs in 16
        ("mixture", 80, [(64, 16, 40), (32, 2, 30)], [(64, 5, 20), (16, 4, 10)]),
        ("mixture", 8192, [(64, 4, 20), (256, 64, 10)], [(1024, 256, 4)]),
    ],
)
def test_mqar_is_that_of_its_definition(comba, setting, vocab, train, test):
    tensors = dumped(comba, "mqar", "--setting", setting, "--vocab", vocab, "--train", as_flag(train), "--test", as_flag(test))
    train_seeds, test_seeds = segment_seeds(len(train), len(test))
    generator = torch.Generator().manual_seed(SEED)
    seen = set()
    for part, segments, seeds in (("train", train, train_seeds), ("test", test, test_seeds)):
        for i, (segment, seed) in enumerate(zip(segments, seeds)):
            inputs, labels = mqar(*segment, vocab, seed)
            if setting == "mixture":
                fill(inputs, vocab, generator)
            name = f"{setting}.{part}.{i}"
            numpy.testing.assert_array_equal(tensors[f"{name}.inputs"], inputs)
            numpy.testing.assert_array_equal(tensors[f"{name}.labels"], labels)
            seen |= {f"{name}.inputs", f"{name}.labels"}
    assert set(tensors) == seen


def test_the_data_sets_of_a_setting_are_picked_by_name(comba):
    tensors = dumped(comba, "mqar", "--setting", "figure2", "--data-sets", "64x4", "--train", "64x4x10", "--test", "64x4x10")
    assert set(tensors) == {f"64x4.{part}.0.{kind}" for part in ("train", "test") for kind in ("inputs", "labels")}
    inputs, labels = mqar(64, 4, 10, 8192, segment_seeds(1, 1)[1][0])
    numpy.testing.assert_array_equal(tensors["64x4.test.0.inputs"], inputs)
    numpy.testing.assert_array_equal(tensors["64x4.test.0.labels"], labels)
    told = comba.fail(2, "mqar", "--setting", "figure2", "--data-sets", "64x5", "--dump", "x")
    assert "has no data set '64x5'; the nearest is '64x4'" in told


def permutations() -> list[tuple[int, int, int]]:
    return [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]


def products(inputs: numpy.ndarray) -> numpy.ndarray:
    """Of the permutations up to each token, the first one applied first."""
    labels = numpy.empty_like(inputs)
    for row, tokens in enumerate(inputs):
        things = (0, 1, 2)  # where each thing is
        for t, token in enumerate(tokens):
            things = tuple(permutations()[token][place] for place in things)
            labels[row, t] = permutations().index(things)
    return labels


@pytest.mark.parametrize(
    "task, vocab, labels_of",
    [
        ("parity", 2, lambda inputs: numpy.bitwise_xor.accumulate(inputs, axis=1)),
        ("modular-addition", 5, lambda inputs: numpy.cumsum(inputs, axis=1) % 5),
        ("modular-addition", 7, lambda inputs: numpy.cumsum(inputs, axis=1) % 7),
        ("s3", 6, products),
    ],
)
def test_states_are_those_of_their_group(comba, task, vocab, labels_of):
    flags = ("--vocab", vocab) if task == "modular-addition" else ()
    tensors = dumped(comba, "task", task, *flags, "--train", "9x20,12x3", "--test", "30x5")
    train_seeds, test_seeds = segment_seeds(2, 1)
    segments = {"train.0": (9, 20, train_seeds[0]), "train.1": (12, 3, train_seeds[1]), "test.0": (30, 5, test_seeds[0])}
    assert len(tensors) == 6
    for name, (length, examples, seed) in segments.items():
        inputs = numpy.random.RandomState(seed).randint(0, vocab, (examples, length))
        numpy.testing.assert_array_equal(tensors[f"{task}.{name}.inputs"], inputs)
        numpy.testing.assert_array_equal(tensors[f"{task}.{name}.labels"], labels_of(inputs))


def test_selective_copying_repeats_the_tokens_in_order(comba):
    tensors = dumped(comba, "task", "selective-copy", "--vocab", 11, "--train", "20x4x30", "--test", "50x3x5")
    train_seeds, test_seeds = segment_seeds(1, 1)
    for name, length, items, seed in (("train", 20, 4, train_seeds[0]), ("test", 50, 3, test_seeds[0])):
        inputs, labels = (tensors[f"selective-copy.{name}.0.{kind}"] for kind in ("inputs", "labels"))
        random = numpy.random.RandomState(seed)
        for row_inputs, row_labels in zip(inputs, labels):
            expected = numpy.full(length, 11)
            expected[-items:] = 12
            tokens = [random.randint(0, 11) for _ in range(items)]
            expected[numpy.sort(random.choice(length - items, items, replace=False))] = tokens
            numpy.testing.assert_array_equal(row_inputs, expected)
            numpy.testing.assert_array_equal(row_labels, [-100] * (length - items) + tokens)


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["mqar", "--train", "64x17x10"], "17 pairs and as many queries must fit into the length, at two tokens each; got 64"),
        (["mqar", "--train", "63x4x10"], "the length must be even; got 63"),
        (["mqar", "--vocab", "64"], "the vocabulary must be larger than the length; got 64 and 64"),
        (["mqar", "--train", "64x4"], "must be LENGTHxITEMSxEXAMPLES, like 64x4x1000; got '64x4'"),
        (["task", "s3", "--train", "64x4x10"], "must be LENGTHxEXAMPLES, like 64x1000; got '64x4x10'"),
        (["task", "s3", "--train", "0x10"], "a segment's numbers must be positive; got length 0"),
        (["task", "parity", "--vocab", "3"], "the vocabulary of parity must be 2; got 3"),
        (["task", "selective-copy", "--train", "9x5x10"], "5 tokens and as many marks must fit into the length; got 9"),
        (["mqar", "--setting", "big"], "big not in {small,mixture,figure2}"),
    ],
)
def test_data_that_cannot_be_are_refused(comba, arguments, complaint):
    assert complaint in comba.fail(2, *arguments, "--dump", "data.safetensors")
    assert not (comba.folder / "data.safetensors").exists()
