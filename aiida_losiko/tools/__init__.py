"""What a person looks at: tables, figures, provenance queries."""
