"""Recipes: TOML files read strictly into frozen dataclasses. A key nobody knows is an error that names it."""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from fevertools.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DataOptions:
    """What is trained on."""

    protocol: Literal["ferplus8", "ferplus8-majority", "ferplus7"] = "ferplus8"
    target: Literal["votes", "label"] = "votes"  # the distribution of the votes, or one-hot their most frequent label


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """Random changes of one training frame. Lengths are fractions of the frame, angles degrees, probabilities 0-1."""

    flip: float = 0.5
    flip_vertical: float = 0.0
    rotation: float = 15.0
    zoom: float = 0.0  # by which every frame is enlarged; with it a random shift is a random crop
    scale: float = 0.15  # zoom drawn from 1 -+ scale
    stretch: float = 0.08  # aspect ratio drawn from 1 -+ stretch
    shear: float = 0.08
    shift: float = 0.08
    brightness: float = 0.15  # of the full range
    contrast: float = 0.3
    gamma: float = 0.3  # exponent drawn from exp(-+ gamma)
    blur: float = 0.1  # probability of a Gaussian blur
    downscale: float = 0.1  # probability of losing resolution
    noise: float = 0.1  # probability of Gaussian noise
    erase: float = 0.3  # probability of erasing a rectangle


@dataclass(frozen=True, slots=True)
class LossOptions:
    """Weights of the losses. A head whose losses all weigh 0 is left out."""

    votes: float = 1.0  # cross-entropy against a distribution over the eight emotions: FER+ votes, or one label
    fer2013: float = 0.0  # cross-entropy against the seven original labels of the same images
    triplet: float = 0.0  # FEC triplet loss
    soft_votes: float = 0.0  # cross-entropy against the teachers' mean probabilities of the eight classes
    soft_fer2013: float = 0.0  # the same for the seven labels
    rkd_distance: float = 0.0  # relational distillation of distances
    rkd_angle: float = 0.0  # relational distillation of angles
    center: float = 0.0  # center loss, lambda of "Discriminative Deep Feature Learning", Eq. 5


@dataclass(frozen=True, slots=True)
class DistillOptions:
    """How a student learns from teachers.

    The open student's teachers answer once, for a fixed number of views of every face; the paper's, in every step.
    """

    teachers: tuple[str, ...] = ()  # names of their recipes, whose runs lie beside the student's
    views: int = 8  # augmented views of each face; epoch e shows view e modulo this
    consensus: float = 0.0  # share of the mean over all views in the soft labels; the rest is the view's own
    unlabeled: int = 0  # faces without labels in every step, beside the labelled batch


@dataclass(frozen=True, slots=True)
class CenterOptions:
    """How the centers of the center loss follow their classes, and features their centers."""

    alpha: float = 0.5  # how far a center moves towards the mean of its class in a batch
    learning_rate: float = 1e-3  # of the center loss, whatever that of the cross-entropy is


@dataclass(frozen=True, slots=True)
class DenseNetOptions:
    """The DenseNet of "Discriminative Deep Feature Learning", Table I."""

    growth: int = 12  # maps that every layer adds: 12, or 32 in its wide networks
    layers: int = 12  # in each of three dense blocks
    bottleneck: bool = True  # a 1x1 convolution to four times the growth in front of every 3x3 one ("B")
    compression: float = 0.5  # theta, share of the maps that a transition keeps ("C" where below 1)


@dataclass(frozen=True, slots=True)
class EmoxnetOptions:
    """EmoXNet: feature extractors side by side, and the classifier on their concatenated features."""

    members: tuple[str, ...] = ("vgg16", "densenet121", "seresnet34", "seresnext50")
    upsample: tuple[float, ...] = ()  # how many times larger each member sees the face; () is once, for all
    runs: tuple[str, ...] = ()  # of single members, whose trained extractors an ensemble begins with, in this order
    frozen: bool = False  # train the classifier only
    width: float = 1.0  # by which the members' channels are multiplied, for small machines; DenseNet's growth rate
    smoothing: float = 0.1  # alpha of the labels that EmoXNetLite learns, Eq. 3
    hidden: int = 512  # units of the classifier's hidden layer, of which the paper does not say how many


