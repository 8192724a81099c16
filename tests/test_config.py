"""Every way in which a YAML file can be wrong, with the message that the user reads."""

from typing import Annotated, Literal

import pytest
from dvc.utils.serialize import parse_yaml as dvc_parse_yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from barcast.config import nearest, validate
from barcast.errors import ConfigError
from barcast.section import Section
from barcast.yaml_io import dump_yaml, load_yaml, parse_yaml


class Inner(Section):
    kind: Literal["robust", "standard"]
    clip: Annotated[float, Field(gt=0)]


class Outer(Section):
    seed: int
    scaler: Inner
    named: dict[str, Inner]


GOOD = {"seed": 1, "scaler": {"kind": "robust", "clip": 5}, "named": {"a": {"kind": "standard", "clip": 1.0}}}


def wrong(path, value):
    """GOOD with one value replaced, or with one key removed if the value is None."""
    import copy

    content = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    level = content
    for part in parents:
        level = level[part]
    if value is None:
        del level[last]
    else:
        level[last] = value
    return content


def test_good_values_pass_and_an_int_is_accepted_as_a_float():
    assert validate(Outer, GOOD, "params.yaml").scaler.clip == 5.0


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sede", 1, r"^params.yaml: unknown key 'sede'; did you mean 'seed'\?$"),
        ("scaler.klip", 1, r"^params.yaml: unknown key 'scaler.klip'; did you mean 'clip'\?$"),
        ("named.a.kid", 1, r"^params.yaml: unknown key 'named.a.kid'; did you mean 'kind'\?$"),
        ("scaler.zzz", 1, r"^params.yaml: unknown key 'scaler.zzz'; known keys: clip, kind$"),
        ("seed", "deep", r"^params.yaml: seed = 'deep': expected a valid integer$"),
        ("seed", True, r"^params.yaml: seed = True: expected a valid integer$"),
        ("scaler.clip", -1, r"^params.yaml: scaler.clip = -1: expected greater than 0$"),
        ("scaler.kind", "robot", r"^params.yaml: scaler.kind = 'robot': expected 'robust' or 'standard'$"),
        ("scaler.clip", float("inf"), r"^params.yaml: scaler.clip = inf: expected a finite number$"),
        ("scaler.clip", None, r"^params.yaml: key 'scaler.clip' is missing; set it in the file$"),
    ],
)
def test_an_error_names_key_value_and_remedy(path, value, message):
    with pytest.raises(ConfigError, match=message):
        validate(Outer, wrong(path, value), "params.yaml")


def test_prefix_and_keys_place_the_error_in_the_whole_file():
    with pytest.raises(ConfigError, match=r"data.scaler.clip = 0"):
        validate(Inner, {"kind": "robust", "clip": 0}, "params.yaml", "data.scaler")
    with pytest.raises(ConfigError, match=r"params.yaml: shared.clip = 0"):
        validate(Inner, {"kind": "robust", "clip": 0}, "params.yaml", "data.scaler", {"clip": "shared.clip"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "line 1: not valid YAML"),
        ("- 1\n- 2", "expected a mapping of keys to values, got list"),
        ("a: 1\nb: {c: 1,\n c: 2}", "line 3: key 'c' is repeated; delete one of the two"),
        ("a: 1\n? [1, 2]\n: 3", r"line 2: key \[1, 2\]: expected a word or a number"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_yaml(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file; run from the repository root"):
        load_yaml(tmp_path / "params.yaml")


def test_dump_and_load_are_inverse(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(dump_yaml(GOOD))
    assert load_yaml(path) == GOOD


def test_nearest_returns_none_if_nothing_is_similar():
    assert nearest("max_dept", ["max_depth", "max_bins"]) == "max_depth"
    assert nearest("qqqq", ["max_depth"]) is None


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=r"params.yaml: byte 3 is not UTF-8; save the file as UTF-8"):
        load_yaml(file)


SCALARS = {
    "5e-05": 5e-05,
    "1e-4": 1e-4,
    "1.5E+3": 1500.0,
    ".5": 0.5,
    "1.": 1.0,
    "-3": -3,
    "+5": 5,
    "010": 10,
    "0o10": 8,
    "0x1F": 31,
    "1_000": 1000,
    "true": True,
    "False": False,
    ".inf": float("inf"),
    "~": None,
    "null": None,
    **{text: text for text in "yes NO 1:30 x 0.1.2 e5 +".split()},
}
TEXT = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=8)


def test_scalars_are_read_as_dvc_reads_them():
    text = "".join(f"k{number}: {scalar}\n" for number, scalar in enumerate(SCALARS))
    found = list(parse_yaml(text).values())
    for expected in (SCALARS.values(), dvc_parse_yaml(text, "params.yaml").values()):
        assert found == list(expected)
        assert [type(value) for value in found] == [type(value) for value in expected]


@given(st.dictionaries(TEXT, TEXT | st.floats(allow_nan=False) | st.integers() | st.booleans()))
@example({scalar: scalar for scalar in SCALARS})
def test_what_is_dumped_is_read_back_the_same(content):
    found = parse_yaml(dump_yaml(content))
    assert found == content
    assert [type(value) for value in found.values()] == [type(value) for value in content.values()]


def test_a_merged_key_may_be_replaced():
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}")["b"] == {"x": 1, "y": 3}


def test_the_error_of_a_rule_between_keys_does_not_list_their_values():
    class Range(Section):
        low: int
        high: int

        @model_validator(mode="after")
        def _ordered(self):
            if self.high < self.low:
                raise ValueError("high ≥ low")
            return self

    class Whole(Section):
        range: Range

    with pytest.raises(ConfigError, match=r"^params.yaml: expected high ≥ low$"):
        validate(Range, {"low": 2, "high": 1}, "params.yaml")
    with pytest.raises(ConfigError, match=r"^params.yaml: range: expected high ≥ low$"):
        validate(Whole, {"range": {"low": 2, "high": 1}}, "params.yaml")
