"""The tests read neither `.env` nor the environment, and never open the database named there."""

import os
import re

from app.settings import ROOT, EnvSettings, Settings

PEPPER = "gZ0b-3m1Qe7xU9fWc5sKt8yRj2vHnL4aPdXo6iTuEMk"

ENV_FILE = EnvSettings.model_config["env_file"]
EnvSettings.model_config["env_file"] = None
Settings.model_config["env_file"] = None

example = (ROOT / ".env.example").read_text("utf-8")
for variable in re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE):
    os.environ.pop(variable, None)

# What `app.main` needs when it is imported. No engine connects before it is used.
os.environ["DATABASE_URL"] = "sqlite:///./never-opened.db"
os.environ["API_KEY_PEPPERS"] = f"1:{PEPPER}"
