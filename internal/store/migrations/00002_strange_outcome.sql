-- Outcomes that a carrier brought by itself and that cannot be true of the task
-- they name, or name none: said of it so many times, first and last then. Kept for
-- an operator to look into.
CREATE TABLE strange_outcome (
	account TEXT NOT NULL,
	request TEXT NOT NULL,
	iccid   TEXT NOT NULL,
	verdict TEXT NOT NULL CHECK (verdict IN ('done', 'refused')),
	result  TEXT NOT NULL,
	code    TEXT NOT NULL DEFAULT '',
	comment TEXT NOT NULL DEFAULT '',
	times   BIGINT NOT NULL DEFAULT 1,
	first   BIGINT NOT NULL,
	last    BIGINT NOT NULL,
	PRIMARY KEY (account, request, iccid, verdict)
) {clustered};
