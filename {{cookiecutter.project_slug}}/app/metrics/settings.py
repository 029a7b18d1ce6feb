from app.settings import EnvSettings


class MetricsSettings(EnvSettings):
    metrics_enabled: bool = False
