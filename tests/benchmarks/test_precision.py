"""The table of float32 against int8, from a made-up results file."""

import json
from pathlib import Path

from benchmarks.precision import BATCHES, table


def test_the_table_has_every_figure(tmp_path: Path) -> None:
    def cell(batch: int, factor: float) -> dict[str, float]:
        return {"crops_per_second": 1000.4 * factor, "p50_ms": 1.25 / factor, "p95_ms": 2.5 / factor, "runs": 9}

    batches = {str(b): {"float32": cell(b, 1), "int8": cell(b, 2), "ratio": 2.0} for b in BATCHES}
    fidelity = {"cosine_mean": 0.99987, "cosine_percentile_1": 0.99906, "cosine_min": 0.9958, "same_label": 99.58}
    result = {
        "machine": {"processor": "a CPU"},
        "int8_instructions": [],
        "throughput": {"1": batches, "2": batches},
        "accuracy": {"float32": 85.45, "int8": 85.48, "fidelity": fidelity},
    }
    (tmp_path / "precision.json").write_text(json.dumps(result))
    header, rule, one, two, empty, text = table(tmp_path).splitlines()
    assert header.count("|") == rule.count("|") == one.count("|") == 7
    assert one == "| 1" + 3 * " | 1,000, 2,001, 2.00" + " | 1.25 / 2.50 | 0.62 / 1.25 |"
    assert two.startswith("| 2 |")
    assert empty == ""
    for figure in ("a CPU", "instructions: none", "85.45 % (float32), 85.48 % (int8)", "0.9999", "0.9991", "99.58 %"):
        assert figure in text
