"""Language modelling on text: the standard library's source, or the user's own files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor

from chimeralab.contracts import IGNORE, Batch, Evaluation, Task, TaskConfig
from chimeralab.contracts.task import TOKENS, Split
from chimeralab.errors import DataError, SpecError
from chimeralab_plugins.tasks import draws
from chimeralab_plugins.tasks.corpus import STDLIB, Corpus, split_of
from chimeralab_plugins.tasks.hub import HUB, HubCorpus
from chimeralab_plugins.tasks.prepared import write_once
from chimeralab_plugins.tasks.token_store import SplitWriter, TokenStore, id_type, write_facts
from chimeralab_plugins.tasks.tokenizer import Bpe, Bytes, Characters, Tokenizer

FORMAT = 1  # of what `prepare` leaves; raise it when the same options would give other tokens
BPE_SAMPLE = 32 << 20  # bytes of the train split that BPE is trained on
LEARNED = "tokenizer.json"  # where a tokenizer that the text decides is kept
_GROUP = 8 << 20  # bytes of text that are tokenised at once


class TextConfig(TaskConfig):
    source: str = Field(
        STDLIB, description="stdlib (source text of Python's own library), a file, a folder, or hf:owner/name"
    )
    column: str = Field("text", description="Column of a dataset, .parquet or .jsonl that holds the text")
    tokenizer: Literal["bytes", "characters", "bpe"] = Field(
        "bytes", description="Bytes, the text's characters, or BPE trained on the train split"
    )
    vocab_size: int = Field(4096, ge=2, le=1_000_000, description="Ids for characters or BPE; bytes are 256")
    sequence_length: int = Field(256, ge=1, le=1_048_576, description="Tokens in a sequence")
    mask: float = Field(0.0, ge=0, lt=1, description="Share of tokens hidden and guessed; 0: predict the next token")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="Share of the text to validate on")
    split_seed: int = Field(0, ge=0, description="Chooses which documents are validated on")
    validation_tokens: int = Field(65_536, ge=1, description="Tokens to validate on, and as many others to test on")
    max_bytes: int | None = Field(None, ge=1, description="Read at most so much text; empty: all")
    train_tokens: int | None = Field(None, ge=2, description="Train on the first so many tokens alone; empty: on all")

    @field_validator("source")
    @classmethod
    def _absolute(cls, source: str) -> str:
        # A run may be carried out in another folder than it was written in.
        return source if source == STDLIB or source.startswith(HUB) else str(Path(source).expanduser().absolute())


class Text(Task):
    """Next-token prediction on windows of text, or with `mask` the guessing of hidden tokens; reports bits per byte.

    Bits per byte are exact: the loss of all counted targets in bits, over the bytes that these targets stand for.
    So they compare across tokenizers. Documents are joined by a NUL byte, which counts as a byte like any other.

    The split is by document, drawn from its name. Where that would leave a split with less than half or more than
    twice its share (few documents, or one), each document is cut instead and its end is validated on.

    A dataset of the Hugging Face hub keeps its own split where it has one named validation; its test split is not read.

    Training draws windows at random places. Validation takes non-overlapping windows, spread evenly over its split
    until `validation_tokens` are covered, the same for every seed and rank. The test takes as many windows of what is
    held out that validation leaves over, also spread; where it leaves none (a small text), there is no test. So they
    share documents, and no token. The test is measured by position in the window too.

    With `mask`, each token is replaced with that probability, and one at least in every sequence, by an id of its
    own past the tokenizer's: the one task here for mixers that see the future. It always hides all that it asks for,
    unlike BERT (arXiv 1810.04805), which leaves a tenth as it is.
    """

    name = "text"
    title = "Text"
    summary = "Predict the next byte, character or BPE token of your text"
    Config = TextConfig
    config: TextConfig
    metric = "bits_per_byte"
    by_position = True
    has_text = True

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
        self._corpus = (
            HubCorpus(config.source, config.column, config.max_bytes, config.validation_fraction)
            if config.source.startswith(HUB)
            else Corpus(config.source, config.column, config.max_bytes)
        )
        self._prepared: tuple[TokenStore, Tokenizer, Tensor] | None = None
        self._digest = ""  # of a tokenizer that was learned

    def check(self) -> None:
        if self.config.tokenizer == "bpe" and self.config.vocab_size < 257:
            raise SpecError(
                f"BPE has an id for each of 256 bytes and for more, and {self.config.vocab_size} are asked for",
                place="task.options.vocab_size",
                remedy="Give 257 or more, or tokenizer=bytes",
            )
        windows = 2 * (self.sequence_length + 1) if self.config.tokenizer == "bytes" else 2
        if self.config.max_bytes is not None and self.config.max_bytes < windows:
            raise SpecError(
                f"{self.config.max_bytes} bytes are fewer than two windows need ({windows})",
                place="task.options.max_bytes",
                remedy="Raise max_bytes or lower sequence_length",
            )
        if self.config.train_tokens is not None and self.config.train_tokens <= self.sequence_length:
            raise SpecError(
                f"{self.config.train_tokens} tokens hold no window of {self.sequence_length} and its next token",
                place="task.options.train_tokens",
                remedy=f"Take {self.sequence_length + 1} at least",
            )
        self._corpus.check(windows)

    def prepare(self, cache: Path, report: Callable[[str], None] = lambda _: None) -> None:
        """Tokenise into `cache/text/<key>` unless it is there. The key covers the files' names, sizes and times.

        Raises:
            DataError: the source is missing, unreadable or too short for one window in each split.
        """
        self.check()
        folder = cache / "text" / self._key()
        write_once(folder, lambda draft: self._tokenise(draft, report))
        store = TokenStore(folder)
        for split, facts in store.facts.items():
            if facts.tokens <= self.sequence_length:
                raise DataError(
                    f"the {split} split has {facts.tokens} tokens, fewer than a window of "
                    f"{self.sequence_length} and its next token",
                    place="task.options.sequence_length",
                    remedy=f"Lower it to {max(facts.tokens - 1, 1)} at most, or add text",
                )
        tokenizer = self._tokenizer(folder)
        # Ids that BPE did not learn stand for no text; the table still covers all that a model can score.
        lengths = torch.zeros(self.vocab_size, dtype=torch.float64)
        learned = tokenizer.byte_lengths()
        lengths[: len(learned)] = torch.from_numpy(learned)
        self._prepared = store, tokenizer, lengths
        learned_file = folder / LEARNED
        if learned_file.exists():
            self._digest = hashlib.blake2b(learned_file.read_bytes(), digest_size=12).hexdigest()

    @property
    def vocab_size(self) -> int:
        return self._mask_id + (self.config.mask > 0)

    @property
    def _mask_id(self) -> int:
        return 256 if self.config.tokenizer == "bytes" else self.config.vocab_size

    @property
    def causal(self) -> bool:
        return self.config.mask == 0

    @property
    def sequence_length(self) -> int:
        return self.config.sequence_length

    @property
    def splits(self) -> tuple[Split, ...]:
        """Before `prepare` it is not known whether there is a test."""
        tested = self._prepared is None or len(self._starts("test")) > 0
        return ("train", "validation", "test") if tested else ("train", "validation")

    def batch(self, split: Split, step: int, size: int, *, seed: int = 0, rank: int = 0) -> Batch:
        """Validation and test start over after `evaluation_steps`; rows past the last window count nothing."""
        store, T = self._ready()[0], self.sequence_length
        if split == "train":
            places = min(len(store["train"]), self.config.train_tokens or len(store["train"])) - T
            stream, rows = draws.key("text", seed, split, step, rank), np.arange(size)
            starts = draws.below(draws.bits(stream, rows), places)
        else:
            every = self._starts(split)
            if not len(every):
                raise SpecError(
                    "validation takes all of the text that is held out",
                    place="task.options.validation_tokens",
                    remedy="Lower it, and what it leaves is tested on",
                )
            stream, rows = draws.key("text", split), step % self.evaluation_steps(size, split) * size + np.arange(size)
            starts = every[np.minimum(rows, len(every) - 1)]
        window = torch.from_numpy(store.windows("train" if split == "train" else "validation", starts, T + 1))
        inputs, targets = window[:, :-1].contiguous(), window[:, 1:].contiguous()
        if self.config.mask:
            inputs, targets = self._hide(inputs, draws.key("text mask", stream), rows)
        if split != "train":
            targets[torch.from_numpy(rows >= len(every))] = IGNORE
        return Batch(inputs, targets)

    def _hide(self, tokens: Tensor, stream: int, rows: NDArray) -> tuple[Tensor, Tensor]:  # tokens: B T, rows: B
        T = self.sequence_length
        chances = draws.unit(draws.bits(stream, rows[:, None] * T + np.arange(T)))
        hidden = torch.from_numpy((chances < self.config.mask) | (chances == chances.min(1, keepdims=True)))
        return tokens.masked_fill(hidden, self._mask_id), tokens.masked_fill(~hidden, IGNORE)

    def evaluation_steps(self, size: int, split: Split = "validation") -> int:
        return math.ceil(len(self._starts(split)) / size)

    def measure(self, logits: Tensor, batch: Batch) -> Evaluation:  # logits: B T V
        total = super().measure(logits, batch)
        lengths = self._ready()[2]
        counted = batch.targets[batch.targets != IGNORE].cpu()
        total.sums["bytes"] = float(lengths[counted].sum())
        return total

    def metrics(self, total: Evaluation) -> dict[str, float]:
        bits = total.loss / math.log(2)
        return {**super().metrics(total), "bits_per_byte": bits / max(total.sums.get("bytes", 0.0), 1.0)}

    def chance(self) -> dict[str, float]:
        """What the validation split's own token frequencies give; before `prepare`, a uniform guess of bytes."""
        if self._prepared is None:
            uniform = {"bits_per_byte": 8.0, "loss": math.log(256), "accuracy": 1 / 256}
            return uniform if self.config.tokenizer == "bytes" else {}
        facts = self._prepared[0].facts["validation"]
        loss = facts.unigram_bits_per_byte * math.log(2) * facts.bytes / facts.tokens
        return {
            "bits_per_byte": facts.unigram_bits_per_byte,
            "loss": loss,
            "accuracy": facts.most_common,
        }

    def prompts(self) -> list[Tensor]:
        """Three pieces of the validation split, of 64 tokens at most; hidden tokens are not continued."""
        if self.config.mask:
            return []
        store, starts = self._ready()[0], self._starts("validation")
        chosen = starts[np.unique(np.linspace(0, len(starts) - 1, 3, dtype=np.int64))]
        return list(torch.from_numpy(store.windows("validation", chosen, min(64, self.sequence_length))))

    @property
    def separator(self) -> int:
        return int(next(self._ready()[1].encode([b""]))[0])

    def encode(self, text: str) -> Tensor:
        tokenizer = self._ready()[1]
        tokens = next(tokenizer.encode([text.encode()]))[:-1].astype(np.int64)
        if tokenizer.decode(tokens) != text:
            raise SpecError(
                "the text has characters that the tokenizer does not know",
                place=f"{text[:40]!r}",
                remedy="Train with tokenizer=bytes or bpe, which know all",
            )
        return torch.from_numpy(tokens)

    def decode(self, tokens: Tensor) -> str:
        return self._ready()[1].decode(tokens.detach().cpu().numpy())

    def describe(self) -> dict[str, Any]:
        store = self._ready()[0]
        facts: dict[str, Any] = dict(store.notes)
        if self._digest:
            facts[TOKENS] = self._digest
        for split, numbers in store.facts.items():
            facts[f"{split} documents"] = numbers.documents
            facts[f"{split} tokens"] = numbers.tokens
            facts[f"{split} bytes"] = numbers.bytes
        facts["unigram bits per byte"] = store.facts["validation"].unigram_bits_per_byte
        return facts

    def _ready(self) -> tuple[TokenStore, Tokenizer, Tensor]:
        if self._prepared is None:
            raise RuntimeError("call prepare(cache) before asking the text task for data")
        return self._prepared

    def _starts(self, split: Split) -> NDArray[np.int64]:
        """Where the windows begin that validation takes, or the test of those that it leaves."""
        slots = np.arange((len(self._ready()[0]["validation"]) - 1) // self.sequence_length)
        chosen = self._spread(slots)
        if split == "test":
            chosen = self._spread(np.setdiff1d(slots, chosen, assume_unique=True))
        return chosen * self.sequence_length

    def _spread(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """So many of the slots as `validation_tokens` says, evenly spread over all of them."""
        wanted = min(len(slots), max(1, self.config.validation_tokens // self.sequence_length))
        return slots[np.arange(wanted) * len(slots) // max(wanted, 1)]

    def _key(self) -> str:
        c = self.config
        options = c.model_dump(exclude={"sequence_length", "validation_tokens", "mask", "train_tokens"})
        facts = (FORMAT, sorted(options.items()), self._corpus.title, self._corpus.identity())
        return hashlib.blake2b(repr(facts).encode(), digest_size=12).hexdigest()

    def _split(self, cut: bool) -> Iterator[tuple[Literal["train", "validation"], bytes]]:
        c = self.config
        return split_of(self._corpus.documents(), c.validation_fraction, c.split_seed, cut)

    def _tokenizer(self, folder: Path) -> Tokenizer:
        learned = {"characters": Characters, "bpe": Bpe}.get(self.config.tokenizer)
        return Bytes() if learned is None else learned(folder / LEARNED)

    def _tokenise(self, folder: Path, report: Callable[[str], None]) -> None:
        report(f"Reading {self._corpus.title}")
        sizes = {"train": 0, "validation": 0}
        for split, data in self._split(cut=False):
            sizes[split] += len(data)
        if not any(sizes.values()):
            raise DataError("the corpus is empty", place="task.options.source", remedy="Give other files")
        share = self.config.validation_fraction
        held_out = sizes["validation"] / sum(sizes.values())
        cut = not (share / 2 <= held_out <= 2 * share and held_out < 1) and not self._corpus.cut_by_itself

        if self.config.tokenizer == "bpe":
            report(f"Learning {self.config.vocab_size} BPE tokens")
            Bpe.train(self._training_text(cut), self.config.vocab_size, folder / LEARNED)
        elif self.config.tokenizer == "characters":
            found = Characters.learn((document.data for document in self._corpus.documents()), folder / LEARNED)
            if found > self.config.vocab_size:
                raise DataError(
                    f"the text has {found} characters, its end included, and vocab_size is {self.config.vocab_size}",
                    place="task.options.vocab_size",
                    remedy=f"Raise it to {found}, or take bytes or BPE",
                )
        tokenizer = self._tokenizer(folder)
        lengths, dtype = tokenizer.byte_lengths(), id_type(self._mask_id)
        writers = {name: SplitWriter(folder / f"{name}.bin", lengths, dtype) for name in sizes}
        done, total = 0, sum(sizes.values())
        for group in _grouped(self._split(cut)):
            for (split, _), tokens in zip(group, tokenizer.encode([data for _, data in group]), strict=True):
                writers[split].append(tokens)
            done += sum(len(data) for _, data in group)
            report(f"Tokenised {done / 1e6:.3g} of {total / 1e6:.3g} MB")
        facts = {name: writer.close() for name, writer in writers.items()}
        notes = {
            "source": self._corpus.title,
            "tokenizer": self.config.tokenizer,
            "split": "end of each document" if cut else "by document",
        }
        write_facts(folder, dtype, facts, notes)

    def _training_text(self, cut: bool) -> Iterator[bytes]:
        left = BPE_SAMPLE
        for split, data in self._split(cut):
            if split == "train":
                yield data[:left]
                left -= len(data)
            if left <= 0:
                return


def _grouped(parts: Iterator[tuple[Any, bytes]]) -> Iterator[list[tuple[Any, bytes]]]:
    """Several documents at once, so that a tokenizer can work on them side by side."""
    group: list[tuple[Any, bytes]] = []
    held = 0
    for part in parts:
        group.append(part)
        held += len(part[1])
        if held >= _GROUP:
            yield group
            group, held = [], 0
    if group:
        yield group
