"""The style sheet of a report: one column, system fonts, light, dark and paper."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #fdfcf9; --ink: #1d1c1a; --soft: #5e5a53; --rule: #d9d4ca;
  --mark: #1f5a96; --panel: #f4f1ea; --alarm: #a3161c; --alarm-paper: #fdeceb;
  --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua",
    "URW Palladio L", "TeX Gyre Pagella", Georgia, "DejaVu Serif", serif;
  --sans: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial,
    "Liberation Sans", "DejaVu Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono",
    "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #17181a; --ink: #e9e6df; --soft: #a8a49b; --rule: #3a3b3e;
    --mark: #83b6ea; --panel: #202225; --alarm: #ff9d94; --alarm-paper: #3a1b1b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.6 var(--serif); -webkit-text-size-adjust: 100%;
}
main { max-width: 46rem; margin: 0 auto; padding: 3.5rem 1.5rem 4rem; }
h1, h2 { font-weight: 600; line-height: 1.25; text-wrap: balance; }
h1 { font-size: 1.9rem; margin: .3rem 0 .4rem; }
h2 {
  font-size: 1.2rem; margin: 2.8rem 0 .8rem; padding-top: .9rem;
  border-top: 1px solid var(--rule);
}
p { margin: 0 0 .9rem; }
.kicker, .dateline, th, dt, figcaption, summary, footer {
  font-family: var(--sans); color: var(--soft);
}
.kicker {
  font-size: .8rem; letter-spacing: .09em; text-transform: uppercase; margin: 0;
}
.dateline { font-size: .9rem; margin: 0 0 1.8rem; }
.alarm {
  border: 2px solid var(--alarm); background: var(--alarm-paper); color: var(--alarm);
  padding: .9rem 1.1rem; margin: 0 0 2rem; font-family: var(--sans);
}
.alarm strong { display: block; font-size: 1.1rem; letter-spacing: .02em; }
.alarm p { margin: .3rem 0 0; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: 0; margin: 0 0 1.4rem; border: 1px solid var(--rule); background: var(--panel);
}
.facts div { padding: .8rem 1rem .7rem; box-shadow: -1px -1px 0 var(--rule); }
.facts dt { font-size: .8rem; }
.facts dd {
  margin: 0; font-size: 1.35rem; line-height: 1.4; white-space: nowrap;
  font-variant-numeric: lining-nums;
}
.facts dd small {
  display: block; white-space: normal; font: .8rem/1.35 var(--sans);
  color: var(--soft);
}
.lead { font-size: 1.15rem; }
ul { margin: 0; padding-left: 1.15rem; }
li { margin: 0 0 .45rem; padding-left: .15rem; }
li::marker { color: var(--soft); }
.curves {
  display: grid; gap: 1.6rem;
  grid-template-columns: repeat(auto-fit, minmax(18.5rem, 1fr));
}
figure { margin: 0; break-inside: avoid; }
figure svg {
  display: block; width: 100%; height: auto; overflow: visible;
  font-family: var(--sans);
  stroke-linejoin: round; stroke-linecap: butt;
}
figcaption { font-size: .85rem; line-height: 1.45; margin-top: .5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .95rem; }
th, td {
  text-align: left; vertical-align: top; padding: .34rem .9rem .34rem 0;
  border-bottom: 1px solid var(--rule);
}
th { font-weight: 400; font-size: .88rem; line-height: 1.7; }
tbody th { width: 14.5rem; }
td { font-variant-numeric: lining-nums tabular-nums; overflow-wrap: anywhere; }
.right thead th, .right td { text-align: right; }
.grid thead th { vertical-align: bottom; line-height: 1.35; }
.grid td { overflow-wrap: normal; }
.scroll + p { margin-top: 1rem; }
thead th { border-bottom: 1px solid var(--soft); }
code, pre, td.hash { font-family: var(--mono); font-size: .84em; }
td.hash { font-size: .74rem; padding-right: 0; }
pre {
  background: var(--panel); border: 1px solid var(--rule); padding: 1rem 1.1rem;
  margin: 0; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere;
}
details { margin-top: 1.2rem; }
summary { cursor: pointer; font-size: .9rem; }
details[open] summary { margin-bottom: .7rem; }
footer {
  margin-top: 3rem; padding-top: .9rem; border-top: 1px solid var(--rule);
  font-size: .85rem;
}
@media print {
  :root {
    color-scheme: light; --paper: #fff; --ink: #000; --soft: #444; --rule: #bbb;
    --mark: #1f5a96; --panel: #fff; --alarm: #a3161c; --alarm-paper: #fff;
  }
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  h2 { break-after: avoid; }
  tr, li, .facts, .alarm { break-inside: avoid; }
  .curves { grid-template-columns: 1fr 1fr; }
}
"""
