"""Text of a user's is shown as it is: nothing in it is carried out by a terminal, by rich or by a page."""

import io
from pathlib import Path

import pytest
from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from viker_lightning.errors import in_terminal, say
from viker_lightning.grids.tuning.page import markdown
from viker_lightning.reporting.section import Cell, Section, escaped
from viker_lightning.reporting.section import markdown as markdown_of
from viker_lightning.terminal.failures import ending
from viker_lightning.terminal.progress import Bar
from viker_lightning.terminal.shown import Plain, in_markdown

HOSTILE = "a\x1b[2Jb\x1b]0;t\x9c[k=3][/x]\u202e\ud800"
SEEN = r"a\x1b[2Jb\x1b]0;t\x9c[k=3][/x]\u202e\ud800"


def in_a_table(console):
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE, no_wrap=True)
    table.add_row(HOSTILE)
    console.print(table)


@pytest.mark.parametrize(
    "show", [lambda console: console.print(HOSTILE), lambda console: console.print(Text(HOSTILE)), in_a_table]
)
def test_a_console_shows_text_as_it_is(show):
    console = Plain(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    show(console)
    said = console.file.getvalue()
    assert SEEN in said and not {"\x1b", "\x9c", "\u202e"} & {*said}


def test_a_console_still_has_colours():
    console = Plain(file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(Text("a\x1b", style="bold"))
    assert console.file.getvalue() == "\x1b[1ma\\x1b\x1b[0m\n"


def test_a_line(capsys):
    say(HOSTILE)
    assert capsys.readouterr().out == SEEN + "\n" and ending(HOSTILE) == f"error: {SEEN}"
    assert in_terminal("é\tß\n") == "é\tß\n"


def test_a_bar_s_title_is_no_markup():
    console = Plain(file=io.StringIO(), width=120, force_terminal=True)
    with Bar("[k=3][/x]", 3, console=console) as bar:
        bar._display.refresh()
    assert "[k=3][/x]" in console.file.getvalue()


def test_markdown_has_no_html_of_a_user_s():
    assert in_markdown("<img src=x>") == "&lt;img src=x>" and in_markdown(3) == 3
    assert in_markdown(Markup("<image>")) == "<image>", "what code needs as it is"
    found = {"trials": [], "best": 0, "edges": {}, "worlds": [100], "space": {}}
    tuning = {"root": "mini", "about": "", "startup": 5, "methods": {"<script>": found}}
    page = markdown(tuning, Path("tuning.json"))
    assert "&lt;script>" in page and "<" not in page


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a `<run>` of <b>", "a `<run>` of &lt;b>"),
        ("<a>` and `<b>", "&lt;a>` and `&lt;b>"),
        ("a ` <b>\n` <i> `", "a ` &lt;b>\n` &lt;i> `"),
        ("``` <b> `", "``` &lt;b> `"),
        ("\\` <b> `", "\\` &lt;b> `"),
    ],
)
def test_code_stays_as_it_is_and_nothing_else(text, shown):
    assert escaped(text) == shown
    section = Section(text, ["", "value"], [[text, Cell("1", "best", "≠", "[0, 2]")]], text, [text])
    page = markdown_of([text, section])
    assert page.count(shown) == 5 and "| **1** ≠ [0, 2] |" in page
    assert markdown_of([section], escape=str).count(text) == 4


def test_bars_share_a_console():
    with Bar("outer", 3, shown=False) as outer, Bar("inner", 5, shown=False) as inner:
        assert outer._display.console is inner._display.console
