"""How much memory a training, a prediction and a merge will take, forecast before anything starts."""
