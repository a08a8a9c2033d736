-- With a default, so that the version before this one can go on inserting: a rollback does not
-- take migrations back.
ALTER TABLE orders ADD COLUMN note TEXT NOT NULL DEFAULT '';
