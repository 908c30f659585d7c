"""How often are the networks right that peers ship in their packages, on the same framed faces as ours?

Run: `python -m benchmarks.peer_accuracy [--data DIR] [--threads N] [--peers DIR] [--output FILE]`

PrivateTest of FER-2013, 48 x 48 crops, by FER-2013's labels and by FER+'s. Our own figures are read from the results
file of `python -m fevertools.train evaluate`. A peer was taught on faces that its package does not tell.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import data_folder, header, machine, report, versions
from benchmarks._peer import PEERS, ROOT, Aside, Contestant, PeerError, Worker, digits
from fevertools.labels import EMOTIONS_7, FER2013

PACKAGES = ("fevertools", "numpy", "scikit-learn")
PROTOCOLS = {"fer2013": FER2013, "ferplus7": EMOTIONS_7}
NETWORKS = {
    "fer": ("`fer`, its default (TFLite)", "fer", "TFLite, face by face"),
    "fer keras": ("`fer`, `use_tflite=False`", "fer", "predict_on_batch"),
    "facex": ("`facex`", "keras_nets", "facex"),
    "facemood": ("`facemood`", "keras_nets", "facemood"),
}
"""Name in the results file -> words, script, and way of that script. All run in the environment of `fer`."""
ABSENT = dict.fromkeys(("emotiefflib", "deepface", "rmn", "py-feat"), "weights are downloaded at run time")
"""Peers whose packages have no weights."""
SYNONYMS = {
    "angry": "anger", "happy": "happiness", "sad": "sadness", "surprised": "surprise", "disgusted": "disgust",
    "fearful": "fear", "scared": "fear",
}  # fmt: skip
"""A peer's word -> that of `labels.EMOTIONS`."""
SEEN = 85.0
"""Percent. People are right about FER-2013's labels 65 +- 5 % of the time (Goodfellow et al. 2013), and networks that
have not seen the test faces not much more often."""


def emotion(word: str) -> str:
    """The name in `labels.EMOTIONS` of a peer's label.

    Raises:
        KeyError: none.
    """
    plain = word.strip().lower()
    return {**SYNONYMS, **{name: name for name in EMOTIONS_7}}[plain]


