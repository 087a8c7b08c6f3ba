-- What an account may do. An account without a row may do everything; daily is
-- the most devices it may assign in a day, or 0.
CREATE TABLE policy (
	account         TEXT NOT NULL PRIMARY KEY,
	refuse_lifetime BIGINT NOT NULL,
	daily           BIGINT NOT NULL CHECK (daily >= 0),
	changed         BIGINT NOT NULL
);

-- How many devices an account with a daily limit has assigned in a day, by the
-- day's first moment.
CREATE TABLE policy_day (
	account TEXT NOT NULL,
	day     BIGINT NOT NULL,
	devices BIGINT NOT NULL,
	PRIMARY KEY (account, day)
);
