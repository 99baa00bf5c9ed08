"""Published figures as data, exactly as printed, one file per paper."""
