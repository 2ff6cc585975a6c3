package policies

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestTheAddressOfASandboxIsFoundAmongThoseGivenAway(t *testing.T) {
	directory := t.TempDir()
	for name, content := range map[string]string{
		"10.244.0.2": "abc\r\neth0", "10.244.0.3": "def\r\neth0", "last_reserved_ip.0": "def", "lock": "",
	} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if address, err := findAddress(directory, "def"); address != "10.244.0.3" || err != nil {
		t.Errorf("got %q, %v", address, err)
	}
	for _, unknown := range []string{"xyz", ""} {
		if _, err := findAddress(directory, unknown); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: got %v", unknown, err)
		}
	}
}
