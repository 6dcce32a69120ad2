"""Values that are filled into a page are escaped."""

import jinja2
import pytest

from nstr3d.view.page.template import fill


def test_values_are_escaped_unless_the_template_says_otherwise() -> None:
    page = fill("<p>{{ word }} {{ word | safe }}</p>\n", word="<b>&'\" {{ word }}")
    assert page == "<p>&lt;b&gt;&amp;&#39;&#34; {{ word }} <b>&'\" {{ word }}</p>\n"


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="word"):
        fill("{{ word }}")
