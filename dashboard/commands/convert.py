"""`palimpsest convert`: any checkpoint that opens, as safetensors; or the draft of a description."""

from __future__ import annotations

from pathlib import Path

import click

from dashboard.commands import options
from dashboard.commands.console import report
from dashboard.commands.opening import opened
from dashboard.commands.output import require_apart, require_folder, require_free, require_place

__all__ = ["convert"]


@click.command(epilog=options.example("palimpsest convert anime64-dcgan anime64.safetensors"))
@click.argument("model", metavar="IN")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--draft", is_flag=True, help="Write a description of a bare state dict instead, to be checked."
)
@click.option("--force", is_flag=True, help="Replace what is there.")
@options.as_json
def convert(model: str, out: Path, draft: bool, force: bool, as_json: bool) -> None:
    """Write a model as safetensors, which cannot hold code.

    IN is a file or folder of any family. OUT is one file ending in .safetensors, or a folder for model.json and
    model.safetensors. What is written is opened again, and must draw the same pictures. With --draft, OUT is a
    model.json for the stack of layers in IN.
    """
    if draft:
        _draft(model, out, force, as_json)
        return
    from rewrite_core.generators.conversion import converted, require_same, write_model
    from rewrite_core.rules.record import record_of

    single = out.suffix.lower() == ".safetensors"
    (require_place if single else require_folder)(out)
    require_apart(out, model)
    generator = opened(model)
    files = converted(generator, record_of(generator, ()), single=single)
    places = [out] if single else [out / name for name in files]
    require_free(places, force)
    write_model(dict(zip(places, files.values(), strict=True)))
    require_same(generator, out)
    answer = {
        "model": generator.name,
        "family": generator.family,
        "fingerprint": generator.fingerprint,
        "files": list(map(str, places)),
    }
    report(answer, f"{generator.name} in {out}: opens again and draws the same", as_json)


def _draft(model: str, out: Path, force: bool, as_json: bool) -> None:
    """Write what can be told of a stack that has no description."""
    from rewrite_core.files import write_bytes
    from rewrite_core.generators import draft_description

    if out.suffix.lower() != ".json":
        raise click.UsageError("With --draft, OUT is a file that ends in .json, such as model.json.")
    require_place(out)
    require_apart(out, model)
    require_free([out], force)
    text = draft_description(model)
    write_bytes(out, text.encode())
    report({"draft": text, "files": [str(out)]}, f"{out}: check it, and put it beside {model}", as_json)
