-- A stuck task is due at the end of time, so that the index of what is due leads to
-- it: those of an account are few among very many tasks.
UPDATE task SET carrier_due = 4611686018427387904 WHERE phase = 'stuck';

-- Of a request's callbacks that ended, those that nobody acknowledged: sent in
-- vain, or not sent for lack of a listener. It is what an operator looks for first.
ALTER TABLE request ADD COLUMN unacked BIGINT NOT NULL DEFAULT 0;
UPDATE request SET unacked = (SELECT count(*) FROM task t WHERE t.account = request.account AND t.request = request.id
	AND t.phase = 'ended' AND t.status NOT BETWEEN 200 AND 299);
