"""What a run shows when it is over: the table, the plots and the page of sample rollouts."""
