"""Small encoded pictures in every format and mode that `fevertools.image` reads: what the mutations start from."""

import io
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import numpy as np
from PIL import Image, PngImagePlugin

_ORIENTATION: Final = 0x0112


def picture(width: int = 24, height: int = 16) -> Image.Image:
    """A ramp in each channel, a disc and some noise: flat parts, edges and texture."""
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([255 * x / width, 255 * y / height, 255 - 127 * (x / width + y / height)], axis=2)
    ramps[(x - width / 2) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2] = (200, 40, 90)
    noise = np.random.default_rng(5).integers(-20, 21, (height, width, 3))
    return Image.fromarray(np.clip(ramps + noise * (y > height / 2)[:, :, None], 0, 255).astype(np.uint8))


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def encoded() -> list[bytes]:
    """About fifty files, the same every time for one version of Pillow."""
    return [*_jpegs(), *_pngs(), *_gifs(), *_bitmaps(), *_tiffs(), *_webps()]


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    exif[0x010F] = "a maker"
    return exif


def _modes() -> dict[str, Image.Image]:
    color = picture()
    gray16 = Image.fromarray(np.asarray(color.convert("L")).astype(np.uint16) * 257)
    alpha = color.copy()
    alpha.putalpha(color.convert("L"))
    modes = {mode: color.convert(mode) for mode in ("1", "L", "LA", "RGB", "CMYK", "LAB")}
    return {**modes, "RGBA": alpha, "P": color.quantize(16), "I;16": gray16}


def _frames() -> dict[str, Any]:
    turned = [picture().rotate(angle).quantize(8) for angle in (90, 180)]
    return {"save_all": True, "append_images": turned, "duration": 40, "loop": 0}


def _jpegs() -> Iterator[bytes]:
    modes = _modes()
    for mode in ("L", "RGB", "CMYK"):
        yield encode(modes[mode], "JPEG")
    for subsampling in (0, 1, 2):
        yield encode(picture(40, 33), "JPEG", subsampling=subsampling, quality=60)
    yield encode(picture(), "JPEG", progressive=True, exif=_exif(6))
    yield encode(modes["CMYK"], "JPEG", progressive=True)
    yield encode(picture(), "JPEG", restart_marker_blocks=1, exif=_exif(3), comment=b"words")
    yield encode(picture(160, 120), "JPEG", quality=30)


def _pngs() -> Iterator[bytes]:
    modes = _modes()
    for mode in ("1", "L", "LA", "RGB", "RGBA", "P", "I;16"):
        yield encode(modes[mode], "PNG")
    yield encode(modes["P"], "PNG", transparency=3, bits=4)
    yield encode(modes["P"], "PNG", transparency=bytes(range(0, 256, 16)))
    yield encode(modes["RGB"], "PNG", transparency=(200, 40, 90), exif=_exif(8))
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "words " * 40, zip=True)
    text.add_itxt("Title", "Bild", "de", "Titel", zip=True)
    yield encode(modes["L"], "PNG", pnginfo=text, dpi=(72, 72), icc_profile=b"no profile")
    yield encode(picture(), "PNG", save_all=True, append_images=[picture().rotate(90)])


def _gifs() -> Iterator[bytes]:
    colors = picture().quantize(16)
    yield encode(colors, "GIF")
    yield encode(colors, "GIF", transparency=2, interlace=0)
    yield encode(colors, "GIF", **_frames(), disposal=2)
    yield encode(picture().convert("L"), "GIF", **_frames(), optimize=True, comment=b"words")


def _bitmaps() -> Iterator[bytes]:
    modes = _modes()
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield encode(modes[mode], "BMP")


def _tiffs() -> Iterator[bytes]:
    modes = _modes()
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16"):
        yield encode(modes[mode], "TIFF")
    for compression in ("tiff_lzw", "packbits", "jpeg", "tiff_adobe_deflate", "zstd", "lzma"):
        with suppress(OSError):  # older builds of Pillow lack some
            yield encode(modes["RGB"], "TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield encode(modes["1"], "TIFF", compression=compression)
    yield encode(modes["RGB"], "TIFF", big_tiff=True, tiffinfo={_ORIENTATION: 5})
    yield encode(modes["RGB"], "TIFF", compression="tiff_lzw", tiffinfo={_ORIENTATION: 7, 317: 2})
    yield encode(modes["RGB"], "TIFF", save_all=True, append_images=[modes["L"]])
    yield encode(Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF")


def _webps() -> Iterator[bytes]:
    modes = _modes()
    yield encode(modes["RGB"], "WEBP", quality=50)
    yield encode(modes["RGBA"], "WEBP", quality=50, exif=_exif(2))
    yield encode(modes["RGBA"], "WEBP", lossless=True)
    yield encode(modes["RGB"], "WEBP", save_all=True, append_images=[picture().rotate(180)], duration=40)