def ordered(probabilities: np.ndarray, words: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Columns of a peer in the order of ours: (N, len(words)) -> (N, len(classes)).

    Raises:
        KeyError: the peer has no such class.
    """
    place = {emotion(word): column for column, word in enumerate(words)}
    return np.asarray(probabilities[:, [place[emotion(name)] for name in classes]])


def judge(probabilities: np.ndarray, words: Sequence[str], data: Any) -> dict[str, Any]:
    """Figures of one peer on each protocol, of probabilities for all rows of PrivateTest: (N, 7)."""
    from fevertools.train.datasets.ferplus import select
    from fevertools.train.evaluate.image_sets import split_rows
    from fevertools.train.evaluate.protocols import fer2013, protocol_figures

    rows = split_rows(data, "test")
    figures = {}
    for protocol, classes in PROTOCOLS.items():
        chosen = fer2013(data, "test") if protocol == "fer2013" else select(data, protocol, "test")
        mine = ordered(probabilities, words, classes)[np.searchsorted(rows, chosen.rows)]
        # Their logarithm stands for logits, of which the softmax is taken.
        found = protocol_figures(np.log(np.clip(mine, 1e-9, None)), chosen, data, classes)
        figures[protocol] = {kind: found[kind] for kind in ("all", "without earlier twins", "recall")}
    return figures


def measure(data: Any, images: np.ndarray, threads: int, peers: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures of each peer, and why the others have none."""
    measured: dict[str, Any] = {}
    missing = dict(ABSENT)
    with tempfile.TemporaryDirectory() as folder:
        given, told = Path(folder) / "images.npy", Path(folder) / "probabilities.npy"
        np.save(given, images)
        for name, (words, module, way) in NETWORKS.items():
            try:
                contestant = Contestant(words, module, (), "fer")
                with Worker(contestant, "--threads", str(threads), peers=peers) as worker:
                    answer = worker.ask("predict", way=way, images=str(given), output=str(told))
            except PeerError as error:
                missing[name] = str(error)
                continue
            measured[name] = {
                "bytes": answer["bytes"],
                "crops_per_second": digits(len(images) / answer["seconds"]),
                **judge(np.load(told), answer["labels"], data),
            }
    return measured, missing


def ours(results: Path) -> Mapping[str, Any]:
    """Our own figures in the same form: the results file of the default weights, and their size from the manifest."""
    manifest = json.loads((ROOT / "weights_manifest.json").read_text("utf-8"))
    name = manifest["default"]["encoder"]
    result = json.loads((results / f"accuracy-{name}.json").read_text("utf-8"))
    return {
        "bytes": manifest["weights"][name]["files"]["onnx"]["size"],
        "fer2013": result["probe"]["fer2013"],
        "ferplus7": result["PrivateTest"]["single"]["ferplus7"],
        "speed": _speed(results),
    }


def _speed(results: Path) -> float | None:
    """Our crops a second at batch 64 on two threads, where `benchmarks.embedding` has measured it."""
    path = results / "embedding.json"
    cells = json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else []
    speeds = [
        cell["crops_per_second"]["median"]
        for cell in cells
        if (cell["threads"], cell["batch"], cell["contestant"]) == (2, 64, "float32")
    ]
    return speeds[0] if speeds else None


def table(results: Path) -> str:
    """Accuracy of the peers beside ours."""
    result = json.loads((results / "peer_accuracy.json").read_text("utf-8"))
    rows = header(
        "network", "size MB", "crops/s", "FER-2013 %", "without earlier twins %", "ferplus7 %",
        "without earlier twins %", "ferplus7 mean recall %",
    )  # fmt: skip
    own = ours(results)
    rows.append(_row("fevertools", own, own["speed"]))
    rows += [
        _row(words, result["networks"][name], result["networks"][name]["crops_per_second"])
        for name, (words, _, _) in NETWORKS.items()
        if name in result["networks"]
    ]
    told = (
        f"PrivateTest, 3,589 faces of 48 x 48 pixels; {result['machine']['processor']}, {result['threads']} threads, "
        "with each network's own preprocessing (fevertools needs none here). On FER-2013's labels fevertools is a "
        "linear probe on its embedding; the peers were taught those labels themselves. Their packages do not say on "
        "which faces: they may have seen PublicTest and PrivateTest."
    )
    known = [NETWORKS[name][0] for name, figures in result["networks"].items() if seen(figures)]
    if known:
        told += f" {' and '.join(known)} must have: people are right about FER-2013's labels 65 % of the time."
    for why, names in _by_reason(result["missing"]).items():
        told += f" Not measured: {', '.join(names)} ({why})."
    return "\n".join(rows) + f"\n\n{told}"


def _by_reason(missing: Mapping[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, why in missing.items():
        reasons.setdefault(why, []).append(NETWORKS[name][0] if name in NETWORKS else f"`{name}`")
    return reasons


def seen(figures: Mapping[str, Any]) -> bool:
    """Whether a network knows PrivateTest by heart."""
    return bool(figures["fer2013"]["all"]["accuracy"] > SEEN)


def _row(words: str, figures: Mapping[str, Any], speed: float | None) -> str:
    cells = [
        f"{figures[protocol][kind]['accuracy']:.2f}"
        for protocol in PROTOCOLS
        for kind in ("all", "without earlier twins")
    ]
    mark = ", has seen the test faces" if seen(figures) else ""
    rate = "" if speed is None else f"{speed:,.0f}"
    recall = figures["ferplus7"]["all"]["mean_recall"]
    return f"| {words}{mark} | {figures['bytes'] / 1e6:.1f} | {rate} | {' | '.join(cells)} | {recall:.2f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Judge the networks that peers ship.")
    parser.add_argument("--data", type=Path, default=data_folder("fer2013"), help="folder of FER-2013 and FER+")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of every network")
    parser.add_argument("--peers", type=Path, default=PEERS, help="folder of the environments")
    parser.add_argument("--output", type=Path, help="also write the JSON object here")
    options = parser.parse_args(arguments)
    from fevertools.train.datasets.ferplus import read_ferplus
    from fevertools.train.evaluate.image_sets import split_rows

    data = read_ferplus(options.data)
    with Aside() as others:
        networks, missing = measure(data, data.images[split_rows(data, "test")], options.threads, options.peers)
    result = {
        "benchmark": "peer_accuracy",
        "machine": machine(),
        "versions": versions(*PACKAGES),
        "threads": options.threads,
        "cores_busy_with_other_processes": others.cores,
        "networks": networks,
        "missing": missing,
    }
    report(result, options.output)


if __name__ == "__main__":
    main()
