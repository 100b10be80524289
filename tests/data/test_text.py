import importlib.util
import os
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from vaezoo.data import (
    TextInfo,
    Vocabulary,
    describe_text,
    load_text,
    load_text_arrays,
    to_ids,
    to_text,
)
from vaezoo.data.buckets import cheapest_buckets

BACKENDS = [
    pytest.param(
        "tf",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("tensorflow") is None, reason="needs tensorflow"
        ),
    ),
    "numpy",
]
COUNT = 203
pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def rows():
    """Labels and sentences of 1 to 30 words, of which the first is that sentence's own."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(0.12, COUNT), 30)
    rows = []
    for i, n in enumerate(lengths):
        words = [f"Nr{i}", *(f"w{k}" for k in rng.integers(40, size=n - 1))]
        rows.append((int(rng.integers(3)), " ".join(words)))
    return rows


@pytest.fixture
def labeled(tmp_path, rows):
    path = tmp_path / "labeled.txt"
    path.write_text("".join(f"{y}\t{text}\n" for y, text in rows), "utf-8")
    return path


@pytest.fixture
def corpus(tmp_path):
    """`corpus(content)`: a file of these bytes or lines."""

    def write(content, name="corpus.txt"):
        if not isinstance(content, bytes):
            content = "\n".join(content).encode()
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.fixture(scope="module")
def yelp():
    beside = Path(__file__).resolve().parents[3] / "shared" / "data" / "yelp_sentiment"
    if not (beside / "train.txt").is_file():
        pytest.skip("needs the Yelp sentences in ../shared/data/yelp_sentiment")
    return beside


class Pieces:
    """Has ids for pairs of characters, as the subwords of Hugging Face tokenizers have."""

    def __init__(self, **changes):
        self.pad_token_id, self.bos_token_id, self.eos_token_id = 5, 2, 0
        self.unk_token_id = 1
        self.vocab_size = 8 + 26**2
        self.__dict__.update(changes)

    def encode(self, text, add_special_tokens=True):
        assert not add_special_tokens
        assert len(text) % 2 == 0
        letters = [ord(letter) - ord("a") for letter in text]
        return [8 + 26 * a + b for a, b in zip(letters[::2], letters[1::2], strict=True)]

    def decode(self, ids):
        return "".join(chr(ord("a") + k) for i in ids for k in divmod(i - 8, 26))


def epoch(dataset):
    """Returns the batches of an epoch as lists of arrays: x, y, index where they are."""
    batches = []
    for batch in dataset:
        x, target = batch if isinstance(batch, tuple) else (batch, None)
        parts = target if isinstance(target, dict) else {"y": target}
        parts = {"x": x, **parts}
        batches.append({k: np.asarray(v) for k, v in parts.items() if v is not None})
    return batches


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert set(batch) == set(other)
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


@pytest.mark.both_backends
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("in_memory", [True, False])
def test_an_epoch_has_every_sentence_once_and_its_label(labeled, rows, backend, in_memory):
    vocabulary = Vocabulary.build(labeled)
    dataset = load_text(
        labeled, batch_size=8, drop_remainder=False, with_index=True, backend=backend,
        in_memory=in_memory,
    )  # fmt: skip
    orders = []
    for _ in range(2):
        batches = epoch(dataset)
        assert len(batches) == len(dataset) == -(-COUNT // 8)
        assert {(batch["x"].dtype.name, batch["x"].ndim) for batch in batches} == {("int32", 2)}
        index = np.concatenate([batch["index"] for batch in batches])
        assert sorted(index) == list(range(COUNT))
        y = np.concatenate([batch["y"] for batch in batches])
        assert (index.dtype, y.dtype) == (np.int32, np.int32)
        np.testing.assert_array_equal(y, [rows[i][0] for i in index])
        texts = [text for batch in batches for text in to_text(batch["x"], vocabulary)]
        assert texts == [rows[i][1] for i in index]
        orders.append(tuple(index))
    assert orders[0] != orders[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_is_0_behind_the_end_and_nowhere_else(labeled, backend):
    for batch in epoch(load_text(labeled, batch_size=16, labels=False, backend=backend)):
        x = batch["x"]
        lengths = np.count_nonzero(x, axis=1)
        assert set(batch) == {"x"}
        assert (x[:, 0] == 1).all()
        assert (x[np.arange(len(x)), lengths - 1] == 2).all()
        assert ((x == 1).sum(axis=1) == 1).all()
        assert ((x == 2).sum(axis=1) == 1).all()
        assert (np.arange(x.shape[1])[None] < lengths[:, None]).tolist() == (x != 0).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("buckets", [None, [6, 12, 32, 64], [32]])
@pytest.mark.parametrize("drop", [True, False])
def test_shapes_are_few_and_only_the_rest_is_left_out(labeled, rows, backend, buckets, drop):
    options = {"batch_size": 8, "buckets": buckets, "drop_remainder": drop}
    info = describe_text(labeled, **options)
    dataset = load_text(labeled, with_index=True, backend=backend, **options)
    lengths = np.array([2 + len(text.split()) for _, text in rows])
    if buckets is None:
        assert info.buckets == tuple(cheapest_buckets(lengths, 8))
    else:
        assert info.buckets == tuple(buckets)[:3]
    moved = 0
    for _ in range(2):
        batches = epoch(dataset)
        shapes = {batch["x"].shape for batch in batches}
        assert len(shapes) <= info.num_shapes <= len(info.buckets) + (not drop)
        assert {width for _, width in shapes} <= set(info.buckets)
        index = np.concatenate([batch["index"] for batch in batches])
        assert len(index) == (COUNT - COUNT % 8 if drop else COUNT)
        assert len(set(index)) == len(index)
        widths = np.concatenate([np.full(*batch["x"].shape) for batch in batches])
        fitting = np.array(info.buckets)[np.searchsorted(info.buckets, lengths[index])]
        assert (widths >= fitting).all()
        moved += np.sum(widths != fitting)
    # Seven at most move on from each bucket.
    assert moved <= 2 * 7 * (len(info.buckets) - 1)
    if backend == "numpy":
        assert dataset.num_shapes == info.num_shapes


@pytest.mark.parametrize("backend", BACKENDS)
def test_order_depends_on_seed_and_epoch_only(labeled, backend):
    def load(**options):
        return load_text(labeled, batch_size=16, backend=backend, **options)

    first = load(seed=3)
    one, two = epoch(first), epoch(first)
    keras.utils.set_random_seed(123)
    again = load(seed=3, in_memory=False)
    assert_same(one, epoch(again))
    assert_same(two, epoch(again))
    starts = [[batch["x"][0].tolist() for batch in part] for part in (one, two)]
    assert starts[0] != starts[1]
    assert starts[0] != [batch["x"][0].tolist() for batch in epoch(load(seed=4))]


@pytest.mark.skipif(BACKENDS[0].marks[0].args[0], reason="needs tensorflow")
@pytest.mark.parametrize("shuffle", [True, False])
def test_both_backends_have_the_same_batches(labeled, shuffle):
    options = {"batch_size": 16, "shuffle": shuffle, "with_index": True}
    datasets = [load_text(labeled, backend=name, **options) for name in ("tf", "numpy")]
    for _ in range(2):
        assert_same(*map(epoch, datasets))


def test_tf_shapes_are_static_where_they_can_be(labeled):
    pytest.importorskip("tensorflow")
    options = {"batch_size": 16, "backend": "tf"}
    x, y = load_text(labeled, buckets=[32], **options).element_spec
    assert (x.shape.as_list(), y.shape.as_list()) == ([16, 32], [16])
    x, y = load_text(labeled, shuffle=False, **options).element_spec
    assert (x.shape.as_list(), y.shape.as_list()) == ([None, None], [None])


def test_without_shuffling_a_bucket_is_in_the_order_of_the_file(labeled):
    options = {"batch_size": 8, "buckets": [8, 16, 24, 32]}
    batches = epoch(load_text(labeled, shuffle=False, with_index=True, **options))
    by_width = {}
    for batch in batches:
        by_width.setdefault(batch["x"].shape[1], []).extend(batch["index"])
    assert len(by_width) == 4
    assert all(index == sorted(index) for index in by_width.values())


@pytest.mark.large
@pytest.mark.both_backends
def test_the_first_two_batches_differ_in_length_so_that_fit_takes_all(labeled):
    dataset = load_text(labeled, batch_size=8, backend="numpy")
    for _ in range(20):
        first, second = dataset[0][0].shape[1], dataset[1][0].shape[1]
        assert first != second
        dataset.on_epoch_end()
    layers = keras.layers
    model = keras.Sequential(
        [layers.Embedding(300, 2), layers.GlobalAveragePooling1D(), layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=True)
    model.fit(dataset, epochs=2, verbose=0)
    assert int(model.optimizer.iterations) == 2 * (COUNT // 8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_does_not_fit_into_memory_stays_in_the_file(corpus, rows, monkeypatch, backend):
    # Windows line ends, a byte order mark, words beyond ASCII and no line end at the end.
    text = "\r\n".join(f"{y}\t{text} né {chr(0x2028)}" for y, text in rows)
    path = corpus(b"\xef\xbb\xbf" + text.encode())
    options = {
        "batch_size": 8, "max_length": 20, "too_long": "truncate", "limit": 150,
    }  # fmt: skip
    held = load_text(path, backend=backend, **options)
    assert describe_text(path, **options).in_memory
    monkeypatch.setattr(sys.modules["vaezoo.data.text"], "MEMORY_LIMIT", 4 * 100)
    assert not describe_text(path, **options).in_memory
    kept = load_text(path, backend=backend, **options)
    for _ in range(2):
        assert_same(epoch(held), epoch(kept))


def test_a_file_that_changes_is_found_out(corpus):
    path = corpus(["a b", "c d e"])
    dataset = load_text(path, batch_size=1, in_memory=False, backend="numpy", shuffle=False)
    assert [len(batch["x"][0]) for batch in epoch(dataset)] == [5, 5]
    with path.open("r+b") as file:
        file.write(b"abc")
    with pytest.raises(ValueError, match="has changed since .* byte 0 has 1 ids instead of 2"):
        epoch(dataset)


def test_splits_of_a_folder_share_the_vocabulary_of_train(corpus, tmp_path):
    corpus(["1\tb a", "0\ta c", "1\tc"], "train.txt")
    corpus(["0\tc x", "1\tb"], "valid.txt")
    corpus(["1\tx a", "1\ty c a"], "test.txt")
    options = {"batch_size": 2, "backend": "numpy"}
    vocabulary = Vocabulary(["b", "a", "c"])
    assert describe_text(tmp_path, batch_size=2).vocabulary == vocabulary
    with pytest.warns(UserWarning, match="33% of the words"):
        (batch,) = epoch(load_text(tmp_path, "validation", **options))
    assert batch["x"].tolist() == [[1, 6, 3, 2], [1, 4, 2, 0]]
    assert batch["y"].tolist() == [0, 1]
    with pytest.warns(UserWarning, match=r"40% of the words of '.*test.txt' .* first in '.*line 1"):
        (batch,) = epoch(load_text(tmp_path, "test", **options))
    assert batch["x"].tolist() == [[1, 3, 5, 2, 0], [1, 3, 6, 5, 2]]
    (batch,) = epoch(load_text(tmp_path, "train[1:]", limit=1, batch_size=1, backend="numpy"))
    assert batch["x"].tolist() == [[1, 5, 6, 2]]
    Vocabulary(["x", "b", "c"]).save(tmp_path / "words.txt")
    given = load_text(tmp_path, "validation", vocabulary=tmp_path / "words.txt", **options)
    assert epoch(given)[0]["x"].tolist() == [[1, 6, 4, 2], [1, 5, 2, 0]]


def test_validation_is_held_out_of_a_single_file(labeled, rows):
    seen = set()
    for split, count in (("train", 163), ("validation", 40)):
        dataset = load_text(labeled, split, validation_split=40, batch_size=8, drop_remainder=False)
        vocabulary = Vocabulary.build(labeled)
        texts = [text for b in epoch(dataset) for text in to_text(b["x"], vocabulary)]
        assert len(texts) == count
        seen.update(texts)
    assert seen == {text for _, text in rows}
    with pytest.warns(UserWarning, match="has no validation split") as record:
        load_text(labeled, "validation")
    assert record[0].filename == __file__


@pytest.mark.parametrize(
    ("labels", "content", "y", "texts"),
    [
        ("auto", ["1\ta b", "0\tc\td"], [1, 0], ["a b", "c d"]),
        ("auto", ["a b", "5\tc"], None, ["a b", "5 c"]),
        (False, ["1\ta b", "0\tc"], None, ["a b", "c"]),
        (False, ["a\tb", "c d"], None, ["a b", "c d"]),
        (True, ["12\ta"], [12], ["a"]),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_labels_are_no_words(corpus, labels, content, y, texts, in_memory):
    path = corpus(content)
    options = {"labels": labels, "batch_size": 2, "shuffle": False, "in_memory": in_memory}
    (batch,) = epoch(load_text(path, **options))
    info = describe_text(path, **options)
    assert to_text(batch["x"], info.vocabulary) == texts
    assert batch.get("y", np.array(None)).tolist() == y
    assert info.num_classes == (None if y is None else max(y) + 1)


@pytest.mark.parametrize(
    ("too_long", "expected"),
    [
        ("truncate", [[1, 4, 5, 2], [1, 6, 2, 0], [1, 4, 4, 2]]),
        ("skip", [[1, 6, 2], [1, 6, 2]]),
    ],
)
def test_what_is_too_long_is_cut_or_skipped(corpus, too_long, expected):
    path = corpus(["a b c", "c", "a a a a", *(["c"] if too_long == "skip" else [])])
    limit = {"max_length": 4} if too_long == "truncate" else {"buckets": [3, 4]}
    batches = epoch(
        load_text(path, batch_size=4, too_long=too_long, shuffle=False, with_index=True, **limit)
    )
    assert [batch["x"].tolist() for batch in batches] == [expected]
    assert batches[0]["index"].tolist() == list(range(len(expected)))


def test_arrays_are_in_the_order_of_the_file(labeled, rows):
    vocabulary = Vocabulary.build(labeled)
    x, y = load_text_arrays(labeled)
    assert (x.dtype, x.shape, y.dtype) == (np.int32, (COUNT, 32), np.int32)
    assert list(zip(y, to_text(x, vocabulary), strict=True)) == rows
    cut, none = load_text_arrays(
        labeled, "train[5:]", labels=False, length=9, too_long="truncate", limit=3
    )
    assert none is None
    expected = [row[:9] if row[8] in (0, 2) else [*row[:8], 2] for row in x[5:8].tolist()]
    assert cut.tolist() == expected
    with pytest.raises(ValueError, match="more than the limit 9"):
        load_text_arrays(labeled, length=9)
    with pytest.raises(ValueError, match="`length` must be an integer of at least 3.*length=2"):
        load_text_arrays(labeled, length=2)


def test_describe_counts(corpus):
    path = corpus(["2\ta b", "0\tb zzz", "2\ta a a a a a a", "0\tq"])
    info = describe_text(path, vocabulary=Vocabulary(["a", "b"]), batch_size=3, labels=True)
    assert info == TextInfo(
        name=str(path), split="train", num_examples=4, num_classes=3, label_counts=(2, 0, 2),
        vocabulary=Vocabulary(["a", "b"]), vocabulary_size=6, num_tokens=20,
        length_quantiles=(3, 3, 4, 4, 9), buckets=(9,), num_shapes=1, unknown_share=2 / 12,
        in_memory=True, padding_share=10 / 27,
    )  # fmt: skip
    two = describe_text(path, limit=2, num_classes=5, batch_size=2)
    assert (two.label_counts, two.buckets, two.unknown_share) == ((1, 0, 1, 0, 0), (4,), 0.0)
    assert two.vocabulary.words[4:] == ("a", "b", "zzz", "q")


@pytest.mark.large
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_real_sentences_come_back(yelp, split):
    vocabulary = Vocabulary.build(yelp / "valid.txt")
    options = {"vocabulary": vocabulary, "limit": 300, "in_memory": split == "train"}
    with (yelp / ("valid.txt" if split == "validation" else f"{split}.txt")).open(
        encoding="utf-8", newline="\n"
    ) as file:
        stored = [file.readline().rstrip("\n").split("\t") for _ in range(300)]
    seen = 0
    for batch in epoch(load_text(yelp, split, with_index=True, backend="numpy", **options)):
        texts = to_text(batch["x"], vocabulary)
        for row, y, i in zip(texts, batch["y"], batch["index"], strict=True):
            label, sentence = stored[i]
            words = [word if word in vocabulary else "<unk>" for word in sentence.split(" ")]
            assert (row.split(" "), y) == (words, int(label))
            seen += 1
    assert seen == (288 if split == "train" else 300)
    assert describe_text(yelp, split, **options).length_quantiles[-1] <= 17


def test_vocabulary_has_words_in_the_order_in_which_they_appear(tmp_path):
    lines = ["b a b", "c <s> A", "a b <unk> é"]
    vocabulary = Vocabulary.build(lines)
    words = ["<pad>", "<s>", "</s>", "<unk>", "b", "a", "c", "A", "é"]
    assert (len(vocabulary), list(vocabulary.words)) == (9, words)
    ids = vocabulary.encode(["a", "z", "<s>", "<unk>", "<pad>", "é"])
    assert (ids.dtype, ids.tolist()) == (np.int32, [5, 3, 3, 3, 3, 8])
    assert vocabulary.decode([1, 5, 3, 8, 2, 4, 0]) == ["a", "<unk>", "é"]
    assert vocabulary.encode([]).shape == (0,)
    assert "b" in vocabulary
    assert "<pad>" in vocabulary
    assert "z" not in vocabulary
    assert repr(vocabulary) == "Vocabulary(9 ids)"
    vocabulary.save(tmp_path / "v.txt")
    assert (tmp_path / "v.txt").read_bytes() == "".join(f"{word}\n" for word in words).encode()
    assert Vocabulary.load(tmp_path / "v.txt") == vocabulary
    (tmp_path / "v.txt").write_bytes("\r\n".join(words).encode())
    assert Vocabulary.load(str(tmp_path / "v.txt")) == vocabulary
    assert vocabulary != Vocabulary(["b"])


def test_vocabulary_keeps_the_most_frequent():
    lines = ["x c a", "c b a", "c b d"]
    assert Vocabulary.build(lines, max_size=7).words[4:] == ("c", "a", "b")
    assert Vocabulary.build(lines, max_size=99).words[4:] == ("c", "a", "b", "x", "d")
    assert Vocabulary.build(lines, min_count=2).words[4:] == ("c", "a", "b")
    assert Vocabulary.build(iter(lines), min_count=3).words[4:] == ("c",)
    assert Vocabulary.build(["1\ta", "0\tb"]).words[4:] == ("a", "b")
    assert Vocabulary.build(["Ab a"], list).words[4:] == ("A", "b", " ", "a")


def test_a_tokenizer_may_be_any_function(corpus):
    def characters(sentence):
        return list(sentence.lower())

    characters.detokenize = "".join
    path = corpus(["Ab", "bca"])
    for in_memory in (True, False):
        (batch,) = epoch(
            load_text(path, tokenizer=characters, batch_size=2, shuffle=False, in_memory=in_memory)
        )
        assert batch["x"].tolist() == [[1, 4, 5, 2, 0], [1, 5, 6, 4, 2]]
    vocabulary = describe_text(path, tokenizer=characters, batch_size=2).vocabulary
    assert to_text(batch["x"], vocabulary, characters) == ["ab", "bca"]
    np.testing.assert_array_equal(to_ids(["Ab", "bca"], vocabulary, characters), batch["x"])
    padded = to_ids(["BC"], vocabulary, characters, length=6)
    assert (padded.dtype, padded.tolist()) == (np.int32, [[1, 5, 6, 2, 0, 0]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tokenizer_with_ids_keeps_them_but_for_padding(corpus, backend):
    pieces = Pieces()
    path = corpus(["abcd", "zz", "aazzba"])
    for in_memory in (True, False):
        (batch,) = epoch(
            load_text(
                path, tokenizer=pieces, batch_size=3, shuffle=False, in_memory=in_memory,
                backend=backend,
            )
        )  # fmt: skip
        # The end is 0 with the tokenizer, padding 5.
        assert batch["x"].tolist() == [
            [2, 8 + 1, 8 + 26 * 2 + 3, 5, 0], [2, 8 + 675, 5, 0, 0], [2, 8, 8 + 675, 8 + 26, 5],
        ]  # fmt: skip
    assert to_text(batch["x"], tokenizer=pieces) == ["abcd", "zz", "aazzba"]
    assert to_ids(["zz"], tokenizer=pieces).tolist() == [[2, 683, 5]]
    info = describe_text(path, tokenizer=pieces, batch_size=3)
    assert info.vocabulary_size == len(info.vocabulary) == 684
    assert (info.vocabulary.start_id, info.vocabulary.end_id) == (2, 5)
    assert to_text(batch["x"], info.vocabulary) == ["abcd", "zz", "aazzba"]
    again = load_text(path, vocabulary=info.vocabulary, batch_size=3, shuffle=False)
    assert_same([batch], epoch(again))
    with pytest.raises(ValueError, match="belongs to another tokenizer than `tokenizer`"):
        to_ids(["ab"], info.vocabulary, Pieces())


def test_a_tokenizer_may_start_and_end_with_one_token():
    pieces = Pieces(pad_token_id=0, bos_token_id=None, cls_token_id=7, eos_token_id=7)
    x = to_ids(["abab", "ab"], tokenizer=pieces)
    assert x.tolist() == [[7, 9, 9, 7], [7, 9, 7, 0]]
    assert to_text(x, tokenizer=pieces) == ["abab", "ab"]


class Marks(Pieces):
    def encode(self, text, add_special_tokens):
        return [self.pad_token_id, 9, self.eos_token_id]


def test_special_tokens_within_a_text_are_unknown():
    assert to_ids(["a"], tokenizer=Marks()).tolist() == [[2, 1, 9, 1, 5]]
    with pytest.raises(ValueError, match="must not hold the tokens of padding.*Received: 'a'"):
        to_ids(["a"], tokenizer=Marks(unk_token_id=None))


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, r"'.*corpus.txt' is empty: it must hold a sentence a line"),
        (b"a\n\nb\n", {}, "corpus.txt', line 2 has an empty sentence"),
        (b"1\ta\n0\t \n", {}, "corpus.txt', line 2 has an empty sentence"),
        (b"a b\na \xff b\n", {}, "corpus.txt', line 2 is not UTF-8: invalid .* at byte 3"),
        (b"1\ta\nb c\n", {}, "line 2 has no tab between label and sentence. Received: 'b c'"),
        (b"a b\n", {"labels": True}, "line 1 has no tab between"),
        (b"1\ta\nx\tb\n", {}, "line 2: a label must be an integer. Received: 'x' before the first"),
        (b"1\ta\n1.0\tb\n", {}, "line 2: a label must be an integer. Received: '1.0'"),
        (b"good\tb\n", {}, "line 1: a label must be an integer.*`labels=False` for lines without"),
        (b"1\ta\n-1\tb\n", {}, "line 2: a label must be at least 0 and .*Received: -1"),
        (
            b"1\ta\n2\tb\n",
            {"num_classes": 2},
            "line 2: a label must be at least 0 and below num_classes=2. Received: 2",
        ),
        (b"9999999999\ta\n", {}, "at most 2147483647. Received: 9999999999"),
        (b"a\na b c\n", {"max_length": 4}, "line 2 has 5 ids, start and end included, .* limit 4"),
        (b"a\na b c\n", {"buckets": [3, 4]}, "line 2 has 5 ids, .* more than the limit 4"),
        (
            b"a b\na b c\n",
            {"max_length": 3, "too_long": "skip"},
            "Every line of '.*corpus.txt' is longer than the limit 3: none is left",
        ),
        (
            b"a b\nc\n",
            {"vocabulary": Vocabulary(["A"])},
            r"No word of '.*' is in the vocabulary of 5 ids. Received: '.*line 1: 'a b'",
        ),
        (b"a\nb\n", {"tokenizer": lambda s: [] if s == "b" else [s]}, "line 2 has no words"),
        (b"a\n", {"split": "test"}, "has no split 'test'. Available: train"),
        (b"a\n", {"batch_size": 2}, r"`batch_size` must not exceed .*batch_size=2, 1 examples"),
        (b"a\n", {"batch_size": 0}, "`batch_size` must be a positive integer. .*batch_size=0"),
        (b"a\n", {"max_length": 2}, "`max_length` must be an integer of at least 3 or None. "),
        (b"a\n", {"num_classes": 0}, "`num_classes` must be a positive integer or None. "),
        (b"a\n", {"too_long": "cut"}, "`too_long` must be one of .*Received: too_long='cut'"),
        (b"a\n", {"labels": "yes"}, "`labels` must be 'auto', True or False.*labels='yes'"),
        (
            b"a\n",
            {"buckets": []},
            r"`buckets` must be a non-empty sequence.*buckets=\[\]",
        ),
        (b"a\n", {"buckets": [8, 8]}, r"`buckets` must ascend. Received: buckets=\[8, 8\]"),
        (b"a\n", {"buckets": [8.0]}, r"`buckets` must be a .* buckets=\[8.0"),
        (b"a\n", {"buckets": [2]}, r"`buckets` must be a .* of at least 3. Received: buckets=\[2"),
        (b"a\n", {"seed": -1}, "`seed` must be an integer in .0, 2.31.. Received: seed=-1"),
        (b"a\n", {"backend": "jax"}, "`backend` must be one of .*Received: backend='jax'"),
        (
            b"a\n",
            {"tokenizer": Pieces(), "vocabulary": Vocabulary(["a"])},
            r"`vocabulary` must be None for a tokenizer .*Received: vocabulary=Vocabulary\(5 ids",
        ),
    ],
)
def test_errors_of_files_name_the_line(corpus, content, options, message):
    with pytest.raises(ValueError, match=message):
        load_text(corpus(content), **{"batch_size": 1, **options})


def test_errors_of_the_wrong_kind(corpus, tmp_path):
    path = corpus(["a", "b"])
    for options, message in [
        ({"tokenizer": 3}, "`tokenizer` must be a function .*Received: tokenizer=3"),
        ({"tokenizer": str.lower}, "`tokenizer` must return a list of strings. Received: 'a'"),
        ({"vocabulary": ["a"]}, r"`vocabulary` must be a `Vocabulary` or .*vocabulary=\['a'\]"),
        ({"path": 3}, "`path` must be the path of a file or folder. Received: path=3"),
    ]:
        with pytest.raises(TypeError, match=message):
            load_text(**{"path": path, "batch_size": 1, **options})
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds none of train.txt, validation.txt"):
        load_text(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="No file or folder '.*none.txt'"):
        load_text(tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match="No file '.*none.txt'"):
        Vocabulary.build(tmp_path / "none.txt")
    os.rename(path, tmp_path / "test.txt")
    with pytest.raises(ValueError, match="`vocabulary` must be given where .* which has test"):
        load_text(tmp_path, "test")


def test_a_failing_tokenizer_names_the_line(corpus):
    with pytest.raises(ZeroDivisionError) as caught:
        load_text(corpus(["a b", "b"]), tokenizer=lambda s: [s] * (6 // (len(s) - 1)))
    assert caught.value.__notes__[0].endswith("corpus.txt', line 2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad_token_id": None}, "must have the special id `pad_token_id`. Received: None in Piec"),
        ({"bos_token_id": None}, "must have the special id `bos_token_id` or `cls_token_id`"),
        ({"eos_token_id": None}, "must have the special id `eos_token_id` or `sep_token_id`"),
        (
            {"pad_token_id": 0},
            "must have a separate padding token.*pad_token_id=0, start 2, end 0",
        ),
        ({"eos_token_id": 684}, "special ids below its size 684. Received: eos_token_id=684"),
        ({"unk_token_id": -1}, "must have ids from 0 on. Received: unk_token_id=-1"),
        ({"vocab_size": None}, "must have a length or `vocab_size`. Received: neither"),
        ({"vocab_size": 9}, "must give ids below its size 9. Received: 9"),
    ],
)
def test_errors_of_tokenizers_with_ids(changes, message):
    with pytest.raises(
        ValueError, match=f"`tokenizer` {message}" if message[0] == "m" else message
    ):
        to_ids(["ab"], tokenizer=Pieces(**changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<pad>\n<s>\n</s>\nthe\n", "begins with <pad>, .*Received: 'the' in line 4 of '.*v.txt'"),
        (b"", "Received: None in line 1 of '.*v.txt'"),
        (b"<pad>\n<s>\n</s>\n<unk>\na\na\n", "v.txt', line 6: 'a' stands in line 5 already"),
        (b"<pad>\n\n", "must not be empty or hold a line break. Received: '', '.*v.txt', line 2"),
        (b"<pad>\n\xff\n", "v.txt', line 2 is not UTF-8"),
    ],
)
def test_errors_of_vocabulary_files(corpus, content, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.load(corpus(content, "v.txt"))


def test_errors_of_vocabularies():
    vocabulary = Vocabulary(["a"])
    built, encode = Vocabulary.build, vocabulary.encode
    for error, message, call in [
        (ValueError, "must differ .* Received: 'a' at place 5", lambda: Vocabulary(["a", "a"])),
        (ValueError, "Received: '<s>' at place 4", lambda: Vocabulary(["<s>"])),
        (ValueError, "must not be empty .*Received: 'a\\\\n'", lambda: Vocabulary(["a\n"])),
        (TypeError, "`words` must be strings. Received: 3", lambda: Vocabulary([3])),
        (TypeError, "`words` must be a list.*words='abc'", lambda: Vocabulary("abc")),
        (TypeError, "`words` must be a list of words.*words='a b'", lambda: encode("a b")),
        (ValueError, "`ids` must be at least 0 and below the size 5 .*Received: 1 to 5",
         lambda: vocabulary.decode([1, 5])),
        (ValueError, "must be a vector of integers. Received: shape .2,., dtype float64",
         lambda: vocabulary.decode([1.0, 2.0])),
        (ValueError, "must have the shape .n, l.*shape .2,.", lambda: to_text([1, 2], vocabulary)),
        (ValueError, "`max_size` must be .* of at least 5", lambda: built(["a"], max_size=4)),
        (ValueError, "`min_count` must be a positive integer", lambda: built(["a"], min_count=0)),
        (ValueError, "Line 2 has an empty sentence", lambda: built(["a", ""])),
        (ValueError, "`lines_or_file` is empty", lambda: built([])),
        (TypeError, "must be a string. Received: b'a' as line 1", lambda: built([b"a"])),
        (ValueError, "`vocabulary` must be given unless", lambda: to_ids(["a"])),
        (TypeError, "`sentences` must be a list of strings", lambda: to_ids("a", vocabulary)),
        (ValueError, r"`sentences` must have words.*\['a', ''\]",
         lambda: to_ids(["a", ""], vocabulary)),
        (ValueError, "`sentences` must have words", lambda: to_ids([], vocabulary)),
        (ValueError, "`length` must leave room .* 4. Received: length=3",
         lambda: to_ids(["a a"], vocabulary, length=3)),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            call()
