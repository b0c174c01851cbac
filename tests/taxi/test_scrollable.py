import re

from taxi.scrollable import make_tables_scrollable

TABLE = "<table><tbody></tbody></table>"


def test_each_table_is_a_region_that_the_keyboard_reaches_under_a_name_of_its_own() -> None:
    def names(html: str) -> list[str]:
        return re.findall(r'role="region" tabindex="0" aria-label="(.+?)"><table>', html)

    page = make_tables_scrollable("Table", f"<p>one</p>{TABLE}<p>two</p>{TABLE}")
    assert names(page) == ["Table 1", "Table 2"]
    assert page.count("</table></div>") == 2
    assert names(make_tables_scrollable("Trips & errors", TABLE)) == ["Trips &amp; errors"]
    assert make_tables_scrollable("Table", "<p>none</p>") == "<p>none</p>"
