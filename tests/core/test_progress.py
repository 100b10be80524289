import pytest
from rich.console import Console

from vaezoo.core.progress import stages, tracked

pytestmark = pytest.mark.one_backend


@pytest.fixture
def screen(monkeypatch):
    """Function of whether there is a terminal: what rich prints goes to the console returned."""

    def make(terminal):
        console = Console(force_terminal=terminal, width=80, record=True)
        monkeypatch.setattr("rich.get_console", lambda: console)
        monkeypatch.setattr("rich.progress.get_console", lambda: console)
        return console

    return make


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_are_shown_on_terminals_where_asked_for(screen, terminal, capsys):
    screen(terminal)
    assert list(tracked(range(3), "3 samples")) == [0, 1, 2]
    with stages(2, shown=True) as begin:
        begin("first")
        begin("second")
    shown = capsys.readouterr()
    # Not even an empty line.
    assert bool(shown.out) == terminal
    assert ("3 samples" in shown.out) == terminal
    assert ("second" in shown.out) == terminal
    assert shown.err == ""


def test_nothing_is_shown_unless_asked_for(screen, capsys):
    screen(True)
    assert list(tracked(range(3), None)) == [0, 1, 2]
    with stages(2, shown=False) as begin:
        begin("first")
    assert capsys.readouterr() == ("", "")
