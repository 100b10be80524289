"""What `vaezoo reproduce` answers before it trains."""

import pytest
from typer.testing import CliRunner

from vaezoo.cli.app import app
from vaezoo.cli.reproduce import seconds_of

pytestmark = pytest.mark.one_backend


def cli(*words, code=0):
    result = CliRunner().invoke(app, ["reproduce", *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


def test_without_a_study_all_are_listed(tmp_path):
    text = cli("--data-dir", tmp_path, "--results", tmp_path)
    assert "vae_as/table2" in text
    assert "mnist (not found)" in text


def test_options_take_several_words(tmp_path):
    text = cli("vae_as/table2", "--rows", "vae", "1_1", "--seeds", "0", "2", "--jobs")
    assert text.splitlines() == [
        f"vaezoo reproduce vae_as/table2 --rows {row} --seeds {seed}"
        for seed in (0, 2)
        for row in ("vae", "1_1")
    ]


def test_a_job_has_the_options_that_it_was_asked_with(tmp_path):
    given = ["--scale", "small", "--data", f"mnist={tmp_path}", "--root", tmp_path]
    (line,) = cli("hebae/figure2", "--rows", "vae_k2", "--jobs", *given).splitlines()
    words = line.split()
    assert words[:3] == ["vaezoo", "reproduce", "hebae/figure2"]
    for name, value in (
        ("--scale", "small"),
        ("--root", tmp_path),
        ("--data", f"mnist={tmp_path}"),
    ):
        assert words[words.index(name) + 1] == str(value)


def test_a_paper_stands_for_its_studies():
    lines = cli("mu_vae", "--jobs").splitlines()
    assert {line.split()[2].partition("/")[0] for line in lines} == {"mu_vae"}
    assert len({line.split()[2] for line in lines}) > 5
    assert len(cli("all", "--jobs").splitlines()) > len(lines)


def test_a_table_is_shown_with_its_published_numbers(tmp_path):
    text = cli("vae_as/table2", "--list", "--rows", "vae", "--results", tmp_path)
    assert "published" in text
    assert "73.45" in text
    assert "1_1" not in text


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400)])
def test_a_budget_is_a_time(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vae_as/table9"], "`study` must be one of those"),
        (["vae_as/table2", "--rows", "2_2"], "`rows` must be rows of vae_as/table2"),
        (["hebae", "--rows", "vae_k2"], "`--rows` needs a single study. Received: hebae"),
        (["mae/table1a", "--rows", "iwae_quoted"], "is only quoted by the paper"),
        (["vae_as/table2", "--budget", "2x"], "`--budget` must be a time"),
        (["vae_as/table2", "--data", "mnist"], "`--data` takes NAME=PATH"),
        (["vae_as/table2", "--data", "mnits=x.npz"], "for instance mnist"),
        (["vae_as/table2", "--data", "mnist=nothing.npz"], "No file or folder 'nothing.npz'"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, message):
    assert message in cli(*words, code=2)
