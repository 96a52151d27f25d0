"""The transformer trunk. It knows no objective: only causal or bidirectional attention."""
