"""Options of the computed tasks, small enough that training takes a second or two."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "mqar": {"vocab_size": 32, "sequence_length": 16, "pairs": 2},
    "mqar_mixed": {
        "vocab_size": 32,
        "train": "8x1:64 16x2:64",
        "validation": "8x1:16 16x3:16",
        "test": "16x4:8 32x4:8",
    },
    "in_context_recall": {"vocab_size": 8, "sequence_length": 32},
    "noisy_recall": {"vocab_size": 12, "sequence_length": 32, "noise_vocab_size": 4},
    "fuzzy_recall": {"vocab_size": 9, "sequence_length": 32},
    "selective_copy": {"vocab_size": 8, "sequence_length": 24, "tokens_to_copy": 4},
    "compression": {"vocab_size": 4, "sequence_length": 4},
    "memorization": {"vocab_size": 16, "sequence_length": 8},
    "parity": {"max_length": 4},
    "modular_arithmetic": {"max_length": 6, "modulus": 3},
    "group_word_problem": {"sequence_length": 4},
    "copy": {"letters": 4, "min_length": 2, "max_length": 4, "sequence_length": 10, "test_lengths": (4, 8)},
    "induction": {"vocab_size": 4, "sequence_length": 8, "test_lengths": (8, 16)},
    "phonebook": {"entries": 1, "shots": 0, "test_entries": (1, 2)},
    "needle": {"sequence_length": 79, "distractors": 0, "test_depths": (0.5,), "test_lengths": (79, 90)},
    "just_read_twice": {
        "recall": "induction",
        "options": {"vocab_size": 4, "sequence_length": 8, "test_lengths": (8,)},
    },
}
