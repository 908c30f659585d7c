"""facenet-pytorch: MTCNN and InceptionResnetV1 in PyTorch. Of the latter the time counts, so its weights are random."""

import argparse
import time

import torch
from facenet_pytorch import MTCNN, InceptionResnetV1
from PIL import Image

from benchmarks._peer import answer, peak_bytes, timed

SIDE = 160
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Facenet:
    """The two networks of one process."""

    def __init__(self) -> None:
        self._detector = MTCNN(keep_all=True)
        self._networks = {
            name: InceptionResnetV1(pretrained=None).eval().to(memory_format=layout) for name, layout in LAYOUTS.items()
        }

    def ways(self) -> list[str]:
        return list(LAYOUTS)

    def crops(self, way: str, batch: int, calls: int) -> list[float]:
        images = torch.rand(batch, 3, SIDE, SIDE).contiguous(memory_format=LAYOUTS[way])
        with torch.inference_mode():
            return timed(lambda: self._networks[way](images), calls)

    def photo(self, path: str) -> dict[str, object]:
        """From the file to the embeddings, as facenet-pytorch's own examples do."""
        start = time.perf_counter()
        image = Image.open(path).convert("RGB")
        with torch.inference_mode():
            boxes, _ = self._detector.detect(image)
            if boxes is not None:
                faces = self._detector.extract(image, boxes, None)
                self._networks["channels_last"](faces.contiguous(memory_format=torch.channels_last))
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "boxes": [] if boxes is None else boxes.tolist()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    torch.set_num_threads(parser.parse_args().threads)
    peer = Facenet()
    answer({"ways": peer.ways, "crops": peer.crops, "photo": peer.photo, "peak": peak_bytes})


if __name__ == "__main__":
    main()
