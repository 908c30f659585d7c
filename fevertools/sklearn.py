"""scikit-learn: faces to embeddings as a transformer, and the linear probe of the papers as a classifier.

    pip install "fevertools[sklearn]"

>>> from sklearn.pipeline import make_pipeline
>>> from fevertools.sklearn import ExpressionEmbedder, LinearProbe
>>> own = make_pipeline(ExpressionEmbedder(), LinearProbe()).fit(paths, labels)
>>> own.predict(["new.jpg"])
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from fevertools.errors import DataError, MissingExtraError, OptionError
from fevertools.image import ImageInput
from fevertools.manifest import WeightsEntry
from fevertools.options import choice
from fevertools.pipeline import Analyzer
from fevertools.tables import identity
from fevertools.types import Color, Float32

try:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils.validation import check_is_fitted, validate_data
except ModuleNotFoundError as _error:
    raise MissingExtraError('fevertools.sklearn needs scikit-learn: pip install "fevertools[sklearn]"') from _error

if TYPE_CHECKING:
    from fevertools._estimators import BaseEstimator, ClassifierMixin, TransformerMixin
else:
    from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin

Missing: TypeAlias = Literal["nan", "drop", "raise"]
Calibration: TypeAlias = Literal["sigmoid", "isotonic"]

MISSING: Final = ("nan", "drop", "raise")
CALIBRATIONS: Final = ("sigmoid", "isotonic")


class ExpressionEmbedder(TransformerMixin, BaseEstimator):
    """Images to the expression embedding of their largest face.

    It learns nothing, so that `fit` only checks its parameters, and pickling or cloning it keeps no network.

    Args:
        weights, precision, device, threads, batch_size, flip: as for `Analyzer`.
        cropped: every image is one face, framed as the weights expect.
        color: channel order of arrays, "rgb" or "bgr".
        missing: what becomes of an image without a face, or one that cannot be read: "nan" is a row of NaN, "drop"
            leaves the row out (labels then need the same rows: see `embed`), "raise" is an error.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        cropped: bool = False,
        color: Color = "rgb",
        missing: Missing = "nan",
        precision: str = "float32",
        device: str = "auto",
        threads: int | None = None,
        batch_size: int = 64,
        flip: bool = False,
    ) -> None:
        # As scikit-learn asks: arguments are kept as they are, and checked when they are used.
        self.weights = weights
        self.cropped = cropped
        self.color = color
        self.missing = missing
        self.precision = precision
        self.device = device
        self.threads = threads
        self.batch_size = batch_size
        self.flip = flip

    def fit(self, X: Sequence[ImageInput], y: object = None) -> Self:
        """Check the parameters; images are not looked at.

        Raises:
            OptionError, WeightsError: a parameter is none that `Analyzer` takes.
        """
        choice(self.missing, "missing", MISSING)
        with self._analyzer() as analyzer:
            self.n_features_out_: int = analyzer.entry.dimension
        return self

    def transform(self, X: Sequence[ImageInput]) -> Float32:
        """Embed images.

        Args:
            X: n images, each what `Analyzer.stream` takes: paths, bytes, PIL images, arrays.

        Returns:
            float32 (n, D), fewer rows where `missing` is "drop"; a data frame under `set_output`.

        Raises:
            DataError: an image without a face, where `missing` is "raise".
            ImageError: one that cannot be read, where `missing` is "raise".
        """
        vectors, found = self.embed(X)
        return vectors if self.missing == "nan" else vectors[found]

    def embed(self, X: Sequence[ImageInput]) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """Embed images, and tell which had a face; for labels that have to lose the same rows.

        Returns:
            float32 (n, D), NaN where there is no face, and bool (n,). Errors are those of `transform`.
        """
        choice(self.missing, "missing", MISSING)
        if isinstance(X, str | bytes | PathLike):
            raise OptionError("X must be a sequence of images, not one image; put it in a list")
        strict = self.missing == "raise"
        rows: list[Float32 | None] = []
        with self._analyzer() as analyzer:
            results = analyzer.stream(X, cropped=self.cropped, color=self.color, on_error="raise" if strict else "skip")
            for position, result in enumerate(results):
                if strict and not result.faces:
                    raise DataError(f"no face in image {position}; set missing='nan' or 'drop'")
                rows.append(result.faces[0].embedding if result.faces else None)
            nothing = np.full(analyzer.entry.dimension, np.nan, np.float32)
        vectors = np.empty((len(rows), len(nothing)), np.float32)
        for place, row in enumerate(rows):
            vectors[place] = nothing if row is None else row
        return vectors, np.array([row is not None for row in rows], bool)

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """Names of the coordinates: e0, e1, ..."""
        check_is_fitted(self)
        return np.array([f"e{i}" for i in range(self.n_features_out_)], object)

    def _analyzer(self) -> Analyzer:
        return Analyzer(
            self.weights,
            precision=self.precision,
            device=self.device,
            threads=self.threads,
            batch_size=self.batch_size,
            flip=self.flip,
            largest=not self.cropped,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array, tags.input_tags.string = False, True, True
        tags.no_validation = True  # images are no table of numbers
        return tags


class LinearProbe(ClassifierMixin, BaseEstimator):
    """Logistic regression on frozen embeddings: what DeepFEVER (section III-B) judges embeddings by.

    Args:
        C: inverse strength of the L2 penalty; the papers have 10000.
        balanced: classes weigh the same whatever their number of faces, as DeepFEVER does on AffectNet.
        standardise: every coordinate to mean 0 and deviation 1 first.
        calibration: "sigmoid" or "isotonic" calibrates the probabilities on five folds (scikit-learn's
            CalibratedClassifierCV); None leaves them as the regression gives them.
        max_iter: most iterations of the solver.

    Attributes:
        classes_: the labels.
        n_features_in_: D.
        n_iter_: iterations that the solver took; below `max_iter` it converged.
    """

    def __init__(
        self,
        C: float = 10_000.0,
        *,
        balanced: bool = False,
        standardise: bool = True,
        calibration: Calibration | None = None,
        max_iter: int = 1000,
    ) -> None:
        self.C = C
        self.balanced = balanced
        self.standardise = standardise
        self.calibration = calibration
        self.max_iter = max_iter

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Fit anew.

        Args:
            X: (n, D) embeddings, all finite.
            y: (n,) labels of two classes or more.
        """
        if self.calibration is not None:
            choice(self.calibration, "calibration", CALIBRATIONS)
        features, label = validate_data(self, X, y, dtype=np.float64)
        regression = LogisticRegression(C=self.C, max_iter=self.max_iter, class_weight=self._class_weight())
        model = make_pipeline(self._scaler(), regression)
        if self.calibration is not None:
            model = CalibratedClassifierCV(model, method=self.calibration, cv=5)
        self.model_: Any = model.fit(features, label)
        self.classes_: npt.NDArray[Any] = self.model_.classes_
        fitted = [self.model_] if self.calibration is None else [c.estimator for c in model.calibrated_classifiers_]
        self.n_iter_: int = max(int(pipeline[-1].n_iter_.max()) for pipeline in fitted)
        return self

    def partial_fit(self, X: npt.ArrayLike, y: npt.ArrayLike, classes: npt.ArrayLike | None = None) -> Self:
        """Go on fitting with some more faces, by stochastic gradient descent; for streams that fit no memory.

        Nearly what `fit` finds, after enough passes. Classes are not re-weighted here, and nothing is calibrated.

        Args:
            X: (n, D) embeddings.
            y: (n,) labels.
            classes: all labels that will come; needed at the first call, unless `fit` has seen them. The first call
                begins anew: nothing of `fit` but its labels is kept.

        Raises:
            OptionError: `balanced` or `calibration` is set, or the first call names no classes.
        """
        if self.balanced or self.calibration is not None:
            raise OptionError("partial_fit can neither balance classes nor calibrate; use fit, or leave both off")
        first = not hasattr(self, "stream_")
        if first and classes is None:
            classes = getattr(self, "classes_", None)
        if first and classes is None:
            raise OptionError("the first partial_fit must name all classes that will come: classes=[...]")
        features, label = validate_data(self, X, y, dtype=np.float64, reset=first)
        if first:
            self.stream_: tuple[Any, Any] = (
                self._scaler(),
                SGDClassifier(loss="log_loss", alpha=1 / (self.C * 100), random_state=0),
            )
        scaler, regression = self.stream_
        scaler.partial_fit(features)
        known = None if classes is None else np.unique(np.asarray(classes))
        regression.partial_fit(scaler.transform(features), label, classes=known)
        self.classes_, self.n_iter_ = regression.classes_, int(regression.n_iter_)
        # Both are fitted already: a pipeline of them only joins their predictions.
        self.model_ = make_pipeline(scaler, regression)
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """The most probable label of each embedding: (n,)."""
        check_is_fitted(self, "model_")
        return np.asarray(self.model_.predict(validate_data(self, X, dtype=np.float64, reset=False)))

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Probabilities (n, number of classes), in the order of `classes_`."""
        check_is_fitted(self, "model_")
        return np.asarray(self.model_.predict_proba(validate_data(self, X, dtype=np.float64, reset=False)))

    def _scaler(self) -> StandardScaler:
        return StandardScaler(with_mean=self.standardise, with_std=self.standardise)

    def _class_weight(self) -> str | None:
        return "balanced" if self.balanced else None


PARTS: Final = frozenset(
    {
        "fevertools.sklearn.LinearProbe",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
    }
)
"""What a probe is made of beside what skops trusts by itself."""


def save_probe(probe: LinearProbe, path: str | PathLike[str], weights: WeightsEntry) -> None:
    """Write a fitted probe, and which weights' embeddings it reads, without pickle.

    Args:
        probe: fitted.
        path: file, usually ending in .skops.
        weights: `Analyzer.entry`.
    """
    check_is_fitted(probe, "model_")
    _skops().dump({"probe": probe, "weights": identity(weights)}, path)


def load_probe(path: str | PathLike[str], weights: WeightsEntry | None = None) -> LinearProbe:
    """Read what `save_probe` wrote. Nothing in the file is run, and no type is made but those that a probe needs.

    Args:
        path: the file.
        weights: those whose embeddings it will be given; None does not ask.

    Raises:
        DataError: not such a file, or it holds types that no probe has.
        OptionError: the probe was fitted on embeddings of other weights.
    """
    skops = _skops()
    try:
        unknown = set(skops.get_untrusted_types(file=path)) - PARTS
        if unknown:
            raise DataError(f"{path} holds {', '.join(sorted(unknown))}, which no probe has")
        found = skops.load(path, trusted=sorted(PARTS))
    except DataError:
        raise
    except Exception as error:  # skops raises whatever a damaged file leads it to
        raise DataError(f"{path} is not a probe of fevertools: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("probe"), LinearProbe):
        raise DataError(f"{path} is not a probe of fevertools")
    if weights is not None and found.get("weights") != identity(weights):
        raise OptionError(f"{path} was fitted on embeddings of {found.get('weights')}, not of {identity(weights)}")
    probe: LinearProbe = found["probe"]
    return probe


def _skops() -> Any:
    try:
        import skops.io
    except ModuleNotFoundError as error:
        raise MissingExtraError('saving a probe needs skops: pip install "fevertools[sklearn]"') from error
    return skops.io
