"""Each way in which a YAML file can be wrong, by the words that the user reads."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from barcast.config import Section, dump_yaml, load_yaml, nearest, validate
from barcast.errors import ConfigError


class Inner(Section):
    kind: Literal["robust", "standard"]
    clip: Annotated[float, Field(gt=0)]


class Outer(Section):
    seed: int
    scaler: Inner
    named: dict[str, Inner]


GOOD = {"seed": 1, "scaler": {"kind": "robust", "clip": 5}, "named": {"a": {"kind": "standard", "clip": 1.0}}}


def wrong(path, value):
    """GOOD with one value replaced, or with one key removed where the value is None."""
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


def test_good_values_pass_and_an_int_serves_as_a_float():
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
        ("scaler.clip", None, r"^params.yaml: key 'scaler.clip' is missing; every value must stand in the file$"),
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
        ("a: [1", "not valid YAML"),
        ("- 1\n- 2", "expected a mapping of keys to values, got list"),
        ("a: 1\nb: {c: 1,\n c: 2}", "line 3: key 'c' stands twice"),
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


def test_nearest_gives_up_on_what_resembles_nothing():
    assert nearest("max_dept", ["max_depth", "max_bins"]) == "max_depth"
    assert nearest("qqqq", ["max_depth"]) is None
