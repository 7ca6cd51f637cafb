"""Statistics: intervals, paired differences, corrections, power, agreement, and figures of a whole corpus."""
