"""What is known of a run on one page that needs nothing else: `dnnviz report`, and the button on the diagnosis page."""
