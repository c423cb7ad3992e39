"""What trained networks come to: predictions, confusions, corrections of the bias, features."""
