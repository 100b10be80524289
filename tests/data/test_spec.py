import dataclasses
import inspect

import numpy as np
import pytest

from vaezoo import data
from vaezoo.data.spec import OF_BATCHES

pytestmark = pytest.mark.one_backend


def test_functions_take_the_fields_of_a_spec():
    known = set(inspect.signature(data.DataSpec).parameters)
    functions = {
        data.load: known - {"length"},
        data.load_arrays: known - set(OF_BATCHES),
        data.describe: None,
        data.load_text: None,
        data.load_text_arrays: None,
        data.describe_text: None,
    }
    for function, expected in functions.items():
        parameters = inspect.signature(function).parameters
        names = {"name_or_path" if name == "path" else name for name in parameters}
        assert names <= known
        assert expected is None or names == expected
        # Each argument is documented once, in the docstring of the class.
        section = inspect.getdoc(function).partition("\nArgs:\n")[2]
        assert all(f"\n    {name}: " in f"\n{section}" for name in parameters)
        assert section.index("Returns:") > section.index(f"{list(parameters)[-1]}: ")
    assert list(inspect.signature(data.describe).parameters)[:3] == [
        "name_or_path",
        "split",
        "data_dir",
    ]


def test_a_spec_stands_for_its_arguments():
    spec = data.DataSpec("digits", "test", limit=np.int64(6), binarize="fixed", labels=False)
    x, y = data.load_arrays(spec)
    assert y is None
    expected, _ = data.load_arrays("digits", "test", limit=6, binarize="fixed")
    np.testing.assert_array_equal(x, expected)
    # What is given beside it takes the place of its fields, and leaves it as it was.
    assert len(data.load_arrays(spec, limit=3)[0]) == 3
    assert data.load_arrays(spec, "train", labels=True)[1].shape == (6,)
    batches = data.load(spec, batch_size=4, backend="numpy")
    np.testing.assert_array_equal(np.concatenate(list(batches)), expected)
    info = data.describe(spec)
    assert (info.num_examples, info.split) == (6, "test")
    assert spec.given() == {
        "name_or_path": "digits",
        "split": "test",
        "binarize": "fixed",
        "labels": False,
        "limit": 6,
    }
    assert type(spec.limit) is int
    assert spec == data.DataSpec(**spec.given())
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.limit = 7


def test_specs_refuse_what_functions_refuse():
    with pytest.raises(TypeError, match=r"load\(\) got an unexpected keyword argument 'batchsize'"):
        data.load("digits", batchsize=3)
    with pytest.raises(TypeError, match=r"load_arrays\(\) got an unexpected .*'batch_size'"):
        data.load_arrays("digits", batch_size=3)
    with pytest.raises(TypeError, match=r"describe\(\) missing a required argument"):
        data.describe()
    with pytest.raises(ValueError, match="`changes` must be among .*did you mean 'limit'"):
        data.DataSpec("digits").replace(limits=3)
    with pytest.raises(ValueError, match="`binarize` must be one of"):
        data.DataSpec("digits", binarize="never")
    with pytest.raises(ValueError, match="`length` is of text, but 'digits' holds images"):
        data.load_arrays(data.DataSpec("digits", length=4))
