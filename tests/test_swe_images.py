"""Names of container images in records: as the specification has them, and no options of the program that runs them."""

from __future__ import annotations

import pytest

from firsthand.benchmarks.swe.swe_tasks import check, make_script
from firsthand.errors import DataError
from firsthand.sandbox.repository_workspace import ContainerPlace
from swe_local import adds

TESTS = adds("tests/test_x.py", "pass")
ROW = {
    "instance_id": "a-1", "repo": "r", "base_commit": "a" * 40, "problem_statement": "?", "test_patch": TESTS,
    "eval_script": make_script("pytest", "a" * 40, TESTS), "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": [],
}  # fmt: skip


def test_an_image_is_named_as_its_specification_has_it() -> None:
    names = ["img", "calc-image:1", "x/y:latest", "swebench/sweb.eval.x86_64.django_1776_django-11099:v2.1"]
    names += ["localhost:5000/a/b__c", "GHCR.io/a/b", f"python@sha256:{'0f' * 32}", "localhost/x--y:T_1"]
    for name in names:
        assert check({**ROW, "image": name}, "row 1")["image"] == name
        assert name in ContainerPlace(name, engine="docker").command()


@pytest.mark.parametrize(
    "name",
    [
        "--volume=/:/host",
        "-v",
        "dir:/etc",
        "docker-archive:/x.tar",
        "a b",
        "a\nb",
        "A",
        "../x",
        "x:",
        "a//b",
        "x" * 501,
    ],
)
def test_what_is_no_name_of_an_image_is_refused_with_its_row(name: str) -> None:
    with pytest.raises(
        DataError, match=r"^row 1: the image is '.*': a name such as ghcr.io/owner/name:tag was expected$"
    ):
        check({**ROW, "image": name}, "row 1")
    with pytest.raises(DataError, match=r"^the image is "):
        ContainerPlace(name, engine="docker")
