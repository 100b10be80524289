"""Tables of benchmarks that are measured in parts."""

import pytest

from benchmarks import __main__, parts

pytestmark = pytest.mark.one_backend

ORDER = ("first", "second", "third")
COLUMNS = ("part", "seconds", "met")


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Path of a page with two empty tables."""
    for module in (parts, __main__):
        monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(parts, "measured", lambda: "today")
    path = tmp_path / "README.md"
    path.write_text("Above\n<!-- some -->\n<!-- end -->\n<!-- other -->\n<!-- end -->\nBelow\n")
    return path


def publish(*parts_of_it, columns=COLUMNS, marker="some"):
    parts.publish_parts("Title", columns, parts_of_it, ORDER, marker)


def rows(path, marker="some"):
    block = path.read_text().partition(f"<!-- {marker} -->\n")[2].partition("<!-- end -->")[0]
    return [line for line in block.splitlines() if line.startswith("| ")]


def test_a_table_has_its_title_its_columns_and_the_day(page):
    publish(("first", [["1.0", "yes"], ["2.0", "no"]]))
    assert page.read_text() == (
        "Above\n<!-- some -->\nTitle\n\n| part | seconds | met | measured |\n"
        "| --- | --- | --- | --- |\n| first | 1.0 | yes | today |\n| first | 2.0 | no | today |\n"
        "<!-- end -->\n<!-- other -->\n<!-- end -->\nBelow\n"
    )


def test_rows_of_other_parts_stay_in_their_order(page, monkeypatch):
    publish(("third", [["3", "yes"]]), ("first", [["1", "yes"]]))
    monkeypatch.setattr(parts, "measured", lambda: "tomorrow")
    publish(("second", [["2", "yes"]]), ("first", [["0", "no"]]))
    assert rows(page)[2:] == [
        "| first | 0 | no | tomorrow |",
        "| second | 2 | yes | tomorrow |",
        "| third | 3 | yes | today |",
    ]
    assert rows(page, "other") == []


def test_what_was_measured_is_kept_when_a_later_part_fails(page):
    def failing():
        yield "first", [["1", "yes"]]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        parts.publish_parts("Title", COLUMNS, failing(), ORDER, "some")
    assert rows(page)[2:] == ["| first | 1 | yes | today |"]


def test_rows_of_other_columns_and_unknown_parts_go(page):
    publish(("first", [["1", "yes"]]), ("unknown", [["9", "no"]]))
    assert len(rows(page)) == 3
    publish(("second", [["2", "yes", "more"]]), columns=(*COLUMNS, "floor"))
    assert rows(page)[2:] == ["| second | 2 | yes | more | today |"]


def test_nothing_is_written_without_a_marker(page, capsys):
    before = page.read_text()
    publish(("first", [["1.5", "yes"]]), marker=None)
    assert page.read_text() == before
    assert "1.5" in capsys.readouterr().out
