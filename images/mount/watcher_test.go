package main

import "testing"

func TestEveryFolderOnTheWayIsWatchedForTheNextName(t *testing.T) {
	for path, want := range map[string]map[string]string{
		".":     {},
		"a":     {"/source": "a"},
		"a/b/c": {"/source": "a", "/source/a": "b", "/source/a/b": "c"},
	} {
		got := chainOf(path)
		if len(got) != len(want) {
			t.Errorf("%s: got %v", path, got)
		}
		for folder, name := range want {
			if got[folder] != name {
				t.Errorf("%s: got %v, want %v", path, got, want)
			}
		}
	}
}
