"""What a user does right after `pip install fevertools`, with nothing else at hand. Argument: the wheel."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from skimage import data

import fevertools as ft

wheel = Path(sys.argv[1])
assert wheel.stat().st_size < 15e6, f"the wheel has {wheel.stat().st_size / 1e6:.1f} MB"
assert Path(ft.__file__).is_relative_to(sys.prefix), ft.__file__
assert importlib.util.find_spec("torch") is None

photo = data.astronaut()
vectors = ft.embed(photo)
assert (vectors.shape, vectors.dtype) == ((1, 256), np.float32), (vectors.shape, vectors.dtype)
(expression,) = ft.classify(photo)
assert expression.label == "happiness", expression
assert abs(sum(expression.probabilities.values()) - 1) < 1e-6
assert ft.embed(np.zeros((200, 200, 3), np.uint8)).shape == (0, 256)
assert abs(ft.similarity(vectors[0], vectors[0]) - 1) < 1e-6
assert "torch" not in sys.modules

doctor = subprocess.run(["fevertools", "doctor", "--json"], capture_output=True, text=True, check=True)
assert json.loads(doctor.stdout)
subprocess.run(["fevertools", "weights", "verify"], check=True)
print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, works offline without torch")
