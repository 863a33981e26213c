"""Small films of every kind that `predict` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FILMS = (".mp4", ".mkv", ".avi", ".mpg")
MOVING = (".gif", ".tiff", ".png", ".webp")
COUNT = 24


def film(path: Path, count: int = COUNT) -> Path:
    """Noise that moves: no frame is another. Key frames are 12 apart, with others in between that
    need those after them."""
    values = np.random.default_rng(0).integers(0, 256, (count, 32, 48, 3), np.uint8)
    if path.suffix in MOVING:
        pictures = [Image.fromarray(one) for one in values]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
        return path
    av = pytest.importorskip("av", reason="PyAV is not installed: clusterseg[video]")
    with av.open(str(path), "w") as container:
        codec = "mpeg2video" if path.suffix == ".mpg" else "mpeg4"
        stream = container.add_stream(codec, rate=25, options={"g": "12", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for one in values:
            for packet in stream.encode(av.VideoFrame.from_ndarray(one, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
