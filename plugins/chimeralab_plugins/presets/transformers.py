"""Attention throughout: GPT-2 to Gemma."""

from __future__ import annotations

from chimeralab import Preset

UNTIED = {"tie_embeddings": False}
GEMMA = "attention[heads=4, kv_heads=1, head_dim=256, window=512, qk_norm=true]"
GEMMA_FULL = "attention[heads=4, kv_heads=1, head_dim=256, rope_theta=1000000.0, qk_norm=true]"

PRESETS = (
    Preset("transformer", "attention x6", "Llama-style transformer", "arXiv 2302.13971"),
    Preset(
        "gpt2-124m",
        "attention[bias=true, rope=false] x12, ffn=mlp",
        "GPT-2, without its position embeddings",
        "openai-community/gpt2",
        {"d_model": 768},
    ),
    Preset(
        "smollm-135m",
        "attention[heads=9, kv_heads=3] x30, ffn=swiglu[hidden=1536]",
        "Llama-style, deep and narrow",
        "HuggingFaceTB/SmolLM-135M",
        {"d_model": 576},
    ),
    Preset(
        "smollm-360m",
        "attention[heads=15, kv_heads=5] x32, ffn=swiglu[hidden=2560]",
        "Llama-style, deep and narrow",
        "HuggingFaceTB/SmolLM-360M",
        {"d_model": 960},
    ),
    Preset(
        "tinyllama-1b",
        "attention[heads=32, kv_heads=4] x22, ffn=swiglu[hidden=5632]",
        "Llama-style with grouped queries",
        "TinyLlama/TinyLlama-1.1B, arXiv 2401.02385",
        {"d_model": 2048, **UNTIED},
    ),
    Preset("mistral", "attention[window=128] x6", "Sliding-window transformer", "arXiv 2310.06825"),
    Preset(
        "mistral-7b",
        "attention[heads=32, kv_heads=8, window=4096] x32, ffn=swiglu[hidden=14336]",
        "Sliding-window transformer",
        "mistralai/Mistral-7B-v0.1, arXiv 2310.06825",
        {"d_model": 4096, **UNTIED},
    ),
    Preset(
        "gemma",
        "every(6, attention[qk_norm=true], base=attention[window=128, qk_norm=true]) x6",
        "Five sliding windows to one full attention",
        "Gemma 3, arXiv 2503.19786, with SwiGLU for GeGLU",
    ),
    Preset(
        "gemma3-1b",
        f"every(6, {GEMMA_FULL}, base={GEMMA}, truncate=true) x26, ffn=swiglu[hidden=6912]",
        "Five sliding windows to one full attention",
        "google/gemma-3-1b-pt, arXiv 2503.19786, with SwiGLU for GeGLU",
        {"d_model": 1152},
    ),
)
