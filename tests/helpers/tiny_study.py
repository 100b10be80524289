"""A study of one tiny row, trained in a second."""

from vaezoo.studies import runner
from vaezoo.studies.study import Column, Protocol, Row, Study, Training

STUDY = Study(
    paper="du_vae",
    name="made",
    title="Made up",
    columns=(Column("au", "AU", "units", "active_units"),),
    rows=(
        Row(
            name="a",
            title="A",
            run=Training(
                name="tiny",
                preset="beta_vae_digits_mlp",
                data="digits",
                model={"latent_dim": 2, "beta": "LinearSchedule(1, unit='epochs')"},
                networks={"hidden_units": (8,), "decoder": {"hidden_units": (8,)}},
                training={"epochs": 4},
                reading={"limit": 128, "copies": 1},
                options={"validation": "none", "xla": False},
            ),
            published={"au": 2},
        ),
    ),
    protocol=Protocol(metrics=("active_units",), measures=("code_covariance",), limit=50),
)


def reproduce(folder, say, **options):
    """Does the row, with its run and record in a folder."""
    return runner.reproduce(
        STUDY, root=folder / "runs", results=folder / "results", say=say, **options
    )
