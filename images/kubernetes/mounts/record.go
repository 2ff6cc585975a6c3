package mounts

import (
	"encoding/json"
	"path"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// record is a mount as the command line wrote it into a ConfigMap (src/model/mounts.ts).
type record struct {
	id     string
	rootID string
	// Relative to the root of its mount container.
	path string
	// For messages: where it is on the host.
	source string
	isFile bool
	// Of the workload; empty for a mount that is only on the node.
	namespace string
	// Path in the container; empty for a mount that is only on the node.
	target     string
	isReadOnly bool
	// Relative to the target.
	excluded []string
	// Mount whose place holds this one's, or empty.
	parent string
	events string
}

func parseRecord(object *v1.ConfigMap) (record, bool) {
	fields := object.Data
	r := record{
		id:         fields["id"],
		rootID:     fields["rootId"],
		path:       fields["path"],
		source:     fields["source"],
		isFile:     fields["sourceType"] == "File",
		namespace:  fields["namespace"],
		target:     fields["target"],
		isReadOnly: fields["readOnly"] == "true",
		parent:     fields["parent"],
		events:     fields["events"],
	}
	// What does not parse is not excluded: the mount itself still works.
	_ = json.Unmarshal([]byte(fields["excluded"]), &r.excluded)
	// The id becomes the name of a folder.
	return r, r.id != "" && r.id != "." && r.id != ".." && !strings.ContainsAny(r.id, "/\x00") && r.path != ""
}

// below is where this mount lies inside of its parent's place.
func (r record) below(parent record) string {
	return strings.TrimPrefix(path.Clean(r.target), path.Clean(parent.target)+"/")
}
