"""The studies as data: every entry resolves."""

import pytest

from vaezoo import studies
from vaezoo.cli import catalog
from vaezoo.metrics.evaluate import FUNCTIONS
from vaezoo.studies.data import SETS
from vaezoo.studies.figures import FIGURES
from vaezoo.studies.measures import MEASURES

pytestmark = pytest.mark.one_backend
ROWS = [(study, row) for study in studies.STUDIES.values() for row in study.rows]


def test_names_are_unique():
    for study in studies.STUDIES.values():
        assert study.paper in studies.PAPERS
        names = [row.name for row in study.rows]
        assert len(names) == len(set(names)), study.key
        names = [column.name for column in study.columns]
        assert len(names) == len(set(names)), study.key


def test_published_values_are_numbers_of_columns():
    for study, row in ROWS:
        for name, value in row.published.items():
            assert study.column(name).name == name
            value, error = value if isinstance(value, tuple) else (value, 0.0)
            assert isinstance(value, int | float), (study.key, row.name, name)
            assert error >= 0


def test_rows_that_share_a_name_of_a_run_share_the_run():
    runs = {}
    for study, row in ROWS:
        if row.run is not None:
            assert runs.setdefault((study.paper, row.run.name), row.run) == row.run


def test_claims_are_about_rows_and_columns():
    for study in studies.STUDIES.values():
        for claim in study.claims:
            assert study.column(claim.column)
            for side in (claim.larger, claim.smaller):
                assert isinstance(side, float) or study.row(side)


def test_runs_name_presets_and_data():
    presets = catalog.read()
    for _, row in ROWS:
        if row.run is not None:
            assert row.run.preset in presets
            assert row.run.data in SETS


def test_protocols_and_figures_name_what_there_is():
    for study, row in ROWS:
        protocol = study.protocol_of(row)
        assert set(protocol.metrics) <= set(FUNCTIONS)
        assert set(protocol.options) <= set(protocol.metrics)
        assert set(protocol.measures) <= set(MEASURES)
        assert study.figure in (*FIGURES, "")


def test_all_papers_have_their_entries():
    counts = {paper: 0 for paper in studies.PAPERS}
    for study in studies.STUDIES.values():
        counts[study.paper] += len([row for row in study.rows if row.published])
    assert counts == {
        "du_vae": 3 * 14 + 11 + 11,
        "mae": 6 + 5 + 6 + 4 + 6 + 9 + 4 + 12,
        "vae_as": 5 + 1 + 2 * 12 + 14,
        "mu_vae": 2 * 6,
        "hebae": 1,
        "vaezoo": 0,
    }


def test_an_unknown_study_or_row_is_refused():
    with pytest.raises(ValueError, match="`study` must be one of those that `vaezoo reproduce`"):
        studies.find("vae_as/table9")
    with pytest.raises(ValueError, match="`rows` must be rows of vae_as/table2, for instance"):
        studies.reproduce("vae_as/table2", ["nothing"])
