"""basedpyright --verifytypes fevertools --ignoreexternal --outputjson | python .ci/known_types.py

Fails where a type checker has to guess a type of inference that a user may see; says how complete all types are.
"""

import json
import sys

OWN_AFFAIR = "fevertools.train."
"""Networks of PyTorch name their layers without types."""


def main() -> int:
    found = json.load(sys.stdin)["typeCompleteness"]
    exported = [symbol for symbol in found["symbols"] if symbol["isExported"]]
    inference = [symbol for symbol in exported if not symbol["name"].startswith(OWN_AFFAIR)]
    guessed = sorted(symbol["name"] for symbol in inference if symbol["isTypeAmbiguous"] or not symbol["isTypeKnown"])
    for name in guessed:
        print(f"{name}: annotate it, or begin its name with an underscore")
    print(f"{len(inference) - len(guessed)} of {len(inference)} types of inference are known;", end=" ")
    print(f"with training {100 * found['completenessScore']:.1f} % of {len(exported)}")
    return 1 if guessed or not inference else 0


if __name__ == "__main__":
    sys.exit(main())
