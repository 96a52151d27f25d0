"""The page around a report: one HTML file, no script, nothing loaded from elsewhere."""

from collections.abc import Sequence
from html import escape

CSS = """
:root { color-scheme: light; --ink: #1f2328; --muted: #59636e; --line: #d8dee4; --panel: #f6f8fa; --accent: #0072b2;
  --warm: #d55e00; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 1060px; margin: 0 auto; padding: 2.2rem 1.25rem 4rem; }
h1 { font-size: 1.05rem; font-weight: 600; color: var(--muted); margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 3rem 0 .6rem; letter-spacing: -.01em; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
.lead { font-size: 1.5rem; line-height: 1.35; font-weight: 600; letter-spacing: -.015em; margin: 0 0 .8rem;
  max-width: 50rem; }
.muted, figcaption { color: var(--muted); font-size: .9rem; }
.cards { display: grid; grid-template-columns: repeat(3, 1fr); gap: .8rem; margin: 1.4rem 0; }
.card { border: 1px solid var(--line); border-radius: 10px; padding: .9rem 1rem; background: var(--panel); }
.card b { display: block; font-size: 1.55rem; white-space: nowrap; line-height: 1.2; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.card > span { color: var(--muted); font-size: .87rem; }
a { color: var(--accent); }
figure { margin: 1.2rem 0; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
figure img { display: block; width: 100%; height: auto; }
figure img { max-width: 560px; }
figure.wide img { min-width: 620px; max-width: none; }
figcaption { margin-top: .4rem; max-width: 46rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 1.5rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .38rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--muted); border-bottom-width: 2px; vertical-align: bottom; }
th.text, td.text { text-align: left; }
tbody tr:hover { background: var(--panel); }
.tall { max-height: 32rem; overflow: auto; border: 1px solid var(--line); border-radius: 8px; }
.tall th { position: sticky; top: 0; background: #fff; }
.pill { display: inline-block; border-radius: 99px; padding: 0 .5rem; font-size: .78rem; font-weight: 600;
  border: 1px solid currentColor; }
.ok, .interpolated { color: #116329; } .edge, .no_minimum, .too_few, .warning, .extrapolated { color: #8a4600; }
tr:has(+ .remark) td { border-bottom: 0; padding-bottom: 0; }
.remark td { color: var(--muted); font-size: .82rem; white-space: normal; padding-top: .1rem; }
.error, .left-out { color: #b42318; } .note { color: var(--muted); }
ul.findings { list-style: none; margin: .6rem 0; padding: 0; }
ul.findings li { padding: .6rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
ul.findings span.remedy { display: block; color: var(--muted); font-size: .9rem; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem;
  overflow-x: auto; font-size: .85rem; line-height: 1.5; }
@media (max-width: 1000px) {
  table { font-size: .82rem; }
  th, td { padding: .36rem .42rem; }
}
@media (max-width: 600px) {
  main { padding-top: 1.3rem; }
  .lead { font-size: 1.22rem; }
  th, td { padding: .34rem .5rem; }
  .cards { grid-template-columns: repeat(2, 1fr); gap: .6rem; }
  .card { padding: .7rem .8rem; }
  .card b { font-size: 1.2rem; }
}
@media print {
  .tall { max-height: none; overflow: visible; }
  h2 { break-after: avoid; }
  figure { break-inside: avoid; }
}
"""


def page(title: str, body: str) -> str:
    """A whole HTML document around `body`; the policy forbids it to run or fetch anything."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def table(
    head: list[str], rows: Sequence[list[str] | str], text_columns: int = 1, caption: str = "", tall: bool = False
) -> str:
    """An HTML table that scrolls by itself; cells are HTML already, the heads and the caption plain text.

    A row that is a string is a remark about the row above it.
    """
    kinds = ["text" if index < text_columns else "" for index in range(len(head))]
    top = "".join(_cell("th", kind, escape(name)) for kind, name in zip(kinds, head, strict=True))
    body = "".join(_row(row, kinds) for row in rows)
    said = f'<p class="muted">{escape(caption)}</p>' if caption else ""
    where = "tall" if tall else "scroll"
    return f'{said}<div class="{where}"><table><thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'


def _row(row: list[str] | str, kinds: list[str]) -> str:
    if isinstance(row, str):
        return f'<tr class="remark"><td></td><td class="text" colspan="{len(kinds) - 1}">{row}</td></tr>\n'
    return "<tr>" + "".join(_cell("td", kind, cell) for kind, cell in zip(kinds, row, strict=True)) + "</tr>\n"


def _cell(tag: str, kind: str, inner: str) -> str:
    return f'<{tag} class="{kind}">{inner}</{tag}>' if kind else f"<{tag}>{inner}</{tag}>"


def pill(label: str, kind: str) -> str:
    """A small coloured label."""
    return f'<span class="pill {escape(kind, quote=True)}">{escape(label)}</span>'
