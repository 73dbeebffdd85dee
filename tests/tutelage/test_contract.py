from pathlib import Path

import pytest

from tests.tutelage.data.builders import METER, write_spec
from tutelage.contract import MOST_BYTES
from tutelage.data.dataset import load_dataset_spec
from tutelage.errors import SpecError

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (LAUGHS.encode(), "dataset spec meter.yaml: &a names a list or a mapping; only single values can have names"),
        (b"x: " + b"[" * 20_000, "dataset spec meter.yaml is nested more than 20 levels deep"),
        (b"name: caf\xe9", "dataset spec meter.yaml is not valid YAML: 'utf-8' codec can't decode byte 0xe9"),
        (b"name: " + b"x" * MOST_BYTES, "dataset spec meter.yaml has 262150 bytes, more than the 262144"),
        (b"- a\n- b", "dataset spec meter.yaml: expected keys and values, found list"),
    ],
)
def test_load__refuses_what_is_no_spec(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "meter.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as error:
        load_dataset_spec(path)
    assert str(error.value).startswith(sentence)


def test_load__a_single_value_can_have_a_name(tmp_path: Path) -> None:
    path = write_spec(tmp_path, METER)
    path.write_text(
        path.read_text()
        .replace("raw_step: PT1M", "raw_step: &step PT1H")
        .replace("student_step: PT1H", "student_step: *step")
    )
    spec = load_dataset_spec(path)
    assert spec.raw_step == spec.student_step