@dataclass(frozen=True, slots=True)
class OmniOptions:
    """What joins the labelled faces in omni-supervised learning; files are looked for in the folder of the runs."""

    mined: str = ""  # Parquet list of auxiliary samples that `mine` wrote ("VAS")
    distilled: str = ""  # distilled images that `distil-dataset` wrote ("DAS"), of the list `mined.parquet` beside them
    # How `reproduce` makes them.
    learner: str = "omni-open"  # run of the primitive learner
    margin: float = 0.1  # delta of Eq. 5
    iterations: int = 3000  # T of Algorithm 1


@dataclass(frozen=True, slots=True)
class Ed2lOptions:
    """The losses of "Adversarial Feature Distillation", Eq. 6, and its margin softmax, Eq. 2."""

    distilling: float = 1.0  # lambda_t
    dispelling: float = 10.0  # lambda_p; 0 leaves the dispelling branch out, which is the paper's baseline
    dispeller: Literal["gradient", "least-squares"] = "gradient"  # how it learns; the paper's follows gradients
    margin: float = 0.35  # m
    scale: float = 30.0  # s


@dataclass(frozen=True, slots=True)
class PosedOptions:
    """The fold of a posed set that is trained on, in the protocol of "Adversarial Feature Distillation"."""

    dataset: Literal["", "ck+", "mmi", "bu-3dfe", "oulu-casia"] = ""  # "" is FER-2013, on which pretraining runs
    folder: str = ""  # below the data folder; "" is the name of the data set
    fold: int = 0  # 0-9: the group of subjects that is judged


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The sets of faces that the paper's two phases draw from, `optim.batch_size` triplets in every step.

    Folders are relative to the data folder; "" is the data folder itself, in which readers know the usual subfolders.
    """

    triplets: Literal["fec", "ferplus-votes"] = "fec"
    triplet_folder: str = ""
    triplet_count: int = 30_000  # triplets drawn from votes, a third of them of each type
    labelled: Literal["affectnet", "ferplus", "fer2013", "rafdb"] = "affectnet"
    labelled_folder: str = ""
    labelled_batch: int = 64  # labelled faces in every step, beside the triplets
    unlabeled: Literal["faces", "lfw"] = "faces"  # `distill.unlabeled` of them in every step
    unlabeled_folder: str = ""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What is trained."""

    name: str = "mobilenet_v1"
    start: Literal["faceres", "faceres-deep", "face-api", "vggface", "vggface2", "imagenet", "random"] = "faceres"
    initial: str = ""  # name of a run beside this one, whose backbone is trained on instead of the bare start
    crop: int = 48  # height and width of the uint8 crop that the network takes
    resolution: int = 96  # height and width at which the backbone works; crops are upsampled to it
    dimension: int = 256
    dropout: float = 0.2
    storage: Literal["float16", "int8"] = "float16"  # of the exported weights; they are computed with in float32


