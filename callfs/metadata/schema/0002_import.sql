-- The import that was begun into this store and not finished.

ALTER TABLE store ADD COLUMN import_id TEXT;
