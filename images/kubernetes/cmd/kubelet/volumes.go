package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"sandbar.dev/lib/agent"
)

// runProvisioner serves claims of StorageClasses with our provisioner name.
func runProvisioner(ctx context.Context, config agent.Config, clients clients) error {
	client, err := clients.new(provisionerKubeconfig)
	if err != nil {
		return err
	}
	provisioner := volumeProvisioner{directory: agent.VolumesDirectory, nodeName: config.NodeName}
	controller.NewProvisionController(ctx, client, agent.ProvisionerName, provisioner,
		// There is only this one.
		controller.LeaderElection(false),
		controller.MetricsPort(0),
		controller.Threadiness(2),
		// A volume whose directory cannot be removed yet must not be given up.
		controller.FailedDeleteThreshold(0),
		controller.FailedProvisionThreshold(0),
	).Run(ctx)
	return ctx.Err()
}

// volumeProvisioner keeps every volume as a directory of the node, named as its PersistentVolume.
type volumeProvisioner struct {
	directory string
	nodeName  string
}

// Provision makes the directory and describes it as a volume of this node.
func (p volumeProvisioner) Provision(_ context.Context, options controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	claim := options.PVC
	if err := refusal(claim.Spec, options.StorageClass); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	path := filepath.Join(p.directory, options.PVName)
	if err := makeVolumeDirectory(path); err != nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("make directory of volume %s: %w", options.PVName, err)
	}
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			// On a single node every access mode holds. That only one pod uses a volume is the scheduler's to see to,
			// and that nobody writes to it is said by the pods, as in any cluster.
			AccessModes:  claim.Spec.AccessModes,
			MountOptions: options.StorageClass.MountOptions,
			Capacity: v1.ResourceList{
				v1.ResourceStorage: claim.Spec.Resources.Requests[v1.ResourceStorage],
			},
			// A local volume, not a host path: the kubelet then applies fsGroup to it.
			PersistentVolumeSource: v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: path}},
			NodeAffinity:           affinityTo(p.nodeName),
		},
	}, controller.ProvisioningFinished, nil
}

// refusal says what a directory of the node cannot be: a claim that asks for it gets an event instead of less than it
// asked for. Raw blocks are refused by upstream's library.
func refusal(claim v1.PersistentVolumeClaimSpec, class *storagev1.StorageClass) error {
	switch {
	case claim.DataSourceRef != nil:
		return fromSource(claim.DataSourceRef.Kind, claim.DataSourceRef.Name)
	case claim.DataSource != nil:
		return fromSource(claim.DataSource.Kind, claim.DataSource.Name)
	case claim.Selector != nil:
		return errors.New("a claim with a selector takes volumes that are there already, and none is made for it: remove spec.selector")
	case claim.VolumeAttributesClassName != nil && *claim.VolumeAttributesClassName != "":
		return errors.New("volume attributes need a CSI driver, and this is none: remove spec.volumeAttributesClassName")
	case len(class.Parameters) > 0:
		return fmt.Errorf("StorageClass %s has parameters, and %s knows none: remove them", class.Name, agent.ProvisionerName)
	default:
		return nil
	}
}

// A volume that is made empty instead would look like one whose data are lost.
func fromSource(kind, name string) error {
	return fmt.Errorf("volumes are not made from other volumes or snapshots (%s %s): remove spec.dataSource and copy the data in a pod, "+
		"or keep the state of the whole cluster with sandbar snapshot", kind, name)
}

// Delete removes the directory; a volume that is gone already counts as removed.
func (p volumeProvisioner) Delete(_ context.Context, volume *v1.PersistentVolume) error {
	if volume.Spec.Local == nil || filepath.Dir(volume.Spec.Local.Path) != p.directory {
		return &controller.IgnoredError{Reason: fmt.Sprintf("%s is not a directory in %s", volume.Name, p.directory)}
	}
	return os.RemoveAll(volume.Spec.Local.Path)
}

// Images run as any user and mostly without fsGroup, so the top directory is open to all, as /tmp is.
func makeVolumeDirectory(path string) error {
	if err := os.Mkdir(path, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Mkdir obeys the umask.
	return os.Chmod(path, 0o777)
}

func affinityTo(nodeName string) *v1.VolumeNodeAffinity {
	return &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
		MatchExpressions: []v1.NodeSelectorRequirement{{
			Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{nodeName},
		}},
	}}}}
}
