import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from app.settings import EnvSettings


def _check_folder(path: Path) -> Path:
    if not (path.is_dir() and os.access(path, os.W_OK)):
        raise ValueError("must be an existing folder that the app can write to")
    return path


class MetricsSettings(EnvSettings):
    metrics_enabled: bool = False
    prometheus_multiproc_dir: Annotated[Path, AfterValidator(_check_folder)] | None = None

    def export_folder(self) -> None:
        """Set the variable for prometheus_client, or delete it, as `.env` or an empty value say."""
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
        if self.prometheus_multiproc_dir:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.prometheus_multiproc_dir)
