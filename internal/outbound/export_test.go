package outbound

import "net"

// Resolve has names resolved by another resolver.
func (d *Dialer) Resolve(r *net.Resolver) { d.net.Resolver = r }
