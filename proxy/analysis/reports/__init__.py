"""The reports of `understudy compare`: one document of findings, said in three forms."""
