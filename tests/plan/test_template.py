"""The template's few statements mean what Jinja2 means by them."""

from __future__ import annotations

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.plan.slurm_script import FILTERS
from clusterseg.plan.template import fill_in
from tests.plan.plans import TEMPLATE

JINJA = jinja2.Environment(
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
    autoescape=False,
)
JINJA.filters |= FILTERS
OTHER = """a {{ x }}{{ y | quote }} b
{% if y %}
  {% for k, v in m.items() %}
  {{ k }}={{ v | quote }}{% raw %}{% endraw %}
  {% endfor %}
{% endif %}
{% for one in l %}
{% if one %}
{{ one }}
{% endif %}
{% endfor %}
no end of line""".replace("{% raw %}{% endraw %}", "")

texts = st.text(max_size=8) | st.sampled_from(["{{ x }}", "{% if x %}", "\n", "'", "{#", ""])


@settings(deadline=None)
@given(
    options=st.lists(texts.filter(str.isprintable).map("--a=".__add__), max_size=3),
    summary=texts,
    directory=texts,
    scrubbing=texts,
    environment=st.dictionaries(st.from_regex(r"[A-Z]{1,3}", fullmatch=True), texts, max_size=3),
    modules=st.lists(texts, max_size=2),
    setup=st.lists(texts, max_size=2),
    launch=texts,
)
def test_the_batch_script_is_what_jinja_makes_of_it(**values: object) -> None:
    assert fill_in(TEMPLATE, values, FILTERS) == JINJA.from_string(TEMPLATE).render(values)


@given(
    x=texts,
    y=texts,
    m=st.dictionaries(texts, texts, max_size=3),
    l=st.lists(texts, max_size=3),
)
def test_statements_may_stand_within_each_other(**values: object) -> None:
    assert fill_in(OTHER, values, FILTERS) == JINJA.from_string(OTHER).render(values)


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{ y }}\n", KeyError),
        ("{{ x | other }}\n", KeyError),
        ("{% if y %}\n{% endif %}\n", KeyError),
        ("{% for a in x %}\n", ValueError),
        ("{% if x == 1 %}\n{% endif %}\n", ValueError),
        ("{% include 'x' %}\n", ValueError),
    ],
)
def test_what_it_can_not_do_is_an_error(template: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        fill_in(template, {"x": "a"}, FILTERS)
