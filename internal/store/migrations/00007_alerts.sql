-- An operator hears of it when fewer than so many licenses of a pool are left; 0
-- is never.
ALTER TABLE pool ADD COLUMN threshold BIGINT NOT NULL DEFAULT 0;

-- Pools that ran low, written in the transaction that took the last unit above
-- the threshold. They are numbered in the order in which they were committed. due
-- is when the message about it is to be tried, and NULL when nothing is to be sent
-- any more.
CREATE TABLE alert (
	number    BIGINT NOT NULL PRIMARY KEY,
	time      BIGINT NOT NULL,
	account   TEXT NOT NULL,
	sku       TEXT NOT NULL,
	available BIGINT NOT NULL,
	threshold BIGINT NOT NULL,
	due       BIGINT,
	attempt   BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX alert_due ON alert (due) WHERE due IS NOT NULL;
INSERT INTO counter (name, value) VALUES ('alert', 0);
