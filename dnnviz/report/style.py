"""The look of a report: light, and fit to be printed."""

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 28px 32px 60px; max-width: 980px; background: #fff; color: #1d2329; }
body { font: 14px/1.45 "Liberation Sans", Arial, Helvetica, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 8px; border-bottom: 1px solid #e4e6e8; padding-bottom: 4px; }
h3 { font-size: 14.5px; margin: 18px 0 4px; }
p { margin: 4px 0 8px; }
.small { color: #66707a; font-size: 12.5px; }
table { border-collapse: collapse; margin: 6px 0 10px; }
th, td { padding: 3px 14px 3px 0; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: 600; color: #66707a; font-size: 12.5px; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tbody tr { border-top: 1px solid #eceeef; }
figure { margin: 0 24px 0 0; display: inline-block; vertical-align: top; break-inside: avoid; }
svg { display: block; max-width: 100%; height: auto; }
.finding { border-left: 4px solid #c9ced3; padding: 2px 0 2px 12px; margin: 12px 0; break-inside: avoid; }
.finding h3 { margin-top: 0; }
.finding.attention { border-color: #b2182b; }
.finding.look { border-color: #b7791f; }
.mark { font-size: 12.5px; font-weight: 600; float: right; color: #66707a; }
.attention .mark { color: #b2182b; }
.look .mark { color: #b7791f; }
dl { margin: 0; }
dt { font-weight: 600; margin-top: 8px; }
dd { margin: 0; }
@media print {
  body { padding: 0; max-width: none; font-size: 11pt; }
  body { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2 { break-after: avoid; }
}
"""
