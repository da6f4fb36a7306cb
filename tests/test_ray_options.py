"""What `backend="ray"` can be told, and what is refused before there is any cluster."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from keras_mpseq import Loader, RayOptions
from keras_mpseq.ray_options import check_address
from tests.sequences import Counting

REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"address": ""}, TypeError, r'address must be a str such as "10\.0\.0\.1:6379", or None, got \'\'\.'),
    ({"address": 6379}, TypeError, r'address must be a str such as "10\.0\.0\.1:6379", or None, got 6379\.'),
    ({"address": "ray://head:10001"}, ValueError, r"must not be one of Ray Client, got 'ray://head:10001'.*ray job su"),
    ({"resources": 2}, TypeError, r'resources must be a dict such as \{"num_cpus": 1\}, or None, got 2\.'),
    ({"resources": {"CPU": 1}}, ValueError, r"resources must call it 'num_cpus', as in ray\.remote, got 'CPU'\."),
    ({"resources": {"disk": -1}}, ValueError, r"a number of 0 or more for each name, got 'disk': -1\."),
    ({"resources": {"disk": True}}, ValueError, r"a number of 0 or more for each name, got 'disk': True\."),
    ({"runtime_env": "."}, TypeError, r"runtime_env must be a dict as ray\.init takes it, or None, got '\.'\."),
    ({"share_readonly": 1}, TypeError, r"share_readonly must be True or False, got 1\."),
    ({"hedge": 0}, ValueError, r"hedge must be a number of seconds above 0, or None for never, got 0\."),
    ({"hedge": "3"}, ValueError, r"hedge must be a number of seconds above 0, or None for never, got '3'\."),
]


@pytest.mark.parametrize(("given", "kind", "message"), REFUSED, ids=lambda value: repr(value)[:40])
def test_each_bad_option_is_one_sentence(given: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        RayOptions(**given)


def test_options_of_ray_are_refused_on_this_machine() -> None:
    with pytest.raises(
        ValueError, match=r'^ray must be None with backend="local", got RayOptions\(.*: pass backend="r'
    ):
        Loader(Counting(), workers=1, ray=RayOptions())
    with pytest.raises(ValueError, match=r'^ray must be None with backend="local"'):
        Counting(ray=RayOptions(hedge=3))
    with pytest.raises(TypeError, match=r"^ray must be a keras_mpseq\.RayOptions, or None, got \{\}\.$"):
        Loader(Counting(), workers=1, backend="ray", ray={})  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r'^backend must be one of "local", "ray", got "Ray"\.$'.replace('"Ray"', "'Ray'")
    ):
        Loader(Counting(), workers=1, backend="Ray")


def test_launchers_are_of_this_machine() -> None:
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match=r'^launcher must be None with backend="ray", got \'spawn\': Ray starts the'):
        Loader(Counting(), workers=1, backend="ray", launcher="spawn")


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # As if it were not: importing it raises.
    for make in (lambda: Loader(Counting(), workers=1, backend="ray"), lambda: Counting(backend="ray")):
        with pytest.raises(ImportError, match=r'needs keras_mpseq\[ray\]: pip install "keras_mpseq\[ray\]", or use'):
            make()


def test_addresses_in_the_environment_are_checked_as_well() -> None:
    with pytest.raises(ValueError, match=r"^RAY_ADDRESS must not be one of Ray Client"):
        check_address("RAY_ADDRESS", "ray://head:10001")
