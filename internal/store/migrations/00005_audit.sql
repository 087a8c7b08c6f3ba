-- Who changed what. An entry is written in the transaction of its change, and
-- gets its number and hash when it is sealed into the chain; both never change
-- again. before and after are small JSON texts.
CREATE TABLE audit (
	id      TEXT NOT NULL PRIMARY KEY,
	time    BIGINT NOT NULL,
	who     TEXT NOT NULL,
	via     TEXT NOT NULL,
	origin  TEXT NOT NULL,
	action  TEXT NOT NULL,
	account TEXT NOT NULL,
	target  TEXT NOT NULL,
	before  TEXT NOT NULL,
	after   TEXT NOT NULL,
	number  BIGINT,
	hash    TEXT NOT NULL DEFAULT ''
);
CREATE INDEX audit_time ON audit (time, id);
CREATE UNIQUE INDEX audit_number ON audit (number) WHERE number IS NOT NULL;
CREATE INDEX audit_unsealed ON audit (time, id) WHERE number IS NULL;

-- The head of the chain, which every sealing moves on, and its anchor: the last
-- entry that was deleted because it was old.
CREATE TABLE seal (
	name          TEXT NOT NULL PRIMARY KEY,
	number        BIGINT NOT NULL,
	hash          TEXT NOT NULL,
	anchor_number BIGINT NOT NULL,
	anchor_hash   TEXT NOT NULL
);
INSERT INTO seal (name, number, hash, anchor_number, anchor_hash) VALUES ('audit', 0, '', 0, '');
