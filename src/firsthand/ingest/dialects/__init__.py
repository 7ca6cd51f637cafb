"""One file for each convention by which programs describe model and tool calls in the attributes of spans."""
