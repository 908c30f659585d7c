"""`python -m fevertools.train`: fit, export, evaluate. Separate commands joined by files."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fevertools.errors import FevertoolsError

if TYPE_CHECKING:
    from fevertools.train.datasets.ferplus import FerPlus


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, or 2 after an error of ours, told in one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m fevertools.train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    fit = commands.add_parser("fit", help="train a recipe")
    fit.add_argument("recipe", help="name of a recipe that comes with the package, or path of a .toml file")
    fit.add_argument("--output", type=Path, help="folder of the run (default: runs/<recipe>)")
    fit.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as optim.epochs=5")
    fit.add_argument("--resume", action="store_true", help="go on from the folder's checkpoint")
    fit.add_argument("--max-steps", type=int, help="stop after this many steps, with a checkpoint")
    fit.add_argument("--workers", type=int, default=1, help="processes that prepare batches (default: 1)")
    fit.add_argument("--log-every", type=int, default=50, metavar="STEPS", help="steps between log lines (default: 50)")
    fit.add_argument("--device", default="auto", help="accelerator for Lightning Fabric (default: auto)")
    fit.set_defaults(run=_fit)

    export = commands.add_parser("export", help="turn a checkpoint into files that ship, described in the manifest")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("--name", required=True, help="name of the weights in the manifest")
    export.add_argument("--output", type=Path, default=Path("fevertools/bundled"), help="folder of the .onnx file")
    export.add_argument("--safetensors", type=Path, help="also write the weights for training to this file")
    export.add_argument("--manifest", type=Path, default=Path("weights_manifest.json"))
    export.set_defaults(run=_export)

    evaluate = commands.add_parser("evaluate", help="measure weights on the FER+ protocols")
    evaluate.add_argument("weights", help="name in the manifest, or a checkpoint (.safetensors)")
    evaluate.add_argument("--split", choices=("validation", "test"), default="validation")
    evaluate.add_argument("--output", type=Path, help="JSON file of the figures (default: print only)")
    evaluate.add_argument("--manifest", type=Path, help="manifest file whose entry of that name gets the figures")
    evaluate.set_defaults(run=_evaluate)

    for command in (fit, export, evaluate):
        command.add_argument("--data", type=Path, help="data folder (default: FEVERTOOLS_DATA, else ../shared/data)")
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except ModuleNotFoundError as error:
        print(f'error: {error}; training needs the extra: pip install "fevertools[train]"', file=sys.stderr)
        return 2
    except FevertoolsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _fit(options: argparse.Namespace) -> None:
    from fevertools.train.loop import RunOptions, fit
    from fevertools.train.methods.classify import Classify
    from fevertools.train.recipe import load_recipe

    recipe = load_recipe(options.recipe, dict(item.partition("=")[::2] for item in options.set))
    method = Classify(recipe, _data(options))
    output = options.output or Path("runs") / recipe.name
    run = RunOptions(
        output, options.device, options.workers, options.resume, options.max_steps, log_every=options.log_every
    )
    fit(method, run)


def _export(options: argparse.Namespace) -> None:
    from fevertools.train import export

    student, recipe = export.load_student(options.checkpoint)
    student = export.release(student, _data(options), recipe.data.protocol)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / f"{options.name}.onnx"
    export.to_onnx(student, recipe.model.crop, file)
    if options.safetensors is not None:
        export.to_safetensors(student, options.safetensors)
    export.update_manifest(options.manifest, options.name, export.manifest_entry(student, recipe, file))
    print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB), temperature {float(student.temperature):.3f}")


def _evaluate(options: argparse.Namespace) -> None:
    from fevertools.train.evaluate.command import evaluate

    evaluate(options.weights, _data(options), options.split, options.output, options.manifest)


def _data(options: argparse.Namespace) -> "FerPlus":
    from fevertools.train.datasets.ferplus import default_data_root, read_ferplus

    return read_ferplus(options.data or default_data_root())


if __name__ == "__main__":
    sys.exit(main())
