"""The exported page: one HTML file that sphere traces a field in the browser.

`shader` turns a field into GLSL and tables; `html` puts GLSL and tables into the page through
`template`. The page itself is ``page.html``, ``page.css``, ``field.glsl``, ``trace.glsl`` and the
scripts ``*.js``. Only ``page.html`` is a template.
"""
