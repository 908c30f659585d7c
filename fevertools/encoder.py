"""The network that turns face crops into expression embeddings and emotion logits."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from fevertools.errors import ManifestError, OptionError, WeightsIntegrityError
from fevertools.manifest import PRECISIONS
from fevertools.options import choice, whole
from fevertools.session import make_session, refusals, runs_on_cpu
from fevertools.streaming import workers_of
from fevertools.types import Expression, Float32, UInt8Image
from fevertools.weights import WeightsEntry

OUTPUTS: Final = ("embedding", "logits")

_CROPS: Final = {"float32": 8, "int8": 16}  # most in one run on a CPU: what its caches hold

_Node: TypeAlias = tuple[str, str, tuple[int | None, ...]]  # name, type, shape with None for a free axis


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """What an encoder says about N crops."""

    embeddings: Float32  # (N, D)
    logits: Float32  # (N, 8) in the order of the entry's labels; their softmax is calibrated


class Encoder:
    """One ONNX session of one encoder entry. Threads may share it.

    Args:
        entry: the manifest entry.
        files: its verified files by role, from `weights.resolve`; that of `network_role` is needed.
        precision: "float32", or "int8" where the entry has such a graph: a little less exact, and more than twice as
            fast on a CPU with one of `session.INT8_INSTRUCTIONS`.
        device: "auto", "cpu" or another of `session.available_devices()`.
        threads: CPU threads that work on the crops of one call, 1 to 1024; None for one a core, at most
            `streaming.MOST_WORKERS`. The results do not depend on them.
        batch_size: most crops in one run.
        providers: ONNX Runtime execution providers, instead of `device`.

    Raises:
        WeightsIntegrityError: the inputs or outputs of the graph are not those the entry describes.
        OptionError: `batch_size` or `threads` is not a whole number above 0, or there is no graph of this precision.
        DeviceUnavailableError: the installed ONNX Runtime cannot use the device.
    """

    def __init__(
        self,
        entry: WeightsEntry,
        files: Mapping[str, Path],
        *,
        precision: str = "float32",
        device: str = "auto",
        threads: int | None = None,
        batch_size: int = 64,
        providers: Sequence[str] | None = None,
    ) -> None:
        if entry.input is None:
            raise ManifestError(f"weights.{entry.name} is a {entry.kind}; an encoder is needed")
        self.entry = entry
        self.batch_size: int = whole(batch_size, "batch_size")
        self._input = entry.input
        graph = files[network_role(entry, precision)]
        workers = workers_of(threads)
        on_cpu = runs_on_cpu(device, providers)
        # Single-threaded runs side by side beat runs with parallel operators, most of all for a few crops.
        self._workers = workers if on_cpu else 1
        self._most = min(self.batch_size, _CROPS[precision]) if on_cpu else self.batch_size
        self._pool = ThreadPoolExecutor(workers - 1, "fevertools-encoder") if self._workers > 1 else None
        self._session: Any = make_session(graph, device=device, threads=1 if on_cpu else threads, providers=providers)
        self._check_graph()

    def _check_graph(self) -> None:
        geometry = self._input.geometry
        try:
            found: set[_Node] = {
                (node.name, node.type, _shape(node))
                for node in (*self._session.get_inputs(), *self._session.get_outputs())
            }
        except UnicodeDecodeError as error:
            raise WeightsIntegrityError(
                f"the graph of {self.entry.name} has a name that is not UTF-8; export the weights again"
            ) from error
        expected: set[_Node] = {(self._input.name, "tensor(uint8)", (None, geometry.height, geometry.width, 1))}
        expected |= {(name, "tensor(float)", (None, self.entry.outputs[name])) for name in OUTPUTS}
        if "maps" in self.entry.outputs:
            expected.add(("maps", "tensor(float)", (None, self.entry.outputs["maps"], None, None)))
        if found != expected:
            raise WeightsIntegrityError(
                f"the graph of {self.entry.name} has {_listing(found - expected)} where its manifest entry says "
                f"{_listing(expected - found)}; export the weights again"
            )

    def encode(self, crops: UInt8Image, *, flip: bool = False) -> Encoding:
        """Embeddings and logits of face crops.

        Args:
            crops: uint8 (N, H, W, 1) luminance, framed and sized as `entry.geometry` says. N may be 0.
            flip: also encode the mirror image of each crop, and give the mean of both embeddings and the mean of both
                logits. Twice the work.

        Returns:
            Encoding of float32 (N, D) and (N, 8).

        Raises:
            OptionError: the crops have another shape or dtype.
            WeightsIntegrityError: the network cannot be run, or gives other shapes or numbers that are not finite.
        """
        self._check_crops(crops)
        outputs = self._run(crops)
        if flip:
            mirrored = self._run(crops[:, :, ::-1])
            outputs = [np.asarray((a + b) / 2, np.float32) for a, b in zip(outputs, mirrored, strict=True)]
        embeddings, logits = outputs
        if not (np.isfinite(embeddings).all() and np.isfinite(logits).all()):
            raise WeightsIntegrityError(
                f"{self.entry.name} gives numbers that are not finite; try device='cpu', and export the weights again "
                "if they are the same there"
            )
        return Encoding(embeddings, logits)

    def maps(self, crops: UInt8Image) -> Float32:
        """Class activation maps of crops: what each place adds to the logit of each label. Zhou et al. 2016, Eq. 2.

        Args:
            crops: as for `encode`.

        Returns:
            float32 (N, 8, rows, columns): the mean over the places is the logit, up to a constant of the label.

        Raises:
            OptionError: these weights have no maps, or the crops have another shape or dtype.
            WeightsIntegrityError: the network cannot be run, or gives other shapes or numbers that are not finite.
        """
        if "maps" not in self.entry.outputs:
            raise OptionError(
                f"{self.entry.name} has no class activation maps; export the weights again, or use others"
            )
        self._check_crops(crops)
        labels = self.entry.outputs["maps"]
        parts = [maps for (maps,) in self._outputs(crops, ["maps"])]
        found = np.concatenate(parts) if parts else np.empty((0, labels, 1, 1), np.float32)
        if found.ndim != 4 or found.shape[:2] != (len(crops), labels) or not np.isfinite(found).all():
            raise WeightsIntegrityError(f"{self.entry.name} gives maps that are none; export the weights again")
        return found

    def _check_crops(self, crops: UInt8Image) -> None:
        geometry = self._input.geometry
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (geometry.height, geometry.width, 1):
            raise OptionError(
                f"crops must be uint8 (N, {geometry.height}, {geometry.width}, 1), got {crops.dtype} {crops.shape}"
            )

    def _run(self, crops: UInt8Image) -> list[Float32]:
        """OUTPUTS of any number of crops."""
        widths = [self.entry.outputs[name] for name in OUTPUTS]
        parts = [[np.empty((0, width), np.float32) for width in widths], *self._outputs(crops, list(OUTPUTS), widths)]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _outputs(self, crops: UInt8Image, names: list[str], widths: Sequence[int] = ()) -> list[list[Float32]]:
        """Outputs of one run after the other, in the order of the crops. Those with a width must be (N, width)."""
        size = min(self._most, max(1, -(-len(crops) // self._workers)))
        batches = [crops[start : start + size] for start in range(0, len(crops), size)]

        def run(batch: UInt8Image) -> list[Float32]:
            return self._one_run(batch, names, [(len(batch), width) for width in widths])

        if self._pool is None or len(batches) == 1:
            return [run(batch) for batch in batches]
        futures = [self._pool.submit(run, batch) for batch in batches]
        # The calling thread works as well: it takes back what no other has begun.
        own = [run(batch) if future.cancel() else None for batch, future in zip(batches, futures, strict=True)]
        return [future.result() if mine is None else mine for mine, future in zip(own, futures, strict=True)]

    def _one_run(self, crops: UInt8Image, names: list[str], shapes: list[tuple[int, int]]) -> list[Float32]:
        try:
            outputs = list(self._session.run(names, {self._input.name: np.ascontiguousarray(crops)}))
        except refusals() as error:
            raise WeightsIntegrityError(
                f"ONNX Runtime cannot run {self.entry.name}: {error}; try a smaller batch_size or device='cpu', and "
                "export the weights again if it is the same there"
            ) from error
        if shapes and [output.shape for output in outputs] != shapes:
            raise WeightsIntegrityError(
                f"{self.entry.name} gives {[output.shape for output in outputs]} for {len(crops)} crops, not {shapes}; "
                "export the weights again"
            )
        return outputs


def network_role(entry: WeightsEntry, precision: str) -> str:
    """The role of the file with the graph of an encoder in a precision, a key of `manifest.PRECISIONS`.

    Raises:
        OptionError: no such precision, or the entry has no such graph.
    """
    role = PRECISIONS[choice(precision, "precision", PRECISIONS)]
    if role not in entry.files:
        here = ", ".join(name for name, known in PRECISIONS.items() if known in entry.files) or "none"
        raise OptionError(
            f"{entry.name} has no {precision} graph; it has: {here}. Choose one of these, or other weights"
        )
    return role


def _shape(node: Any) -> tuple[int | None, ...]:
    """Shape of an input or output, None for a free axis. Rows and columns of maps are the network's own affair."""
    shape = tuple(dim if isinstance(dim, int) else None for dim in node.shape)
    return (*shape[:2], None, None) if node.name == "maps" and len(shape) == 4 else shape


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Probabilities over the last axis, in float64. (..., C) -> (..., C)."""
    logits = np.asarray(logits, np.float64)
    # The largest becomes exp(0), so that nothing overflows.
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), np.float64)


def express(logits: npt.NDArray[Any], labels: Sequence[str]) -> Expression:
    """The expression that one row of logits stands for.

    Args:
        logits: (C,) of one face; their softmax is calibrated.
        labels: their C names. Of labels that are equally probable, the first is taken.

    Returns:
        Expression: probabilities in the order of `labels`, entropy = -sum p ln p in nats.
    """
    return express_each(np.asarray(logits)[None], labels)[0]


def express_each(logits: npt.NDArray[Any], labels: Sequence[str]) -> list[Expression]:
    """The expressions that N rows of logits stand for, (N, C), as `express` gives one."""
    probabilities = softmax(logits)
    terms = probabilities * np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    entropy = 0.0 - terms.sum(axis=-1)  # not -: no -0.0 for a certain face
    columns = (probabilities.argmax(axis=-1), probabilities, entropy)
    return [
        Expression(labels[best], dict(zip(labels, row, strict=True)), nats)
        for best, row, nats in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _listing(nodes: set[_Node]) -> str:
    texts = (f"{name} {kind} {list(shape)}".replace("None", "N") for name, kind, shape in nodes)
    return ", ".join(sorted(texts)) or "nothing"
