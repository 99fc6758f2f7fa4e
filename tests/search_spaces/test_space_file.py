"""Spaces as TOML: what is read, and that errors name their place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.catalogue import find_space
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.layout import Head, ImageInput, Layout, Operator, Sharing, Stage, Stem
from search_spaces.space_file import parse_space
from tests.search_spaces.strategies import PROPERTY
from tests.search_spaces.test_documentation import SPACE_PAGE, examples

(TEXT,) = examples(SPACE_PAGE, "toml")


def parsed(text: str) -> NetworkSpace:
    return parse_space(text, source="my.toml", channels=1, classes=4)


def test_the_file_means_the_layout_that_python_would_spell_out() -> None:
    mbconv = Operator(
        family="mbconv", sizes=(("kernel", (3, 5)), ("expansion", (2, 4))), settings=(("squeeze", "hidden"),)
    )
    fused = Operator(family="fused_mbconv", sizes=(("expansion", (2, 4)),), settings=(("kernel", 3),))
    convnext = Operator(family="convnext", sizes=(("kernel", (3, 5)), ("expansion", (2, 3))))
    single_head = Operator(family="single_head", sizes=(("attended", (16, 32)),), settings=(("expansion", 2),))
    assert parsed(TEXT).layout == Layout(
        name="pocket",
        input=ImageInput(channels=1, resolution=48, classes=4, smaller=(32,)),
        stem=Stem(width=(16,), settings=(("kernel", 3), ("stride", 2), ("activation", "hard-swish"))),
        stages=(
            Stage(width=(16, 32), depth=(1, 2, 3), operators=(mbconv, fused), first="operator"),
            Stage(width=(48, 64), depth=(1, 2), operators=(convnext, single_head)),
        ),
        head=Head(settings=(("features", 128),)),
        sharing=Sharing(kernel_transforms=True),
    )


def test_what_is_left_out_has_its_default() -> None:
    space = parsed(
        """
        name = "small"
        resolution = 8
        stem = { family = "patchify", patch = 2 }
        head = { features = 0 }
        [[stages]]
        width = 16
        depth = [1, 2]
        stride = 1
        operators = [ { family = "attention", expansion = 1 } ]
        """
    )
    assert space.layout.input.resolutions == (8,)
    assert space.layout.stem.width == ()
    assert space.layout.sharing == Sharing()
    assert space.names == ("stage1.depth",)


BAD = [
    ("kernel = 3\nstride = 2", "kernel = 3\nstride = ", "not valid TOML: .*line 6"),
    ('name = "pocket"', "", "name is missing"),
    ('name = "pocket"', "name = 3", "name must be a text, got 3"),
    ('name = "pocket"', 'name = "pocket"\nnames = 3', "unknown key in the file 'names'; did you mean 'name'"),
    ("[32, 48]", "[48, 32]", "resolution must be the largest one"),
    ("[32, 48]", "[]", "resolution is an empty list"),
    ("[32, 48]", "[32.5]", r"resolution must be whole numbers, got \[32.5\]"),
    ("[32, 48]", '"32"', "resolution must be a number or a list, got '32'"),
    ("[32, 48]", "true", "resolution must be a number or a list, got True"),
    ("[32, 48]", "[34]", "at resolution 34, stage 2 is given a side of 9 pixels"),
    ("[stem]", "[stm]", r"stem is missing \(there is 'stm'\)"),
    ("width = 16", "width = [16, 16]", "stem: options of width must be distinct"),
    ("stride = 2", "stride = [1, 2]", r"stem.stride must be a single value, got \[1, 2\]"),
    ('activation = "hard-swish"', 'activation = "gelu"', "unknown activation of stem 'gelu'"),
    ('activation = "hard-swish"', "activation = {}", r"stem.activation must be a number, a word or a list of numbers"),
    ("width = [16, 32]", "width = [16, '32']", r"stages\[1\].width must be numbers, got"),
    ("width = [16, 32]", "width = [16, true]", r"stages\[1\].width must be numbers, got"),
    ("width = [16, 32]", "widht = [16, 32]", r"stages\[1\].width is missing \(there is 'widht'\)"),
    ("depth = [1, 2, 3]", "depth = [1, 65]", "stage 1: a stage has at most 64 blocks, got 65"),
    ("width = [16, 32]", f"width = {[*range(1, 301)]}", "stage 1: width has 300 options, more than 256"),
    ("depth = [1, 2, 3]", "depth = [0, 1]", "stage 1: options of depth must be numbers of at least 1"),
    ('first = "operator"', 'first = "block"', "unknown first block of stage 1 'block'"),
    ('first = "operator"', "stride = 2.0", r"stages\[1\].stride must be a whole number, got 2.0"),
    ('first = "operator"', "stride = 1", "stage 1 has stride 1, so nothing brings its input to its width"),
    ("kernel = [3, 5], expansion = [2, 4]", "expansion = [2, 4]", "stage 1: mbconv needs kernel"),
    ("kernel = [3, 5], expansion = [2, 4]", "kernel = [3, 4], expansion = 2", "stage 1: mbconv: kernel must be odd"),
    ("kernel = [3, 5], expansion = [2, 4]", "kernel = 3, expansion = 2.33", "16 channels times 2.33 are no whole"),
    ('family = "mbconv", ', "", r"stages\[1\].operators\[1\].family is missing"),
    ('family = "mbconv"', 'family = "mbcnv"', "unknown block family in stage 1 'mbcnv'; did you mean 'mbconv'"),
    ('squeeze = "hidden"', 'sqeeze = "hidden"', "unknown setting of mbconv in stage 1 'sqeeze'; did you mean"),
    ('squeeze = "hidden"', 'squeeze = ["hidden"]', r"stages\[1\].operators\[1\].squeeze must be numbers"),
    ('squeeze = "hidden"', "stride = 2", "unknown setting of mbconv in stage 1 'stride'"),
    ("features = 128", "features = -1", "head: features must be at least 0, got -1"),
    ("kernel = [3, 5], expansion = [2, 4]", "kernel = [3.0], expansion = 2", "kernel must be a whole number, got 3.0"),
    ("kernel = [3, 5], expansion = [2, 4]", "kernel = 3, expansion = [1.0, 2]", "must be a whole number, got 1.0"),
    ("kernel = [3, 5], expansion = [2, 4]", "kernel = 99999, expansion = 2", "has .* parameters; offer smaller sizes"),
    ("[32, 48]", "[32, 400000]", "makes .* activations; offer smaller sizes"),
    ("kernel_transforms = true", "layer_scale = -5", "layer_scale must be above 0 and at most 10, got -5"),
    ("kernel_transforms = true", "layer_scale = nan", "layer_scale must be above 0"),
    ("kernel_transforms = true", f"layer_scale = 1{'0' * 400}", "layer_scale must be above 0"),
    ("kernel_transforms = true", f"layer_scale = 1{'0' * 5000}", "not valid TOML: Exceeds the limit"),
    ("features = 128", "features = 1e400", "head: features must be"),
    ("features = 128", "features = nan", "head: features must be"),
    ("features = 128", "features = 99999999999", "features must be below"),
    ("features = 128", "classes = 3", "unknown setting of head in head 'classes'"),
    ("kernel_transforms = true", "kernel_transforms = 1", "sharing.kernel_transforms must be true or false, got 1"),
    ("kernel_transforms = true", "switchable_layer_scale = 1", "switchable_layer_scale must be true or false, got 1"),
    ("kernel_transforms = true", "transforms = true", "unknown key in sharing 'transforms'"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD)
def test_errors_name_their_place(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(InputError, match=f"^my.toml: .*{message}") as caught:
        parsed(TEXT.replace(old, new, 1))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "huge.toml").write_bytes(b"#" * 1_000_001)
    (tmp_path / "folder.toml").mkdir()
    for name, message in (("binary", "no UTF-8"), ("huge", "at most 1000000"), ("folder", "there is no file")):
        with pytest.raises(InputError, match=message):
            find_space(str(tmp_path / f"{name}.toml"), channels=3, classes=10)


_VALUES = ["-1", "0", "3", "1e999", "nan", "true", '"x"', "[]", "{}", "[[1]]", "[3, 3]", "2147483648", "1979-05-27"]


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from(_VALUES) | st.text(max_size=3)), min_size=1, max_size=4))
def test_whatever_a_file_holds_is_a_space_or_an_explained_error(changes: list[tuple[int, str]]) -> None:
    parts = re.split(r"(\s+|[=,\[\]{}])", TEXT)
    for position, value in changes:
        parts[position % len(parts)] = value
    try:
        space = parsed("".join(parts))
    except InputError as error:
        assert str(error).startswith("my.toml: ")
    else:
        assert space.count() > 1
        assert len(space.hash) == 16
