"""Arrays in, plotly figures out: no run, no network, no dash."""
