package main

import "sandbar.dev/lib/container"

// Config is what the command line decided about this control plane.
type Config struct {
	NodeName                   string            `json:"nodeName"`
	Address                    string            `json:"address"`
	AdvertisePort              int               `json:"advertisePort"`
	ServiceSubnet              string            `json:"serviceSubnet"`
	PodSubnet                  string            `json:"podSubnet"`
	Routes                     []container.Route `json:"routes"`
	FeatureGates               map[string]bool   `json:"featureGates"`
	APIServerArguments         map[string]string `json:"apiServerArguments"`
	ControllerManagerArguments map[string]string `json:"controllerManagerArguments"`
	SchedulerArguments         map[string]string `json:"schedulerArguments"`
	// The Gateway API is off where there is none.
	GatewayClass *GatewayClass `json:"gatewayClass"`
}

const (
	pkiDirectory = "/etc/sandbar/pki/"
	objectsPath  = "/etc/sandbar/objects.json"
)
