"""The report: content, tables, figures and templates."""
