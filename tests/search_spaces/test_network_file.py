"""Networks as JSON: what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from search_spaces.errors import InputError
from search_spaces.network_file import network_json, read_network
from tests.search_spaces import known_networks as known

TEXT = network_json(known.mobilenet_v3_large())


def test_a_published_network_survives() -> None:
    assert read_network(TEXT, source="here") == known.mobilenet_v3_large()


def changed(change: Callable[[Any], Any]) -> str:
    document = json.loads(TEXT)
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "here: "),
        ("[]", "here: "),
        ('{"blocks": []}', "a network has at least one block"),
        (changed(lambda d: d.update(more=1)), "here: more"),
        (
            changed(lambda d: d["blocks"][3]["block"].update(family="mbcnv")),
            "unknown block family 'mbcnv'",
        ),
        (changed(lambda d: d["blocks"][3]["block"].pop("family")), "unknown block family None"),
        (changed(lambda d: d["blocks"][3]["block"].update(kernl=3)), "unknown field of mbconv 'kernl'; did you mean"),
        (changed(lambda d: d["blocks"][3]["block"].pop("kernel")), "mbconv lacks kernel"),
        (changed(lambda d: d["blocks"][3]["block"].update(kernel=4)), "mbconv: kernel must be odd"),
        (changed(lambda d: d["blocks"][3]["block"].update(kernel=3.0)), "kernel must be a whole number, got 3.0"),
        (changed(lambda d: d["blocks"][3]["block"].update(kernel=True)), "here: "),
        (changed(lambda d: d["blocks"][3]["block"].update(kernel="3")), "kernel must be a whole number, got '3'"),
        (changed(lambda d: d["blocks"][3]["block"].update(activation=3)), "unknown activation of mbconv 3"),
        (changed(lambda d: d["blocks"][3]["block"].update(kernel=10**30)), "kernel must be"),
        (changed(lambda d: d["blocks"][3].update(slot="block2")), "slots need distinct names"),
        (changed(lambda d: d["blocks"][3].update(slot="")), "slots need distinct names"),
        (changed(lambda d: d["blocks"][3].update(slot="../up")), "slots need distinct names"),
        (changed(lambda d: d["blocks"].pop()), "a network ends in its one head"),
        (changed(lambda d: d["blocks"].append(dict(d["blocks"][-1], slot="again"))), "a network ends in its one head"),
        (changed(lambda d: d["blocks"].pop(2)), "block1 gives .* channels and pixels, which block3 does not take"),
    ],
)
def test_what_is_no_network_is_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^here: .*{message}|^{message}") as caught:
        read_network(text, source="here")
    assert "\n" not in str(caught.value)
