"""Break everything on purpose while marked processes run; then account for every mark."""
