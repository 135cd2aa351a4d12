"""The calls that benchmarks/peers.py times: shapes, work, and the floor under their time. Needs no torch."""

import dataclasses
import math
import random

CHUNK = 64
CHAIN_SECONDS = 0.35e-6  # of a chunk, in the shortest serial chain measured on an H200 at 1.98 GHz


def uneven_lengths(count: int, total: int, seed: int = 7) -> list[int]:
    """`count` positive lengths, of log-normal shares, whose sum is `total`."""
    draw = random.Random(seed)
    weights = [draw.lognormvariate(0, 1) for _ in range(count)]
    lengths = [max(1, int(total * weight / sum(weights))) for weight in weights]
    lengths[lengths.index(max(lengths))] += total - sum(lengths)
    return lengths


@dataclasses.dataclass(frozen=True)
class Case:
    """A forward call, and with `trains` the gradients of its inputs too. With `sequences` above 1 its T tokens are packed
    sequences of uneven lengths, and B = 1."""

    B: int
    T: int
    H: int
    HV: int
    K: int
    V: int
    sequences: int = 1
    trains: bool = False

    @property
    def name(self) -> str:
        tokens = f"{self.B}x{self.T}" if self.sequences == 1 else f"{self.sequences} sequences of {self.T}"
        return f"{tokens} {self.H}/{self.HV} {self.K}" + ("" if self.K == self.V else f"/{self.V}")

    @property
    def lengths(self) -> list[int]:
        """Of the packed sequences; without packing the one length that each batch row has."""
        return uneven_lengths(self.sequences, self.T)

    @property
    def bytes(self) -> int:
        """q, k and v read once and o written once, in bf16; to train, q, k, v and do read again and dq, dk, dv written."""
        keys, values = self.H * self.K, self.HV * self.V
        return 2 * self.B * self.T * (2 * keys + 2 * values + self.trains * (4 * keys + 3 * values))

    @property
    def footprint(self) -> int:
        """Bytes of different addresses that a call touches."""
        return self.bytes

    @property
    def flop(self) -> int:
        """Of the chunk form: three products with the state, two of [C, C] from K and two into V; and backward, which has
        seven more with states and five more pairs of products of chunks."""
        states, pairs = (20, 14) if self.trains else (6, 4)
        return self.B * self.T * self.HV * (states * self.K * self.V + pairs * CHUNK * (self.K + self.V))

    @property
    def chain_seconds(self) -> float:
        """One sequence cannot be faster: its chunks follow each other; to train, there and back."""
        return (1 + self.trains) * math.ceil(max(self.lengths) / CHUNK) * CHAIN_SECONDS

    def floor_seconds(self, bytes_per_second: float, flop_per_second: float) -> float:
        return max(self.bytes / bytes_per_second, self.flop / flop_per_second, self.chain_seconds)

    def shortened(self, tokens: int) -> "Case":
        """The same batch, heads and dims over at most `tokens` tokens a row; of packed sequences, in all."""
        return dataclasses.replace(self, T=min(self.T, max(tokens, self.sequences)))


@dataclasses.dataclass(frozen=True)
class DecodeCase:
    """A decode_step of T tokens for B sequences; `state` is the dtype of the states."""

    B: int
    T: int = 1
    state: str = "f32"
    H: int = 16
    HV: int = 16
    K: int = 128
    V: int = 128

    @property
    def name(self) -> str:
        return f"B{self.B} T{self.T} {self.H}/{self.HV} {self.K}, {self.state} state"

    @property
    def bytes(self) -> int:
        """The states, read and written."""
        return 2 * self.footprint

    @property
    def footprint(self) -> int:
        """Bytes of the states, which are updated in place."""
        return self.B * self.HV * self.K * self.V * (4 if self.state == "f32" else 2)


CASES = (
    Case(1, 2048, 16, 16, 128, 128),
    Case(1, 8192, 16, 16, 128, 128),
    Case(8, 2048, 16, 16, 128, 128),
    Case(1, 32768, 16, 16, 128, 128),
    Case(4, 8192, 32, 32, 128, 128),
    Case(1, 8192, 16, 64, 128, 128),
    Case(8, 2048, 4, 4, 256, 256),
    Case(16, 2048, 4, 4, 256, 256),
    Case(1, 32768, 16, 16, 128, 128, sequences=24),
    Case(4, 2048, 30, 30, 96, 192),
    Case(8, 2048, 1, 32, 128, 64),
)
# Those of `comba bench claims`.
CLAIM_CASES = tuple(Case(8, T, H, H, D, D) for H, D in ((16, 128), (4, 256)) for T in (1024, 2048, 4096, 8192, 16384))
DECODE_CASES = tuple(DecodeCase(B, T, state) for B in (32, 128) for T, state in ((1, "f32"), (1, "bf16"), (4, "f32")))
RULES = ("comba", "gated_delta")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the results: an operator, its rule and its case."""

    operator: str
    rule: str
    case: Case | DecodeCase

    @property
    def name(self) -> str:
        return f"{self.operator} {self.rule} {self.case.name}"


ROWS = (
    *(Row("forward", rule, case) for case in CASES for rule in RULES),
    *(Row("forward_backward", rule, dataclasses.replace(case, trains=True)) for case in CASES for rule in RULES),
    *(Row("decode_step", "comba", case) for case in DECODE_CASES),
)
CLAIM_ROWS = (
    *(Row("forward", rule, case) for case in CLAIM_CASES for rule in RULES),
    *(Row("forward_backward", rule, dataclasses.replace(case, trains=True)) for case in CLAIM_CASES for rule in RULES),
)
