-- What the carrier "upstream" asked for, written before it asks, so that nothing
-- is asked for twice whatever breaks in between.

-- One request upstream. remote is the requestId that it was answered with, empty
-- while that is not known; tried is when it was sent last.
CREATE TABLE upstream (
	account TEXT NOT NULL,
	request TEXT NOT NULL,
	key     TEXT NOT NULL,
	sku     TEXT NOT NULL,
	action  TEXT NOT NULL CHECK (action IN ('assign', 'unassign')),
	sent    BIGINT NOT NULL,
	tried   BIGINT NOT NULL,
	remote  TEXT NOT NULL DEFAULT '',
	PRIMARY KEY (account, request, key)
) {clustered};
CREATE INDEX upstream_remote ON upstream (account, remote) WHERE remote <> '';

-- The tasks that were in one. batch is its key, empty where it was refused as a
-- whole and the task is to be sent again, with at most so many devices.
CREATE TABLE upstream_task (
	account TEXT NOT NULL,
	request TEXT NOT NULL,
	iccid   TEXT NOT NULL,
	imei    TEXT NOT NULL,
	batch   TEXT NOT NULL,
	most    BIGINT NOT NULL DEFAULT 0,
	outcome TEXT NOT NULL DEFAULT '' CHECK (outcome IN ('', 'done', 'refused')),
	code    TEXT NOT NULL DEFAULT '',
	comment TEXT NOT NULL DEFAULT '',
	PRIMARY KEY (account, request, iccid)
) {clustered} {hot};
-- It holds all that is looked for: else SQLite would read all of the account.
CREATE INDEX upstream_task_sim ON upstream_task (account, iccid, batch);
