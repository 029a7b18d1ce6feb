"""initial"""

import sqlalchemy as sa
from alembic import op

revision = "1e541203d153"
down_revision = None
branch_labels = None
depends_on = None


# SQLite compares times as text, so this has as many digits as the times that SQLAlchemy writes.
NOW = {
    "postgresql": sa.text("clock_timestamp()"),
    "sqlite": sa.text("(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"),
}


def upgrade() -> None:
    now = NOW[op.get_context().dialect.name]
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("first_name", sa.String(length=100), nullable=False),
        sa.Column("last_name", sa.String(length=100), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
    )
    op.create_index(op.f("ix_users_created_at"), "users", ["created_at"])
    op.create_index(
        "ix_users_active_admins",
        "users",
        ["id"],
        postgresql_where=sa.text("is_admin AND is_active"),
        sqlite_where=sa.text("is_admin = 1 AND is_active = 1"),
    )
    op.create_table(
        "user_api_keys",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("hint", sa.String(length=40), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("pepper_id", sa.Integer(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("allowed_cidrs", sa.JSON(), nullable=True),
        sa.Column("rate_limit", sa.String(length=20), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lifetime_seconds", sa.BigInteger(), nullable=True),
        sa.Column("original_id", sa.String(length=16), nullable=False),
        sa.Column("replaced_by", sa.String(length=16), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_user_api_keys_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_api_keys")),
    )
    op.create_index(
        "ix_user_api_keys_user_id_created_at", "user_api_keys", ["user_id", "created_at", "id"]
    )
    op.create_index("ix_user_api_keys_created_at", "user_api_keys", ["created_at", "id"])
    op.create_index("ix_user_api_keys_expires_at", "user_api_keys", ["expires_at"])
    op.create_index(
        "ix_user_api_keys_revoked_at",
        "user_api_keys",
        ["revoked_at"],
        postgresql_where=sa.text("revoked_at IS NOT NULL"),
        sqlite_where=sa.text("revoked_at IS NOT NULL"),
    )
    op.create_table(
        "audit_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("action", sa.String(length=20), nullable=False),
        sa.Column("actor_user_id", sa.Uuid(), nullable=True),
        sa.Column("actor_key_id", sa.String(length=16), nullable=True),
        sa.Column("target_user_id", sa.Uuid(), nullable=False),
        sa.Column("target_key_id", sa.String(length=16), nullable=True),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.Column("changes_rights", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index("ix_audit_events_created_at", "audit_events", ["created_at", "id"])
    op.create_index(
        "ix_audit_events_target_key_id_created_at",
        "audit_events",
        ["target_key_id", "created_at", "id"],
    )
    op.create_index(
        "ix_audit_events_changes_rights",
        "audit_events",
        ["created_at"],
        postgresql_where=sa.text("changes_rights"),
        sqlite_where=sa.text("changes_rights"),
    )
    op.create_table(
        "api_key_usage",
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["key_id"],
            ["user_api_keys.id"],
            name=op.f("fk_api_key_usage_key_id_user_api_keys"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("key_id", "start", name=op.f("pk_api_key_usage")),
    )
    op.create_index(op.f("ix_api_key_usage_start"), "api_key_usage", ["start"])
    op.create_table(
        "api_key_usage_days",
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["key_id"],
            ["user_api_keys.id"],
            name=op.f("fk_api_key_usage_days_key_id_user_api_keys"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("key_id", "start", name=op.f("pk_api_key_usage_days")),
    )
    op.create_index(op.f("ix_api_key_usage_days_start"), "api_key_usage_days", ["start"])


def downgrade() -> None:
    op.drop_table("api_key_usage_days")
    op.drop_table("api_key_usage")
    op.drop_table("audit_events")
    op.drop_table("user_api_keys")
    op.drop_table("users")
