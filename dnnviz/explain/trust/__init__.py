"""How far to believe an attribution: measures of one map, and a ranking of methods. `keys` can be imported without torch."""