@dataclass(frozen=True, slots=True)
class OptimOptions:
    """How it is optimised: linear warm-up, a schedule, exponential moving average of the weights."""

    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"  # sgd has a Nesterov momentum of 0.9; adam's decay is L2
    schedule: Literal["cosine", "constant", "plateau", "step"] = "cosine"  # of the learning rate after the warm-up
    floor: float = 0.0  # of the cosine, as a share of the learning rate
    restarts: tuple[int, ...] = ()  # epochs after which the cosine begins anew, without a warm-up
    step_epochs: int = 10  # epochs after each of which "step" divides the learning rate by ten
    watch: Literal["loss", "accuracy"] = "loss"  # of training, or on the validation split: what a plateau is one of
    patience: int = 5  # epochs in which it has to improve, else a plateau divides the learning rate by ten
    stop_after: int = 0  # epochs without improvement after which the run ends; 0 is never
    accumulate: int = 1  # batches whose mean gradient makes a step; several devices share them
    learning_rate: float = 1e-3
    start_factor: float = 1.0  # learning-rate factor of the layers that have a pretrained start
    weight_decay: float = 0.05
    batch_size: int = 64
    epochs: int = 20
    warmup_epochs: float = 1.0
    ema_decay: float = 0.999  # 0 turns it off
    gradient_clip: float = 5.0  # greatest norm; 0 turns it off
    mixup: float = 0.0  # Beta(mixup, mixup); 0 turns it off
    keep_epochs: int = 0  # the last epochs, or ends of cosines if there are restarts, kept as members of an ensemble
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training, whole: together with the data and the seed it determines the weights."""

    name: str
    system: Literal[
        "classifier", "deepfever-teacher", "deepfever-student", "deepfever-paper-teacher", "deepfever-paper-student",
        "densenet-center", "ed2l", "ed2l-paper", "emoxnet", "emoxnet-lite", "omni", "omni-paper",
    ]  # fmt: skip
    scale: Literal["open", "paper"]
    description: str
    seed: int = 0
    data: DataOptions = field(default_factory=DataOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    losses: LossOptions = field(default_factory=LossOptions)
    distill: DistillOptions = field(default_factory=DistillOptions)
    sources: SourceOptions = field(default_factory=SourceOptions)
    center: CenterOptions = field(default_factory=CenterOptions)
    densenet: DenseNetOptions = field(default_factory=DenseNetOptions)
    ed2l: Ed2lOptions = field(default_factory=Ed2lOptions)
    emoxnet: EmoxnetOptions = field(default_factory=EmoxnetOptions)
    omni: OmniOptions = field(default_factory=OmniOptions)
    posed: PosedOptions = field(default_factory=PosedOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("fevertools.train") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe by its name in the package or by the path of a TOML file.

    Args:
        name_or_path: such as "ferplus_mobilenet", or "my.toml".
        overrides: dotted keys and TOML values, such as {"optim.epochs": "5"}.

    Raises:
        DataError: no such recipe, not TOML, an unknown or missing key, a value of the wrong type.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise DataError(f"no recipe file {str(path)!r}")
        text = path.read_text(encoding="utf-8")
    elif name_or_path in recipe_names():
        text = (resources.files("fevertools.train") / "recipes" / f"{name_or_path}.toml").read_text(encoding="utf-8")
    else:
        known = ", ".join(recipe_names())
        raise DataError(f"no recipe named {name_or_path!r}; known: {known}, or the path of a .toml file")
    try:
        table = tomllib.loads(text)
        for key, value in (overrides or {}).items():
            _override(table, key, value)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"recipe {name_or_path!r} is not valid TOML: {error}") from error
    return from_table(Recipe, table, name_or_path)


def from_table(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """Build a (nested) dataclass from a TOML table, strictly."""
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise DataError(f"{where}: unknown key {key!r}; known: {', '.join(fields)}")
    values = {key: _value(hints[key], value, f"{where}.{key}") for key, value in table.items()}
    required = (dataclasses.MISSING, dataclasses.MISSING)
    missing = [f.name for f in fields.values() if (f.default, f.default_factory) == required and f.name not in values]
    if missing:
        raise DataError(f"{where}: missing key {missing[0]!r}")
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise DataError(f"{where} must be a table")
        return from_table(hint, value, where)  # type: ignore[arg-type]
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise DataError(f"{where} must be one of {', '.join(map(repr, typing.get_args(hint)))}, not {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise DataError(f"{where} must be a list")
        return tuple(_value(typing.get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin in (typing.Union, types.UnionType):
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise DataError(f"{where} must be {hint.__name__}, not {value!r}")
    return value


def _override(table: dict[str, Any], dotted: str, value: str) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise DataError(f"cannot set {dotted!r}: {parent!r} is not a table")
    try:
        table[last] = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        table[last] = value  # a bare word is a string
