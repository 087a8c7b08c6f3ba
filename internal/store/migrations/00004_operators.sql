-- The people and programs that run the installation. token is the hash of an
-- operator's token, password that of the password for the console; both may be
-- empty, and then there is none.
CREATE TABLE operator (
	name     TEXT NOT NULL PRIMARY KEY,
	role     TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
	token    TEXT NOT NULL DEFAULT '',
	password TEXT NOT NULL DEFAULT '',
	disabled BIGINT NOT NULL DEFAULT 0,
	created  BIGINT NOT NULL,
	used     BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX operator_token ON operator (token) WHERE token <> '';
