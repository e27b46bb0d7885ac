"""The two levels of IR and the expression languages they share. No stage and no torch lives here."""
