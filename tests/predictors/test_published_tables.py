"""Tables and networks that Once-for-All and ProxylessNAS published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.published_tables import PublishedTable, read_published_network, read_published_table
from search_spaces.catalogue import find_space
from search_spaces.errors import InputError
from search_spaces.spec import NetworkSpec
from tests.search_spaces import known_networks as known
from tests.search_spaces.strategies import PROPERTY


@pytest.fixture(scope="module")
def published(shared_data: Path) -> Path:
    return shared_data / "ofa_proxyless_lut"


def table(path: Path) -> PublishedTable:
    return read_published_table(path.read_text(), source=path.name)


def network(folder: Path) -> NetworkSpec:
    side = json.loads((folder / "run.config").read_text())["image_size"]
    return read_published_network((folder / "net.config").read_text(), source=folder.name, resolution=side)


def note10(published: Path, latency_ms: int) -> NetworkSpec:
    (folder,) = (published / "ofa" / "ofa_specialized").glob(f"note10_lat-{latency_ms}ms_*")
    return network(folder)


def test_the_network_published_at_30_ms_sums_to_that(published: Path) -> None:
    found = table(published / "ofa" / "note10" / "224_lookup_table.yaml")
    assert found.resolution == 224
    assert found.network_ms(note10(published, 30)) == pytest.approx(30.0, abs=0.05)


@pytest.mark.parametrize(
    ("latency_ms", "side", "message"),
    [
        (8, 160, "lacks 17 of 17 entries: Conv-input:160x160x3-output:80x80x16"),
        (11, 176, "lacks .* entries: Conv-input:176x176x3"),
        (16, 192, "lacks .* entries: Conv-input:192x192x3"),
        (22, 224, "lacks .* entries: Conv-input:224x224x3"),
        (41, 224, "is of 224 pixels, not of 220"),
        (50, 208, "is of 208 pixels, not of 220"),
        (64, 224, "is of 224 pixels, not of 260"),
    ],
)
def test_what_is_missing_for_the_other_networks_is_named(
    published: Path, latency_ms: int, side: int, message: str
) -> None:
    found = table(published / "ofa" / "note10" / f"{side}_lookup_table.yaml")
    with pytest.raises(InputError, match=f"{side}_lookup_table.yaml {message}"):
        found.network_ms(note10(published, latency_ms))


def test_all_networks_of_the_space_at_once(published: Path) -> None:
    space = find_space("ofa-mbv3:width=1.2", channels=3, classes=1000)
    found = table(published / "ofa" / "note10" / "224_lookup_table.yaml")
    cost = found.cost(space)
    genomes = space.sample(50, np.random.default_rng(0))
    slow = [found.network_ms(space.lower(genome)) for genome in genomes]
    assert cost.predict(genomes).tolist() == pytest.approx(slow)
    assert cost.cheapest()[0] < 30.0 < cost.dearest()[0]
    with pytest.raises(InputError, match=r"lacks .* of .* entries"):
        found.cost(find_space("ofa-mbv3:width=1.0", channels=3, classes=1000))
    with pytest.raises(InputError, match="is of 224 pixels, not of 24"):
        found.cost(find_space("tiny", channels=3, classes=10))


@pytest.mark.parametrize("millions", known.OFA_NETWORKS)
def test_published_networks_are_read_as_they_are_written_out(published: Path, millions: int) -> None:
    (folder,) = (published / "ofa" / "ofa_specialized").glob(f"flops-{millions}M_*")
    found = network(folder)
    assert [item.block for item in found] == [
        item.block for item in known.ofa_mobilenet_v3(*known.OFA_NETWORKS[millions])
    ]


def test_the_table_of_proxyless_networks(published: Path) -> None:
    folder = published / "proxylessnas"
    found = table(folder / "mobile_trim.yaml")
    mobile = read_published_network(
        (folder / "proxyless_mobile.config").read_text(), source="proxyless_mobile", resolution=224
    )
    with pytest.raises(InputError, match=r"mobile_trim.yaml lacks 3 of 23 entries: expanded_conv"):
        found.network_ms(mobile)
    for name in ("cpu", "gpu", "mobile_14"):
        other = read_published_network((folder / f"proxyless_{name}.config").read_text(), source=name, resolution=224)
        with pytest.raises(InputError, match=r"lacks .* entries"):
            found.network_ms(other)


ENTRY = "Conv-input:8x8x3-output:4x4x8:\n  count: 3\n  mean: 0.5\n  std: 0.1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no entries of a first convolution"),
        (ENTRY + ENTRY, "t.yaml, line 5: Conv-input:8x8x3-output:4x4x8 is there twice"),
        (ENTRY + ENTRY.replace("8x8", "16x16", 1), "2 entries of a first convolution"),
        (ENTRY.replace("mean", "median"), "line 3: not of the published form: '  median: 0.5'"),
        (ENTRY.replace("  mean: 0.5\n", ""), "the last entry, Conv-input:8x8x3-output:4x4x8, has no mean"),
        (ENTRY.replace("0.5", "-0.5"), "line 3: '-0.5' is no latency"),
        (ENTRY.replace("0.5", "1e999"), "line 3: '1e999' is no latency"),
        (ENTRY.replace("0.5", ".nan"), "line 3: not of the published form"),
        (ENTRY.replace("0.5", "!!python/object:os.system"), "line 3: not of the published form"),
        ("&a [*a]\n", "line 1: not of the published form"),
    ],
)
def test_other_files_are_refused_with_the_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_published_table(text, source="t.yaml")


@PROPERTY
@given(st.text(max_size=60), st.integers(0, len(ENTRY)), st.integers(0, 9))
def test_whatever_a_file_holds_is_a_table_or_an_explained_error(text: str, start: int, length: int) -> None:
    changed = ENTRY[:start] + text + ENTRY[start + length :]
    try:
        found = read_published_table(changed, source="t.yaml")
    except InputError as error:
        assert str(error).startswith("t.yaml")
    else:
        assert all(value > 0 for value in found.latency_ms.values())


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "[[[", '{"first_conv": 3}', '{"first_conv": {"in_channels": "a"}}', "[" * 100_000]
)
def test_other_documents_are_no_networks(text: str) -> None:
    with pytest.raises(InputError, match=r"^net.config is no published network: "):
        read_published_network(text, source="net.config", resolution=224)
