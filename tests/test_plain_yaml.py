"""YAML that is larger than it looks."""

import pytest
import yaml

from energydiff.errors import UserError
from energydiff.plain_yaml import LARGEST, read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 25)
)


@pytest.mark.parametrize(
    "text", [BOMB, "a: &a [*a]", "a: &a {b: [1, *a]}", "x: &x {k: 1}\n" + BOMB + "y: {<<: *x}"]
)
def test_aliases_without_end_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"my.yaml repeats values by YAML aliases, to.*{LARGEST:,}"):
        read_yaml(text, "my.yaml")


def test_aliases_that_save_writing_are_not() -> None:
    text = "a: &a {width: 8}\nb: *a\nc: [*a, *a]\nd: {<<: *a, depth: 1}"
    width = {"width": 8}
    assert read_yaml(text, "my.yaml") == {
        **{"a": width, "b": width, "c": [width, width]},
        "d": {"width": 8, "depth": 1},
    }


@pytest.mark.parametrize("text", ["[" * 50_000, "&a " + "[" * 50_000 + "*a"])
def test_nesting_without_end_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"my\.yaml nests values too deeply"):
        read_yaml(text, "my.yaml")


def test_tags_of_python_are_no_yaml() -> None:
    with pytest.raises(yaml.YAMLError):
        read_yaml("!!python/object/apply:os.system ['true']", "my.yaml")
