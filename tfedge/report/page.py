"""The frame of the HTML report: its style, and the places that `html.py` fills in."""

from __future__ import annotations

from string import Template

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { --ink: #1f2430; --muted: #667085; --line: #e4e7ec; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: #f7f8fa; color: var(--ink);
  font: 15px/1.5 Inter, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 8px; }
.lead, .help { color: var(--muted); }
.lead { margin: 0 0 20px; }
.help { font-size: 13px; margin: 0 0 8px; max-width: 80ch; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 16px; }
.card, section { background: #fff; border: 1px solid var(--line); border-radius: 10px; }
.card { padding: 16px 18px; color: var(--muted); font-size: 13px; }
.big { font-size: 26px; font-weight: 650; color: var(--ink); letter-spacing: -0.01em; }
.big span { font-size: 15px; font-weight: 500; color: var(--muted); letter-spacing: 0; }
section { margin-top: 24px; padding: 20px 22px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; margin-bottom: 10px; }
th { text-align: left; font-weight: 600; color: var(--muted); border-bottom: 1px solid #cfd4dc;
  padding: 6px 10px 6px 0; vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); padding: 6px 10px 6px 0; }
tbody tr:hover { background: #f5f8fb; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
details { border-top: 1px solid var(--line); padding: 8px 0; }
details:first-of-type { border-top: 0; }
summary { cursor: pointer; }
summary span { color: var(--muted); font-size: 13px; margin-left: 6px; }
details table { margin-top: 10px; font-size: 12px; }
.plot { width: 100%; }
@media print { body { background: #fff; } section, .card { break-inside: avoid; } }
</style>
<script>$plotly</script>
</head>
<body>
<main>
<h1>$title</h1>
$summary
$sections
</main>
</body>
</html>
""")
