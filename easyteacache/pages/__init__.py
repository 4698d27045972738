"""Components of this project's web pages: charts, plan strips, glossary, style and script, for the catalogue and for reports."""
