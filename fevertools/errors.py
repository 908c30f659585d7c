"""The one error tree. Whatever the package raises on purpose is a `FevertoolsError`; its message says what to do."""


class FevertoolsError(Exception):
    """Root of every error that fevertools raises on purpose."""


class ImageError(FevertoolsError, ValueError):
    """An input image cannot be used."""


class UnreadableImageError(ImageError):
    """The bytes are empty, truncated or not an image that can be decoded."""


class UnsupportedImageError(ImageError):
    """An array or object has a type, dtype, shape or range that is not among those `fevertools.image` documents."""


class ImageTooLargeError(ImageError):
    """The image has more pixels than the limit allows (protection from decompression bombs)."""


class VideoError(ImageError):
    """A video cannot be opened, has no frames or is damaged; or another cannot be written."""


class DegenerateFaceError(FevertoolsError, ValueError):
    """Five landmarks that lie on one point, so that no similarity transform fits them."""


class OptionError(FevertoolsError, ValueError):
    """A parameter has a value outside what its function documents."""


class WeightsError(FevertoolsError):
    """Root of everything that can be wrong with weights."""


class UnknownWeightsError(WeightsError, KeyError):
    """No manifest entry has this name."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which would put quotes around a whole sentence.
        return str(self.args[0]) if self.args else ""


class ManifestError(WeightsError, ValueError):
    """A weights manifest is not valid."""


class WeightsUnavailableError(WeightsError):
    """The file is neither bundled nor cached and could not be fetched."""


class WeightsIntegrityError(WeightsError):
    """A weights file differs from its manifest entry in size, hash or graph."""


class PublishError(WeightsError):
    """Weights could not be published."""


class DeviceUnavailableError(FevertoolsError):
    """The requested device or execution provider is not in the installed ONNX Runtime."""


class MissingExtraError(FevertoolsError, ImportError):
    """An optional dependency is needed; the message names the extra that installs it."""


class DataError(FevertoolsError):
    """A data set, a recipe or a checkpoint is missing or is not what its reader expects."""
