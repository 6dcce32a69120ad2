"""The exported page: one HTML file that sphere traces a field in the browser.

`shader` turns a field into GLSL and tables, `html` puts them into the page. The page itself is
``page.html``, ``page.css``, ``field.glsl``, ``trace.glsl`` and the scripts ``*.js``, as they are.
"""
