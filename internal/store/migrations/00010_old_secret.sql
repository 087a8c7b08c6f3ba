-- The secret of an application that another has replaced, and its token: taken as
-- well until it ends. Older versions know the new secret alone.
CREATE TABLE old_secret (
	application TEXT NOT NULL PRIMARY KEY,
	hash        TEXT NOT NULL,
	nonce       TEXT NOT NULL,
	issued      BIGINT NOT NULL,
	token       TEXT NOT NULL,
	ends        BIGINT NOT NULL
);
CREATE INDEX old_secret_token ON old_secret (token) WHERE token <> '';
CREATE INDEX old_secret_ends ON old_secret (ends);
