"""Commands beside the ones that train and measure: folds of posed sets, heat-maps and figures."""

import argparse
from pathlib import Path
from typing import Any

Commands = Any  # argparse keeps the type of its subparsers to itself


def add(commands: Commands) -> tuple[argparse.ArgumentParser, ...]:
    """Add all of them. Returns those that take `--data`."""
    _add_explain(commands)
    _add_figures(commands)
    return (_add_folds(commands),)


def _add_folds(commands: Commands) -> argparse.ArgumentParser:
    folds: argparse.ArgumentParser = commands.add_parser(
        "folds", help="train and judge the ten folds of a posed set, and what they begin with"
    )
    folds.add_argument("recipe", help="name or path of a recipe, such as ed2l_posed")
    folds.add_argument("--dataset", metavar="NAME", help="ck+, mmi, bu-3dfe or oulu-casia (default: the recipe's)")
    folds.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, as for fit")
    folds.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs (default: runs)")
    folds.add_argument("--device", default="auto", help="accelerator for Lightning Fabric (default: auto)")
    folds.add_argument("--workers", type=int, default=1, help="processes that prepare batches (default: 1)")
    folds.set_defaults(run=_folds)
    return folds


def _add_explain(commands: Commands) -> None:
    explain = commands.add_parser("explain", help="draw where a network looked: a sheet of faces and heat-maps")
    explain.add_argument("checkpoint", type=Path)
    explain.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="photos; of each the largest face")
    explain.add_argument("-o", "--output", type=Path, required=True, metavar="PICTURE")
    explain.add_argument("--branch", help="distilling or dispelling of ED2L; a member of EmoXNet (default: all)")
    explain.add_argument(
        "--method",
        default="gradcam++",
        help="gradcam, gradcam++, hirescam, layercam, or features, their plain sum (default: gradcam++)",
    )
    explain.add_argument("--label", help="emotion whose evidence is shown (default: the most probable)")
    explain.add_argument(
        "--places", type=int, default=3, metavar="N", help="look at the deepest layer of N x N places (default: 3)"
    )
    explain.add_argument("--cropped", action="store_true", help="every image is one face, framed already")
    explain.set_defaults(run=_explain)


def _add_figures(commands: Commands) -> None:
    confusion = commands.add_parser("confusion", help="draw the confusion matrix of an evaluation or of folds")
    confusion.add_argument("figures", type=Path, metavar="FILE.json", help="what evaluate or folds wrote")
    confusion.add_argument("--protocol", default="fer2013", help="of an evaluation (default: fer2013)")
    confusion.add_argument("-o", "--output", type=Path, required=True, metavar="PICTURE")
    confusion.set_defaults(run=_confusion)

    cost = commands.add_parser("cost", help="draw loss and accuracy of several runs over their steps")
    cost.add_argument("runs", nargs="+", metavar="TITLE=RUN", help="folders of runs")
    cost.add_argument("-o", "--output", type=Path, required=True, metavar="PICTURE")
    cost.set_defaults(run=_cost)


def _folds(options: argparse.Namespace) -> None:
    from fevertools.errors import DataError
    from fevertools.train.datasets.ferplus import default_data_root, read_ferplus
    from fevertools.train.recipe import load_recipe
    from fevertools.train.reproduce import plan
    from fevertools.train.stages import Setup, run_stages

    overrides = dict(item.partition("=")[::2] for item in options.set)
    if options.dataset is not None:
        overrides["posed.dataset"] = options.dataset
    recipe = load_recipe(options.recipe, overrides)
    if not recipe.posed.dataset:
        raise DataError(f"{options.recipe} names no posed set: pass --dataset, or choose ed2l_posed")
    root = options.data or default_data_root()
    # FER-2013 is only for what the folds begin with.
    data = read_ferplus(root) if recipe.model.initial else None
    run_stages(list(plan(recipe, Setup(data, root, options.runs, options.device, options.workers))))


def _explain(options: argparse.Namespace) -> None:
    from fevertools.train.branches import read_explained
    from fevertools.train.explain import ExplainOptions, write_sheet

    asked = ExplainOptions(options.method, options.label, options.places)
    subject = read_explained(options.checkpoint, options.branch)
    explanation = write_sheet(subject, options.images, options.cropped, asked, options.output)
    print(f"{options.output}: {len(explanation.label)} faces, {', '.join(explanation.maps)}")


def _confusion(options: argparse.Namespace) -> None:
    from fevertools.train.figures import draw_confusion, read_confusion

    draw_confusion(*read_confusion(options.figures, options.protocol), options.output)


def _cost(options: argparse.Namespace) -> None:
    from fevertools.train.figures import draw_cost

    pairs = [item.rpartition("=") for item in options.runs]
    draw_cost({title or Path(run).name: Path(run) for title, _, run in pairs}, options.output)
