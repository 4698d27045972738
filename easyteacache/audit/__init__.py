"""Find borrowed, mistyped and misused coefficients in other engines' sources."""
