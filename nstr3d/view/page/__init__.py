"""The exported page: one HTML file that sphere traces a field in the browser.

`shader` converts a field to GLSL and tables, `curves` encodes streamlines, and `html` puts both
into the page through `template`. The page consists of ``page.html``, ``page.css``, ``field.glsl``,
``trace.glsl`` and the scripts ``*.js``. Only ``page.html`` is a template.
"""
