-- Operators who are signed in to the console.
CREATE TABLE operator_session (
	hash     TEXT NOT NULL PRIMARY KEY,
	operator TEXT NOT NULL,
	opened   BIGINT NOT NULL,
	used     BIGINT NOT NULL
);
CREATE INDEX operator_session_operator ON operator_session (operator);
