// Package objects is what everybody needs who follows objects of the API.
package objects

import (
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"
)

// Whenever has change called with every object that comes, changes or goes.
func Whenever(change func()) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { change() },
		UpdateFunc: func(any, any) { change() },
		DeleteFunc: func(any) { change() },
	}
}

// WithoutManagedFields is for informers: it keeps what nobody here reads out of memory.
func WithoutManagedFields(object any) (any, error) {
	// What tells of a deletion that was missed is no object.
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}
