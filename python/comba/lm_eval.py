"""Comba models in EleutherAI's lm-evaluation-harness, under the name "comba".

    python -m comba.lm_eval run --model comba --model_args pretrained=RUN --tasks lambada_openai

is the harness's own command line with that model in its registry; in Python, importing this module registers it. Text
becomes tokens as in `comba eval`: BOS opens every document and every context, so that the numbers are the same.
"""

import torch
from lm_eval import utils
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from transformers import AutoModelForCausalLM

import comba.models  # noqa: F401  registers the families
from comba.checkpoints import model_directory
from comba.tokenizer import Tokenizer

CHUNK_LENGTH = 2048  # tokens a forward pass; the state goes on from one to the next
IGNORED = -100


@register_model("comba")
class CombaLM(LM):
    """Scores and continues texts. Any length fits: the state is carried through a text.

    Args (the harness's --model_args):
        pretrained: a model directory, or a run of the program.
        dtype: of the weights, e.g. bfloat16; default float32.
        max_length: cut documents into windows of so many tokens, as the harness does for models that need it.
        batch_size, device: the harness's --batch_size and --device.
    """

    def __init__(self, pretrained: str, dtype: str = "float32", device: str | None = None, batch_size: int | str = 1,
                 max_length: int | None = None, max_batch_size: int | None = None):
        super().__init__()
        directory = model_directory(pretrained)
        self.tokenizer = Tokenizer.from_pretrained(directory)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).to(device).eval()
        if self.model.config.vocab_size < self.tokenizer.vocab:
            raise ValueError(f"[comba.lm_eval] the model's vocab_size must be at least the tokenizer's "
                             f"{self.tokenizer.vocab}; got {self.model.config.vocab_size}")
        self._device = torch.device(device)
        self.batch_size = 1 if batch_size == "auto" else int(batch_size)
        self.max_length = None if max_length is None else int(max_length)

    def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        rows = []
        for context, continuation in (request.args for request in requests):
            before = self.tokenizer.encode(context)
            whole = self.tokenizer.encode(context + continuation)
            if whole[: len(before)] == before and len(whole) > len(before):
                ids = whole[len(before) :]
            else:
                ids = self.tokenizer.encode(continuation, starts_document=False)
            rows.append(([self.tokenizer.bos, *before], ids))
        scores = self._score_all(rows)
        for request, score in zip(requests, scores):
            self.cache_hook.add_partial("loglikelihood", request.args, score)
        return scores

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
        rows, owners = [], []
        for number, (text,) in enumerate(request.args for request in requests):
            ids = self.tokenizer.encode(text)
            length = self.max_length or max(len(ids), 1)
            for window in utils.get_rolling_token_windows(ids, self.tokenizer.bos, length, context_len=1):
                rows.append(utils.make_disjoint_window(window))
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, (score, _) in zip(owners, self._score_all(rows)):
            totals[owner] += score
        for request, total in zip(requests, totals):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    @torch.no_grad()
    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        texts = []
        for context, settings in (request.args for request in requests):
            texts.append(self._continue(context, **settings))
            self.cache_hook.add_partial("generate_until", (context, settings), texts[-1])
        return texts

    def _continue(self, context: str, until=(), max_gen_toks: int = 256, do_sample: bool = False,
                  temperature: float = 1.0, **_) -> str:
        """What the model writes after a context, up to the first of the texts in `until`."""
        until = [until] if isinstance(until, str) else [stop for stop in until if stop]
        state = self.model.model.initial_state(1)
        ids = torch.tensor([[self.tokenizer.bos, *self.tokenizer.encode(context)]], device=self._device)
        written, text = [], ""
        for chunk in ids.split(CHUNK_LENGTH, dim=1):
            logits = self._logits(chunk, state, logits_to_keep=1)
        while len(written) < int(max_gen_toks):
            last = logits[0, -1].float()
            if do_sample and temperature > 0:
                token = torch.multinomial((last / temperature).softmax(0), 1).item()
            else:
                token = last.argmax().item()
            if token == self.tokenizer.bos:
                break
            written.append(token)
            text = self.tokenizer.decode(written)
            ends = [text.find(stop) for stop in until if stop in text]
            if ends:
                return text[: min(ends)]
            logits = self._logits(torch.tensor([[token]], device=self._device), state)
        return text

    def _logits(self, ids: torch.Tensor, state, **options) -> torch.Tensor:
        return self.model(ids, past_key_values=state, use_cache=True, **options).logits

    def _score_all(self, rows: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Of each (context, continuation): the log likelihood, and whether every token is the likeliest."""
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row][0]) - len(rows[row][1]))
        scores = [(0.0, True)] * len(rows)
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            for row, score in zip(batch, self._score([rows[row] for row in batch])):
                scores[row] = score
        return scores

    @torch.no_grad()
    def _score(self, rows: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """One batch, padded on the right, where no token sees it."""
        length = max(len(context) + len(continuation) for context, continuation in rows) - 1
        ids = torch.zeros(len(rows), length, dtype=torch.int64)
        labels = torch.full_like(ids, IGNORED)
        for row, (context, continuation) in enumerate(rows):
            tokens = torch.tensor(context + continuation)
            ids[row, : len(tokens) - 1] = tokens[:-1]
            labels[row, len(context) - 1 : len(tokens) - 1] = tokens[len(context) :]
        likelihood = torch.zeros(len(rows), dtype=torch.float64)
        is_likeliest = torch.ones(len(rows), dtype=torch.bool)
        state = self.model.model.initial_state(len(rows))
        for chunk, wanted in zip(ids.split(CHUNK_LENGTH, dim=1), labels.split(CHUNK_LENGTH, dim=1)):
            logits = self._logits(chunk.to(self._device), state)
            log_probabilities = logits.float().log_softmax(-1)
            scored, wanted = wanted != IGNORED, wanted.clamp_min(0)
            of_wanted = log_probabilities.gather(-1, wanted.to(self._device)[..., None])[..., 0].cpu().double()
            likelihood += of_wanted.masked_fill(~scored, 0).sum(1)
            is_likeliest &= ((logits.argmax(-1).cpu() == wanted) | ~scored).all(1)
        return list(zip(likelihood.tolist(), is_likeliest.tolist()))


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
