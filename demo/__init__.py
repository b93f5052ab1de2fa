"""The demo: student against teacher on one picture, side by side, with the credit that each token got."""
