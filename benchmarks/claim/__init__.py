"""The page docs/STUDY.md: what the paper claims, tested at a size for two cores."""
