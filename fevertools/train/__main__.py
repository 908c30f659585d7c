"""`python -m fevertools.train`: from data to networks that are measured, explained and published."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fevertools.errors import FevertoolsError
from fevertools.train import commands as more

if TYPE_CHECKING:
    from fevertools.train.datasets.ferplus import FerPlus


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, or 2 after an error of ours, told in one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m fevertools.train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    fit = commands.add_parser("fit", help="train a recipe")
    fit.add_argument("recipe", help="name of a recipe that comes with the package, or path of a .toml file")
    fit.add_argument("--output", type=Path, help="folder of the run (default: runs/<recipe>)")
    fit.add_argument("--resume", action="store_true", help="go on from the folder's checkpoint")
    fit.add_argument("--max-steps", type=int, help="stop after this many steps, with a checkpoint")
    fit.add_argument("--workers", type=int, default=1, help="processes that prepare batches (default: 1)")
    fit.add_argument("--log-every", type=int, default=50, metavar="STEPS", help="steps between log lines (default: 50)")
    fit.add_argument("--device", default="auto", help="accelerator for Lightning Fabric (default: auto)")
    fit.add_argument("--devices", type=int, default=1, help="how many share each step; as many as torchrun starts")
    fit.add_argument("--strategy", default="auto", help="of Lightning Fabric for several devices (default: auto, ddp)")
    fit.add_argument("--tensorboard", action="store_true", help="also log for TensorBoard, which must be installed")
    fit.set_defaults(run=_fit)

    export = commands.add_parser("export", help="turn a checkpoint into files that ship, described in the manifest")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("--name", required=True, help="name of the weights in the manifest")
    export.add_argument("--output", type=Path, default=Path("fevertools/bundled"), help="folder of the .onnx file")
    export.add_argument("--safetensors", type=Path, help="also write the weights for training to this file")
    export.add_argument("--manifest", type=Path, default=Path("weights_manifest.json"))
    export.set_defaults(run=_export)

    quantize = commands.add_parser("quantize", help="add the int8 graph of an exported encoder to its manifest entry")
    quantize.add_argument("name", help="of the encoder in the manifest")
    quantize.add_argument("--manifest", type=Path, help="of the encoder (default: the package's own)")
    quantize.set_defaults(run=_quantize)

    teach = commands.add_parser("teach", help="compute the teachers' outputs that a student's recipe learns from")
    teach.add_argument("recipe", help="name or path of the student's recipe")
    teach.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the teachers' runs (default: runs)")
    teach.add_argument("--device", default="auto", help="accelerator for Lightning Fabric (default: auto)")
    teach.add_argument("--workers", type=int, default=1, help="processes that prepare batches (default: 1)")
    teach.set_defaults(run=_teach)

    again = commands.add_parser("reproduce", help="run every stage from the data to measured weights")
    again.add_argument("name", help="of a recipe, such as deepfever-s")
    again.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    again.add_argument("--device", default="auto", help="accelerator for Lightning Fabric (default: auto)")
    again.add_argument("--workers", type=int, default=1, help="processes that prepare batches (default: 1)")
    again.set_defaults(run=_reproduce)

    evaluate = commands.add_parser("evaluate", help="measure weights: FER+, probes, triplets, transfer, leakage")
    evaluate.add_argument(
        "weights",
        help="name in the manifest, a checkpoint (.safetensors), a run that kept epochs, or a start (start:NAME)",
    )
    evaluate.add_argument("--split", choices=("validation", "test"), default="validation")
    evaluate.add_argument(
        "--only",
        default="",
        metavar="PART,...",
        help="of: ferplus,probe,triplets,transfer,leakage (these by default),public,spread,cross,disentangle,"
        "fidelity (to float32; by default for int8)",
    )
    evaluate.add_argument(
        "--probe", action="append", default=[], metavar="KEY=VALUE", help="option of the probe, such as balanced=true"
    )
    evaluate.add_argument(
        "--precision", choices=("float32", "int8"), default="float32", help="of exported weights (default: float32)"
    )
    evaluate.add_argument("--tta", type=int, default=1, metavar="STEPS", help="average over views of every face")
    evaluate.add_argument("--lfw-cache", type=Path, help="folder of the crops of LFW (default: runs/lfw)")
    evaluate.add_argument("--output", type=Path, help="JSON file of the figures (default: print only)")
    evaluate.add_argument("--manifest", type=Path, help="manifest file whose entry of that name gets the figures")
    evaluate.set_defaults(run=_evaluate)

    tsne = commands.add_parser("tsne", help="draw how networks lay out the faces of FER-2013")
    tsne.add_argument("weights", nargs="+", metavar="TITLE=WEIGHTS", help="panels; weights as for evaluate")
    tsne.add_argument("--split", choices=("validation", "test"), default="validation")
    tsne.add_argument("--output", type=Path, required=True, metavar="PICTURE")
    tsne.set_defaults(run=_tsne)

    mine = commands.add_parser("mine", help="list the unlabeled faces that a learner is sure of (omni-supervised FER)")
    mine.add_argument("weights", help="of the primitive learner, as for evaluate")
    mine.add_argument("--margin", type=float, default=0.1, help="least lead of the nearest class (default: 0.1)")
    mine.add_argument("--output", type=Path, required=True, metavar="FILE.parquet")
    mine.add_argument("--sheets", type=Path, metavar="DIR", help="also write a contact sheet of every emotion")
    mine.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    mine.set_defaults(run=_mine)

    distil = commands.add_parser("distil-dataset", help="make one image an emotion out of mined faces")
    distil.add_argument("recipe", help="of the learner that they are for, such as omni_das_open")
    distil.add_argument("mined", type=Path, metavar="FILE.parquet", help="list that mine wrote")
    distil.add_argument("--split", choices=("validation", "test"), default="validation", help="what judges them")
    distil.add_argument("--device", default="cpu", help="of PyTorch, such as cuda (default: cpu)")
    distil.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors", help="PNG, figures beside it")
    distil.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    distil.set_defaults(run=_distil_dataset)
    for command in (fit, teach, distil):
        command.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="override, such as optim.epochs=5"
        )

    crop = commands.add_parser("crop-faces", help="make a folder of unlabeled faces from videos and pictures")
    crop.add_argument("inputs", type=Path, nargs="+", metavar="VIDEO_OR_DIR", help="videos, pictures, folders of both")
    crop.add_argument("--output", type=Path, required=True, help="folder of the faces; finished files are not redone")
    crop.add_argument("--every", default="1s", metavar="N|Ns", help="a frame each N frames or N seconds (default: 1s)")
    crop.add_argument("--min-size", type=int, default=40, metavar="PX", help="smallest face (default: 40)")
    crop.add_argument("--size", type=int, default=140, metavar="PX", help="side of a crop (default: 140)")
    crop.set_defaults(run=_crop_faces)

    publish = commands.add_parser("publish", help="upload an encoder, its manifest and its model card to the Hub")
    publish.add_argument("name", help="of the encoder in the manifest")
    publish.add_argument("--repo-id", required=True, metavar="ORG/NAME", help="repository, made if it does not exist")
    publish.add_argument("--private", action="store_true", help="make it private; refuse one that is not")
    publish.add_argument("--dry-run", action="store_true", help="show what would be uploaded, and touch nothing")
    publish.add_argument("--manifest", type=Path, help="manifest that gets the commit (default: the package's own)")
    publish.add_argument("--safetensors", type=Path, metavar="FILE", help="also upload these weights for training")
    publish.set_defaults(run=_publish)

    for command in (fit, export, quantize, teach, again, evaluate, tsne, mine, distil, *more.add(commands)):
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
    from fevertools.train.datasets.ferplus import default_data_root
    from fevertools.train.loop import RunOptions, fit
    from fevertools.train.methods import build_method
    from fevertools.train.recipe import load_recipe

    recipe = load_recipe(options.recipe, _overrides(options))
    output = options.output or Path("runs") / recipe.name
    method = build_method(recipe, options.data or default_data_root(), output.parent)
    run = RunOptions(
        output,
        options.device,
        options.workers,
        options.resume,
        options.max_steps,
        log_every=options.log_every,
        devices=options.devices,
        strategy=options.strategy,
        tensorboard=options.tensorboard,
    )
    fit(method, run)


def _overrides(options: argparse.Namespace) -> dict[str, str]:
    return dict(item.partition("=")[::2] for item in options.set)


def _export(options: argparse.Namespace) -> None:
    from fevertools.train import export

    student = export.export(options.checkpoint, options.name, _data(options), options.output, options.manifest)
    if options.safetensors is not None:
        export.to_safetensors(student, options.safetensors)


def _quantize(options: argparse.Namespace) -> None:
    from fevertools.train.quantize import quantize

    quantize(options.name, _data(options), options.manifest)


def _teach(options: argparse.Namespace) -> None:
    from fevertools.train.datasets.ferplus import default_data_root
    from fevertools.train.methods.distill import unlabeled_faces
    from fevertools.train.methods.targets import taught_faces, teach
    from fevertools.train.recipe import load_recipe

    recipe, root = load_recipe(options.recipe, _overrides(options)), options.data or default_data_root()
    faces = taught_faces(recipe, _data(options), unlabeled_faces(recipe, root, options.runs))
    for teacher in recipe.distill.teachers:
        teach(recipe, teacher, faces, options.runs, options.device, options.workers)


def _reproduce(options: argparse.Namespace) -> None:
    from fevertools.errors import DataError
    from fevertools.train.datasets.ferplus import default_data_root
    from fevertools.train.reproduce import reproduce

    root, data = options.data or default_data_root(), None
    with contextlib.suppress(DataError):  # a recipe that cannot do without says so
        data = _data(options)
    reproduce(options.name, data, root, options.runs, options.device, options.workers)


def _evaluate(options: argparse.Namespace) -> None:
    from fevertools.train.evaluate.command import LFW_CACHE, EvaluateOptions, evaluate, probe_options

    parts = tuple(part for part in options.only.split(",") if part)
    cache = options.lfw_cache or LFW_CACHE
    asked = EvaluateOptions(parts, probe_options(options.probe), options.tta, options.precision, options.data, cache)
    evaluate(options.weights, _data(options), options.split, options.output, options.manifest, asked)


def _tsne(options: argparse.Namespace) -> None:
    from fevertools.labels import FER2013
    from fevertools.train.evaluate.image_sets import split_rows
    from fevertools.train.evaluate.networks import load_network
    from fevertools.train.evaluate.tsne import draw

    data = _data(options)
    rows = split_rows(data, options.split)
    panels = {}
    for item in options.weights:
        title, _, weights = item.rpartition("=")
        panels[title or weights] = load_network(weights, data)(data.images[rows][..., None]).embedding
    draw(panels, data.label[rows], FER2013, options.output)


def _mine(options: argparse.Namespace) -> None:
    from fevertools.train.datasets.ferplus import default_data_root
    from fevertools.train.mine import mine_pool

    root = options.data or default_data_root()
    mine_pool(options.weights, _data(options), root, options.runs, options.margin, options.output, options.sheets)


def _distil_dataset(options: argparse.Namespace) -> None:
    from fevertools.train.datasets.ferplus import default_data_root
    from fevertools.train.omni_stages import distil_open
    from fevertools.train.recipe import load_recipe

    recipe, root = load_recipe(options.recipe, _overrides(options)), options.data or default_data_root()
    files = options.mined, options.output
    distil_open(recipe, _data(options), root, options.runs, *files, options.split, options.device)


def _crop_faces(options: argparse.Namespace) -> None:
    from fevertools.train.crop_faces import CropOptions, crop_faces

    counts = crop_faces(options.inputs, options.output, CropOptions(options.every, options.min_size, options.size))
    files = f"{counts.files} done, {counts.earlier} done earlier, {counts.broken} unreadable"
    print(f"{options.output}: faces written: {counts.faces}; files: {files}")


def _publish(options: argparse.Namespace) -> None:
    from fevertools.train.publish import publish

    publish(
        options.name,
        options.repo_id,
        manifest=options.manifest,
        safetensors=options.safetensors,
        private=options.private,
        dry_run=options.dry_run,
    )


def _data(options: argparse.Namespace) -> "FerPlus":
    from fevertools.train.datasets.ferplus import default_data_root, read_ferplus

    return read_ferplus(options.data or default_data_root())


if __name__ == "__main__":
    sys.exit(main())
