"""The frame of a report that is watched: it asks whether there is a new page, and keeps the place where one reads."""

import html

from ctm_rl.agents.report.page import ASSETS, source_hash

STATE, REPORT = "/state", "/report"
"""Addresses of what the frame asks for."""
_PAGE = """\
<!DOCTYPE html>
<html lang="en" data-every="{every}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{name}</title>
<style>{style}</style>
</head>
<body>
<noscript>This page is kept up to date by JavaScript, which is turned off.</noscript>
<p id="state"><strong>{name}</strong> <span>The page is being made.</span></p>
<script>{script}</script>
</body>
</html>
"""


def render_frame(name: str, every: float) -> tuple[str, str]:
    """The frame as HTML, and its Content-Security-Policy: it loads nothing but what the same server has.

    Args:
        name: of the run.
        every: seconds between two questions.
    """
    style = (ASSETS / "watch.css").read_text(encoding="utf-8")
    script = (ASSETS / "watch.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {source_hash(script)}; style-src {source_hash(style)}; connect-src 'self'; "
        "frame-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return _PAGE.format(name=html.escape(name), every=f"{every:g}", style=style, script=script), policy
