"""stamp of api keys"""

import sqlalchemy as sa
from alembic import op

revision = "7c40be0a9d12"
down_revision = "1e541203d153"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table(
        "api_key_stamp",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key_stamp")),
    )
    op.bulk_insert(table, [{"id": 1, "number": 0}])


def downgrade() -> None:
    op.drop_table("api_key_stamp")
