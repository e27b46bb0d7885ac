"""The two levels of IR and the expressions they share. No stage and no torch lives here."""
