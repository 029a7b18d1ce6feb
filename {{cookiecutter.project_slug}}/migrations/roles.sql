-- Creates two roles: api_owner migrates the database, and api is the app. docs/operations.md has the command.
\getenv owner_password POSTGRES_OWNER_PASSWORD
\getenv app_password POSTGRES_APP_PASSWORD
\set ON_ERROR_STOP on
BEGIN;

CREATE ROLE api_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE api LOGIN PASSWORD :'app_password';
GRANT api_owner TO CURRENT_USER; -- for the SET ROLE below, where this role is no superuser

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO api_owner, api;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO api_owner;
GRANT USAGE ON SCHEMA public TO api;

-- Alembic would create this table later. The app only reads it.
SET LOCAL ROLE api_owner;
CREATE TABLE public.alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY);
GRANT SELECT ON public.alembic_version TO api;

-- The app reads and writes the rows of every other table, but cannot change or empty a table.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO api;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO api;

COMMIT;
