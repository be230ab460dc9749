-- The role and the database of the queue, with no more rights than they need.
--
-- The postgres image runs this once, on an empty volume. Running it again changes nothing but
-- the password, which it sets to SKDTUNE_DB_PASSWORD: that is how the password is reset.
--
--   psql -v ON_ERROR_STOP=1 -U postgres -f init.sql     (psql 15 or newer, as a superuser)

\set ON_ERROR_STOP on

-- Statements below carry the password: this session logs none of them, not even failed ones.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET client_min_messages = 'warning';

\set password ''
\getenv password SKDTUNE_DB_PASSWORD
SELECT length(:'password') < 16 AS password_is_too_short \gset
\if :password_is_too_short
DO $$ BEGIN
    RAISE EXCEPTION 'SKDTUNE_DB_PASSWORD is missing or shorter than 16 characters: set it to the output of "openssl rand -hex 24"';
END $$;
\endif

-- The role every skdtune process connects as. It owns one database and nothing else.
SELECT 'CREATE ROLE skdtune NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'skdtune') \gexec
SET password_encryption = 'scram-sha-256';
ALTER ROLE skdtune WITH LOGIN CONNECTION LIMIT 200 PASSWORD :'password';

SELECT 'CREATE DATABASE skdtune OWNER skdtune TEMPLATE template0 ENCODING ''UTF8'''
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'skdtune') \gexec
ALTER DATABASE skdtune OWNER TO skdtune;

-- What every role may do unless told otherwise: nothing, here and in the server's own database.
REVOKE ALL ON DATABASE skdtune FROM PUBLIC;
REVOKE ALL ON DATABASE postgres FROM PUBLIC;
\connect skdtune
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
