import importlib.metadata

import pytest

from tests.audit import LOOKED_AT, doubtful, is_permissive, licence_of, main


@pytest.mark.parametrize(
    ("licence", "permissive"),
    [
        ("MIT", True),
        ("Apache-2.0 OR BSD-3-Clause", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("GPL-3.0-only", False),
        ("MIT OR AGPL-3.0", False),
        ("LGPL-3.0-only", False),
        ("GNU General Public License v2 or later (GPLv2+)", False),
        ("Server Side Public License, SSPL", False),
        ("permitted for everyone", False),
        ("", False),
    ],
)
def test_is_permissive__by_what_it_names(licence: str, permissive: bool) -> None:
    assert is_permissive(licence) is permissive


def test_doubtful__names_the_package_and_what_to_do() -> None:
    assert doubtful([("good", "MIT"), ("psycopg", "LGPL-3.0-only")]) == []
    [first, second] = doubtful([("closed", "Proprietary"), ("silent", "")])
    assert first == "closed: its licence is Proprietary; look at it, and put what you find into tests/audit.py"
    assert second.startswith("silent: its licence is not given;")


def test_main__nothing_that_is_installed_is_in_doubt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert ", 0 in doubt" in capsys.readouterr().out


def test_looked_at__is_installed_and_needs_it() -> None:
    for name in LOOKED_AT:
        assert not is_permissive(licence_of(importlib.metadata.metadata(name))), name
