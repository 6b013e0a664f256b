// Package registry is the one writer of the fleet: heads register here and
// report, leases end, and heads at fault are taken out of rotation. [Registry]
// publishes each change as a new fleet.Snapshot.
package registry
