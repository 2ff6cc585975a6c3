package agent

import "golang.org/x/sys/unix"

// MayLowerOOMScore tells whether processes here may be shielded from the kernel's out-of-memory killer. Some engines
// lack the capability for it and can grant it to no container.
func MayLowerOOMScore() bool {
	const capability = unix.CAP_SYS_RESOURCE
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return false
	}
	return sets[capability/32].Effective&(1<<(capability%32)) != 0
}
