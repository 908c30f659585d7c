"""cyclonedx-py environment ... | python .ci/sbom.py WHEEL > BOM: the bill of materials of one wheel.

Adds to what the environment tells: version and SHA-256 of the wheel itself, and the weights inside it, which no package
index knows. Checked against the schema of CycloneDX 1.6.
"""

import hashlib
import json
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def weights(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """A component for each entry whose files the wheel holds."""
    return [
        {
            "type": "machine-learning-model",
            "bom-ref": f"weights/{name}",
            "name": name,
            "version": entry["version"],
            "description": entry["title"],
            "licenses": [{"license": {"name": entry["licence"]}}],
            "components": [
                {
                    "type": "file",
                    "bom-ref": f"weights/{name}/{file['path']}",
                    "name": file["path"],
                    "hashes": [{"alg": "SHA-256", "content": file["sha256"]}],
                }
                for file in entry["files"].values()
            ],
        }
        for name, entry in manifest["weights"].items()
        if entry["bundled"]
    ]


def complete(bom: dict[str, Any], wheel: Path) -> dict[str, Any]:
    """The bill with the wheel and its weights in it."""
    with zipfile.ZipFile(wheel) as archive:
        manifest = json.loads(archive.read("fevertools/weights_manifest.json"))
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        version = Parser().parsestr(archive.read(metadata).decode("utf-8"))["Version"]
    root = bom["metadata"]["component"]
    root |= {"version": version, "purl": f"pkg:pypi/fevertools@{version}"}
    root["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    models = weights(manifest)
    bom["components"] += models
    (needs,) = (item for item in bom["dependencies"] if item["ref"] == root["bom-ref"])
    needs["dependsOn"] = sorted({*needs.get("dependsOn", ()), *(model["bom-ref"] for model in models)})
    bom["dependencies"] += [{"ref": model["bom-ref"]} for model in models]
    return bom


if __name__ == "__main__":
    text = json.dumps(complete(json.load(sys.stdin), Path(sys.argv[1])), indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"not a bill of materials: {error}")
    print(text)
