"""`chimeralab match`: stacks of equal cost, and the steps of an equal budget."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from chimeralab.cli.options import JsonOption
from chimeralab.cli.output import count, out, size, table


def match(
    patterns: Annotated[list[str], typer.Argument(help="Stacks in the pattern language, or presets.")],
    to: Annotated[str, typer.Option("--to", help="The stack whose cost they take.")] = "transformer",
    d_model: Annotated[int, typer.Option("--d-model", "-d", help="Its width.")] = 256,
    same: Annotated[
        Literal["parameters", "flops", "state"],
        typer.Option(help="Parameters, training FLOPs per token, or bytes of state per sequence."),
    ] = "parameters",
    by: Annotated[
        Literal["width", "depth"], typer.Option(help="Change the width, or repeat the layers at that width.")
    ] = "width",
    vocab_size: Annotated[int, typer.Option(help="Tokens in the vocabulary.", min=1)] = 256,
    sequence_length: Annotated[int, typer.Option("--sequence-length", "-t", help="Tokens in a sequence.", min=1)] = 256,
    steps: Annotated[int, typer.Option(help="Steps of the stack --to; the others get those of equal FLOPs.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Give each stack the width or depth at which it costs as much as another.

    Example: chimeralab match "mamba2 x6, ffn=none" "gla x6" --to "attention x6" --same parameters
    """
    from chimeralab.stack.compose import compose
    from chimeralab.stack.match import match_depth, match_steps, match_width, quantity

    lengths = {"vocab_size": vocab_size, "sequence_length": sequence_length}
    like = compose(to, d_model=d_model)
    target, work = quantity(like, same, **lengths), quantity(like, "flops", **lengths)
    search = match_width if by == "width" else match_depth
    found = [(like, 0.0)]
    for pattern in patterns:
        one = search(compose(pattern, d_model=d_model), same, target, **lengths)
        found.append((one.stack, one.off))
    shown: list[dict[str, Any]] = []
    for stack, off in found:
        flops = quantity(stack, "flops", **lengths)
        equal = match_steps("flops", work * steps * sequence_length, tokens_per_step=sequence_length,
                            flops_per_token=flops)  # fmt: skip
        shown.append(
            {
                "pattern": stack.text,
                "d_model": stack.d_model,
                "layers": len(stack.layers),
                "parameters": int(quantity(stack, "parameters", **lengths)),
                "flops_per_token": flops,
                "state_bytes": int(quantity(stack, "state", **lengths)),
                "off": off,
                "steps_of_equal_flops": equal,
            }
        )
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    rows = [
        (
            row["pattern"],
            row["d_model"],
            row["layers"],
            count(row["parameters"]),
            count(row["flops_per_token"]),
            size(row["state_bytes"]),
            f"{row['off']:+.1%}",
            row["steps_of_equal_flops"],
        )
        for row in shown
    ]
    headers = ("stack", "width", "layers", "params", "FLOPs/token", f"state at {sequence_length}", "off", "steps")
    out.print(table(headers, rows))
    out.print(f"[dim]off: from equal {same}; steps: of equal FLOPs to {steps} of the first, all with the same batch[/]")
