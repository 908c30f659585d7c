"""The figures in README and docs are those of the results files."""

from benchmarks.__main__ import PAGES, ROOT, TABLES, main


def test_tables_are_up_to_date() -> None:
    assert main(["tables", "--check"]) == 0


def test_every_table_is_shown() -> None:
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    for name in TABLES:
        assert f"<!-- begin {name} -->" in text
