"""ViT over patches agrees with transformers' ViTForImageClassification, less the class token."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from peers import require_close, rescale
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

from chimeralab.contracts import Classifier
from chimeralab.stack.build import build
from chimeralab.stack.compose import compose
from chimeralab.stack.cost import cost
from chimeralab_plugins.tasks import patches

pytestmark = pytest.mark.parity

SIDE, PATCH, CLASSES = 8, 2, 5
EXACT = 1e-10
PARTS = {
    "mixer_norm": "layernorm_before",
    "mixer.q": "attention.q_proj",
    "mixer.k": "attention.k_proj",
    "mixer.v": "attention.v_proj",
    "mixer.o": "attention.o_proj",
    "ffn_norm": "layernorm_after",
    "ffn.up": "mlp.fc1",
    "ffn.down": "mlp.fc2",
}
ENDS = {"norm": "vit.layernorm", "readout.scores": "classifier"}


def config_of(width: int, layers: int, heads: int, **fields: int) -> ViTConfig:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return ViTConfig(**sizes, intermediate_size=4 * width, layer_norm_eps=1e-6, **fields)


def theirs_of(name: str) -> str:
    if name.startswith("layers."):
        _, index, rest = name.split(".", 2)
        part, kind = rest.rsplit(".", 1)
        return f"vit.layers.{index}.{PARTS[part]}.{kind}"
    part, kind = name.rsplit(".", 1)
    return f"{ENDS[part]}.{kind}"


def without_class_token(model: ViTForImageClassification, pixels: Tensor) -> Tensor:  # B C H W
    h = model.vit.embeddings.patch_embeddings(pixels) + model.vit.embeddings.position_embeddings[:, 1:]
    for layer in model.vit.layers:
        h = layer(h)
    return model.classifier(model.vit.layernorm(h).mean(1))


def test_logits_and_gradients_agree() -> None:
    config = config_of(16, 2, 2, image_size=SIDE, patch_size=PATCH, num_channels=3, num_labels=CLASSES)
    theirs = ViTForImageClassification(config).double().eval()
    rescale(theirs)
    T = (SIDE // PATCH) ** 2
    stack = compose(
        "bidirectional_attention[heads=2, rope=false, bias=true] x2, ffn=mlp[activation=gelu]",
        d_model=16,
        norm="layer",
        norm_eps=1e-6,
        positions=T,
    )
    ends = {"input_features": 3 * PATCH**2, "readout": partial(Classifier, classes=CLASSES)}
    ours = build(stack, 0, dtype=torch.float64, **ends)
    source, projection = dict(theirs.named_parameters()), theirs.vit.embeddings.patch_embeddings.projection
    with torch.no_grad():
        ours.embedding.weight.copy_(projection.weight.permute(0, 2, 3, 1).flatten(1))  # ours: rows, columns, colours
        ours.embedding.bias.copy_(projection.bias)
        ours.positions.weight.copy_(source["vit.embeddings.position_embeddings"][0, 1:])
        for name, parameter in ours.named_parameters():
            if not name.startswith(("embedding.", "positions.")):
                parameter.copy_(source[theirs_of(name)])
    pixels = torch.randn(3, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows = torch.from_numpy(patches.cut(pixels.permute(0, 2, 3, 1).numpy(), PATCH, "rows"))
    found, wanted = ours(rows)[0], without_class_token(theirs, pixels)
    require_close(found, wanted, "logits", EXACT)
    found.square().sum().backward()
    wanted.square().sum().backward()
    for name, parameter in ours.named_parameters():
        if name.endswith("k.bias"):
            assert parameter.grad.abs().max() < 1e-10  # it adds the same to all scores of a query
        elif not name.startswith(("embedding.", "positions.")):
            require_close(parameter.grad, source[theirs_of(name)].grad, name, 1e-8)
    require_close(ours.embedding.weight.grad, projection.weight.grad.permute(0, 2, 3, 1).flatten(1), "patches", 1e-8)


@pytest.mark.parametrize(
    ("preset", "shape"), [("vit-22m", (384, 12, 6)), ("vit-86m", (768, 12, 12)), ("vit-307m", (1024, 24, 16))]
)
def test_a_size_has_their_parameters_less_the_class_token_and_its_position(
    preset: str, shape: tuple[int, int, int]
) -> None:
    with torch.device("meta"):
        theirs = ViTForImageClassification(config_of(*shape, num_labels=1000))
    ends = {"input_features": 16 * 16 * 3, "readout": partial(Classifier, classes=1000)}
    counted = cost(compose(preset), vocab_size=0, **ends).total_params
    assert counted == sum(parameter.numel() for parameter in theirs.parameters()) - 2 * shape[0]
