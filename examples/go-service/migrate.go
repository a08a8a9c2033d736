package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// migrate applies what is pending, in the order of the names, and stops at the first failure.
//
// There is no database in this example: to apply a migration is to record it. With one, its SQL and
// a row in a table of applied migrations would go into the same transaction, at the marked place.
func migrate(migrations, state string) error {
	names, err := pending(migrations, state)
	if err != nil {
		return fmt.Errorf("cannot migrate: %w", err)
	}
	for _, name := range names {
		sql, err := os.ReadFile(filepath.Join(migrations, name))
		if err != nil {
			return fmt.Errorf("cannot migrate: %w", err)
		}
		// here: begin, execute the SQL, record, commit
		if err := record(state, name, sql); err != nil {
			return fmt.Errorf("cannot record migration %s: %w", name, err)
		}
		fmt.Printf("applied %s\n", name)
	}
	if len(names) == 0 {
		fmt.Println("nothing to apply")
	}
	return nil
}

// pending gives the names of the migrations that are not recorded in the state folder. What is
// recorded and not in the folder does not matter: after a rollback the database is ahead.
func pending(migrations, state string) ([]string, error) {
	entries, err := os.ReadDir(migrations) // sorted
	if err != nil {
		return nil, err
	}
	var names []string
	found := false
	for _, entry := range entries {
		name := entry.Name()
		if filepath.Ext(name) != ".sql" {
			continue
		}
		found = true
		sql, err := os.ReadFile(filepath.Join(migrations, name))
		if err != nil {
			return nil, err
		}
		applied, err := os.ReadFile(filepath.Join(state, "migrations", name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			names = append(names, name)
		case err != nil:
			return nil, err
		case !bytes.Equal(sql, applied):
			return nil, fmt.Errorf("%s was changed after it was applied; write a new one", name)
		}
	}
	if !found {
		return nil, fmt.Errorf("there is no .sql file in %s", migrations)
	}
	return names, nil
}

// record keeps a copy of an applied migration, which is complete and on the disk, or not there.
func record(state, name string, sql []byte) error {
	folder := filepath.Join(state, "migrations")
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return err
	}
	draft, err := os.CreateTemp(folder, "."+name+".*")
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name()) // gone already if all went well
	_, err = draft.Write(sql)
	if err == nil {
		err = draft.Sync()
	}
	if closing := draft.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(draft.Name(), filepath.Join(folder, name))
	}
	if err == nil {
		err = syncFolder(folder)
	}
	return err
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}
