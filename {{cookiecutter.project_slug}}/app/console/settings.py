from app.settings import EnvSettings


class ConsoleSettings(EnvSettings):
    console_enabled: bool | None = None
