package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

func claimOptions() controller.ProvisionOptions {
	return controller.ProvisionOptions{
		PVName:       "pvc-1",
		StorageClass: &storagev1.StorageClass{ReclaimPolicy: ptr.To(v1.PersistentVolumeReclaimRetain)},
		PVC: &v1.PersistentVolumeClaim{Spec: v1.PersistentVolumeClaimSpec{
			AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteMany},
			Resources: v1.VolumeResourceRequirements{
				Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")},
			},
		}},
	}
}

func TestAVolumeIsADirectoryThatAnyUserMayWrite(t *testing.T) {
	provisioner := volumeProvisioner{directory: t.TempDir(), nodeName: "node"}
	volume, _, err := provisioner.Provision(context.Background(), claimOptions())
	if err != nil {
		t.Fatal(err)
	}
	state, err := os.Stat(volume.Spec.Local.Path)
	if err != nil || state.Mode().Perm() != 0o777 {
		t.Errorf("got %v, %v", state, err)
	}
	spec := volume.Spec
	size := spec.Capacity[v1.ResourceStorage]
	if spec.PersistentVolumeReclaimPolicy != v1.PersistentVolumeReclaimRetain || size.String() != "1Gi" ||
		spec.AccessModes[0] != v1.ReadWriteMany {
		t.Errorf("got %+v", spec)
	}

	if err := provisioner.Delete(context.Background(), volume); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(spec.Local.Path); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
	if err := provisioner.Delete(context.Background(), volume); err != nil {
		t.Errorf("deleting again: %v", err)
	}
}

func TestDirectoriesElsewhereAreNeverDeleted(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	for _, path := range []string{outside, directory, filepath.Join(directory, "..", filepath.Base(directory))} {
		volume := &v1.PersistentVolume{}
		volume.Spec.Local = &v1.LocalVolumeSource{Path: path}
		err := volumeProvisioner{directory: directory}.Delete(context.Background(), volume)
		if ignored := (*controller.IgnoredError)(nil); !errors.As(err, &ignored) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

func TestWhatADirectoryCannotBeIsRefusedWithAReason(t *testing.T) {
	snapshot := &v1.TypedLocalObjectReference{APIGroup: ptr.To("snapshot.storage.k8s.io"), Kind: "VolumeSnapshot", Name: "before"}
	for reason, change := range map[string]func(*controller.ProvisionOptions){
		"VolumeSnapshot before": func(o *controller.ProvisionOptions) { o.PVC.Spec.DataSource = snapshot },
		"Database shop": func(o *controller.ProvisionOptions) {
			o.PVC.Spec.DataSourceRef = &v1.TypedObjectReference{Kind: "Database", Name: "shop"}
		},
		"spec.selector": func(o *controller.ProvisionOptions) {
			o.PVC.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
		},
		"volumeAttributesClassName": func(o *controller.ProvisionOptions) { o.PVC.Spec.VolumeAttributesClassName = ptr.To("fast") },
		"has parameters":            func(o *controller.ProvisionOptions) { o.StorageClass.Parameters = map[string]string{"type": "ssd"} },
	} {
		directory := t.TempDir()
		options := claimOptions()
		change(&options)
		_, _, err := volumeProvisioner{directory: directory}.Provision(context.Background(), options)
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: got %v", reason, err)
		}
		if entries, err := os.ReadDir(directory); err != nil || len(entries) > 0 {
			t.Errorf("%s: left %v, %v", reason, entries, err)
		}
	}
}
